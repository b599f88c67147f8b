"""One engine server put together: its file, its engine, its way to the apps and its API, opened and closed as one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from rawr.clock import Clock, SystemClock
from rawr.errors import RawrError
from rawr.execution.embedded.apps import RegisteredApps
from rawr.execution.embedded.engine import Engine
from rawr.execution.embedded.worker import EngineTimes
from rawr.execution.http_call import HttpApps
from rawr.host.access import AccessLog
from rawr.host.engine_server.api import EngineApi
from rawr.host.engine_server.settings import DEV_WARNING, EngineServerSettings, checked
from rawr.host.engine_server.sync import AppSync
from rawr.host.guard import Guard
from rawr.host.plain_server import Serving, run_server
from rawr.storage.faults import storage_fault

CALLS_MAX: Final = 256
"""At the same time. They cost little here: what works is the apps."""
FORGET_EVERY_S: Final = 3600.0

_log: Final = logging.getLogger(__name__)


def serve_engine(settings: EngineServerSettings) -> None:
    """Serve until SIGTERM or SIGINT: then begin nothing new, finish what is under way, and return.

    Logs go to stderr as JSON lines; before them, in plain words, where it listens and what apps must be told.

    Raises:
        DevNotLocalError, AppRefusedError, PortInUseError, ListenError, and what opening the file raises.
    """
    checked(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would name the address of every call

    @asynccontextmanager
    async def open_serving(port: int, access_log: AccessLog) -> AsyncIterator[Serving]:
        async with open_engine_server(settings, clock=SystemClock(), access_log=access_log) as (app, engine):

            async def stopping() -> None:
                # Apps still send events and ask for what runs remember, until their calls have ended.
                await engine.drain(settings.limits.drain_s)

            yield Serving(
                app=app,
                announce=lambda: _announce(settings, settings.http.local_url_for(port)),
                stopping=stopping,
            )

    run_server(
        settings.host,
        settings.port,
        open_serving,
        limits=settings.limits,
        port_fix="choose another port: rawr engine serve --port PORT",
    )


@asynccontextmanager
async def open_engine_server(
    settings: EngineServerSettings, *, clock: Clock, access_log: AccessLog, times: EngineTimes | None = None
) -> AsyncIterator[tuple[Guard, Engine]]:
    """The app of an engine server and its engine, which works for as long as the block lasts.

    Raises:
        RawrError: its file cannot be opened, or too many servers work on it.
    """
    times = times or EngineTimes()
    async with AsyncExitStack() as stack:
        http = HttpApps(call_timeout_s=times.call_timeout_s, max_calls=CALLS_MAX)
        stack.push_async_callback(http.close)
        apps = RegisteredApps(http.at, keys=settings.signing_keys, clock=clock)
        engine = await asyncio.to_thread(_engine, settings, apps, clock, times)
        stack.push_async_callback(engine.stop, settings.limits.drain_s)
        sync = AppSync(engine, apps, is_dev=settings.is_dev)
        api = EngineApi(engine, settings, clock=clock, app_states=sync.states)
        await engine.start()
        await stack.enter_async_context(_background([sync.keep(url) for url in settings.apps]))
        await stack.enter_async_context(_background([_forget(engine, settings, clock)]))
        yield Guard(api, settings.http, clock=clock, access_log=access_log), engine


def _engine(settings: EngineServerSettings, apps: RegisteredApps, clock: Clock, times: EngineTimes) -> Engine:
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_fault(settings.data, "create", error) from error
    retry_ms = settings.retry_ms
    return Engine(
        database=settings.data / "engine.sqlite",
        run_dir=settings.data / "run",
        apps=apps,
        clock=clock,
        max_calls=CALLS_MAX,
        backoff=None if retry_ms is None else lambda _attempt: retry_ms,
        times=times,
    )


async def _forget(engine: Engine, settings: EngineServerSettings, clock: Clock) -> None:
    """From time to time remove what is older than the settings say."""
    while settings.retention_ms is not None:
        try:
            forgotten = await engine.forget(clock.now_ms() - settings.retention_ms)
        except RawrError as error:
            _log.warning("old runs were not removed: %s", error.message)
        else:
            if forgotten.runs or forgotten.events:
                _log.info("removed %d old runs and %d events", forgotten.runs, forgotten.events)
        await asyncio.sleep(FORGET_EVERY_S)


@asynccontextmanager
async def _background(work: list[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _announce(settings: EngineServerSettings, url: str) -> None:
    if settings.is_dev:
        lines = [f"WARNING  {DEV_WARNING}", f"rawr engine listens on {url} (dev mode)", f"  apps:  INNGEST_DEV={url}"]
    else:
        lines = [
            f"rawr engine listens on {url}",
            f"  apps:  INNGEST_BASE_URL={url}  INNGEST_DEV=0  and the same INNGEST_EVENT_KEY and INNGEST_SIGNING_KEY",
        ]
    lines.append(f"  data:  {settings.data}")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
