"""A real Inngest server as the engine of an instance. It runs our functions by signed calls; nothing runs in here.

What is left for us to do is to send it events, and to have our functions registered with it.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import RawrError
from rawr.execution.ports import EngineCall, InngestServer, OutgoingEvent, ServerEvents
from rawr.execution.signing import HEADER, sign
from rawr.wire import MalformedJsonError, decode, encode

REGISTER_TIMEOUT_S: Final = 60.0
PAUSE_MAX_S: Final = 60.0

_log: Final = logging.getLogger(__name__)


class RegistrationError(RawrError):
    """The Inngest server does not know our functions as they are now."""

    code = "ENGINE_REGISTRATION_FAILED"


class InngestEngine:
    """Sends events at any time; registers the functions between `start` and `stop`.

    Registration goes through our own signed ingress, so that it fails where a call of the server would fail.
    """

    def __init__(
        self, server: InngestServer, *, events: ServerEvents, call: EngineCall, clock: Clock, pause_s: float = 1.0
    ) -> None:
        """`pause_s` is the first pause between two tries to register; they double up to a minute."""
        self._server = server
        self._events = events
        self._call = call
        self._clock = clock
        self._pause_s = pause_s
        self._registering: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to register, and go on until it is done: the instance is of use before that, and calls may come."""
        self._registering = asyncio.create_task(self._register_until_done())

    async def drain(self, drain_s: float) -> None:
        """Its calls are requests like others, and whoever stops the host waits for those."""

    async def stop(self, drain_s: float) -> None:
        """Register no more, and hang up. The server repeats the calls under way that we do not answer."""
        del drain_s
        if self._registering is not None:
            self._registering.cancel()
            await asyncio.gather(self._registering, return_exceptions=True)
        await self._events.close()

    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        """The ids that the server gave them.

        Raises:
            EngineUnreachableError, EventsRefusedError
        """
        return await self._events.send(events)

    async def register(self) -> None:
        """Have the server take our functions as they are now.

        Raises:
            RegistrationError: with what the server, or the way to it, said.
        """
        body = encode({"server": self._server.api_url})
        headers = {"content-type": "application/json"}
        headers[HEADER] = sign(body, self._server.signing_key, self._clock.now_ms() // 1000)
        try:
            async with asyncio.timeout(REGISTER_TIMEOUT_S):
                answer = await self._call("PUT", {}, headers, body)
        except TimeoutError as error:
            raise self._failed(f"no answer within {REGISTER_TIMEOUT_S:g} s") from error
        # The SDK answers 200 also when the server refused.
        if answer.status != 200 or _Registered.of(answer.body).ok is not True:
            raise self._failed(_Registered.of(answer.body).reason or f"status {answer.status}")

    async def _register_until_done(self) -> None:
        for pause_s in _pauses(self._pause_s):
            try:
                await self.register()
            except RegistrationError as error:
                _log.warning("%s; trying again in %g s", error.message, pause_s)
                await asyncio.sleep(pause_s)
            else:
                _log.info("the functions are registered with %s", self._server.api_url)
                return

    def _failed(self, why: str) -> RegistrationError:
        return RegistrationError(
            f"the functions could not be registered with the Inngest server at {self._server.api_url}: {why}",
            details={"apiUrl": self._server.api_url},
            fix="rawr doctor",
        )


class _Registered(msgspec.Struct, frozen=True):
    """What a sync was answered, by the server or by the SDK."""

    ok: object = None
    error: object = None
    message: object = None

    @classmethod
    def of(cls, body: bytes) -> _Registered:
        try:
            return msgspec.convert(decode(body), cls)
        except (MalformedJsonError, msgspec.ValidationError):
            return cls()

    @property
    def reason(self) -> str | None:
        found = self.error or self.message
        return found[:500] if isinstance(found, str) else None


def _pauses(first_s: float) -> Iterator[float]:
    for doubled in itertools.count():
        yield min(first_s * 2 ** min(doubled, 16), PAUSE_MAX_S)
