"""Asking apps for their functions: at addresses that are given, again and again, because apps change.

An app that signs answers with its functions. One in dev mode registers by a request of its own while it is asked.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.execution.embedded.app_sync import AppRefusedError, answered_app
from rawr.execution.embedded.apps import RegisteredApps
from rawr.execution.embedded.engine import Engine
from rawr.execution.embedded.envelope import Answer, unwrapped
from rawr.execution.embedded.protocol import parse_functions, sync_request
from rawr.wire import MalformedJsonError, decode

ASK_AGAIN_DEV_S: Final = 5.0
ASK_AGAIN_S: Final = 60.0
ASK_TIMEOUT_S: Final = 20.0

_log: Final = logging.getLogger(__name__)


class AppSync:
    """Keeps the apps at some addresses registered. What it last found out about each is in `states`."""

    def __init__(self, engine: Engine, apps: RegisteredApps, *, is_dev: bool) -> None:
        self._engine = engine
        self._apps = apps
        self._is_dev = is_dev
        self.states: dict[str, str] = {}

    async def keep(self, url: str) -> None:
        """Ask the app at `url` for ever; a change of how that goes is logged once."""
        while True:
            state = await self._state_of(url)
            if self.states.get(url) != state:
                self.states[url] = state
                _log.log(logging.INFO if state == "registered" else logging.WARNING, "the app at %s: %s", url, state)
            await asyncio.sleep(ASK_AGAIN_DEV_S if self._is_dev else ASK_AGAIN_S if state == "registered" else 1.0)

    async def ask(self, url: str) -> None:
        """Have the app at `url` registered as it is now.

        Raises:
            RawrError: it cannot be reached, is not one of ours, or has functions that cannot be served.
        """
        async with asyncio.timeout(ASK_TIMEOUT_S):
            answer = unwrapped(await self._apps.ask(url, "PUT", lambda key, t: sync_request(url, key=key, t=t)))
        if not self._is_dev and _kind(answer) == "in_band":
            body = parse_functions(answer, trust=self._apps.trust)
            app = answered_app(body, url=url, only_loopback=False)
            await self._engine.register(app.app_id, app.functions, url=app.url)
            return
        told = _Told.of(answer.body)
        if answer.status != 200 or told.ok is False or told.error:
            raise AppRefusedError(told.reason or f"it answered status {answer.status}")

    async def _state_of(self, url: str) -> str:
        try:
            await self.ask(url)
        except TimeoutError:
            return f"no answer within {ASK_TIMEOUT_S:g} s"
        except RawrError as error:
            return error.message
        return "registered"


class _Told(msgspec.Struct, frozen=True):
    """What an app answers that registered by itself."""

    ok: object = None
    error: object = None
    message: object = None

    @classmethod
    def of(cls, body: bytes) -> _Told:
        try:
            return msgspec.convert(decode(body), cls)
        except (MalformedJsonError, msgspec.ValidationError):
            return cls()

    @property
    def reason(self) -> str | None:
        found = self.error or self.message
        return ascii(found)[:500] if isinstance(found, str) else None


def _kind(answer: Answer) -> str | None:
    return {name.lower(): value for name, value in answer.headers.items()}.get("x-inngest-sync-kind")
