"""Any guarded app on a socket, until a signal: for servers that are no HQ. Its connections are held to the same limits.

Signals, limits of connections and the log are those of an HQ's server (`serve`); there is no TLS and no access file.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import msgspec
import uvicorn

from rawr.clock import SystemClock
from rawr.host import connection
from rawr.host.access import AccessLog
from rawr.host.json_log import logging_to
from rawr.host.log_writer import Descriptor, LineWriter
from rawr.host.refused_connections import RefusedConnections
from rawr.host.request import AsgiApp
from rawr.host.serve import BACKLOG, bound_socket, loop_factory
from rawr.host.settings import Limits


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, and what is to be done around it."""

    app: AsgiApp
    announce: Callable[[], None]
    """Once calls are answered. May block."""
    stopping: Callable[[], Awaitable[None]]
    """Before the socket is closed."""


OpenServing = Callable[[int, AccessLog], AbstractAsyncContextManager[Serving]]
"""`open_serving(port, access_log)`: everything opened, for as long as the block lasts."""


def run_server(host: str, port: int, open_serving: OpenServing, *, limits: Limits, port_fix: str) -> None:
    """Serve what `open_serving` opens until SIGTERM or SIGINT, then finish what is under way and return.

    The log and what was asked go to stderr as JSON lines.

    Raises:
        PortInUseError (with `port_fix` as the way out), ListenError, and what `open_serving` raises.
    """
    log = LineWriter(Descriptor(sys.stderr.fileno()), SystemClock())
    with contextlib.ExitStack() as stack:
        stack.callback(log.close)
        stack.enter_context(logging_to(log))
        listener = stack.enter_context(bound_socket(host, port, port_fix=port_fix))
        runner = stack.enter_context(asyncio.Runner(loop_factory=loop_factory()))
        runner.run(_serve_until_stopped(open_serving, listener, limits, log))


async def _serve_until_stopped(
    open_serving: OpenServing,
    listener: socket.socket,
    limits: Limits,
    access_log: AccessLog,
) -> None:
    async with _stop_signals() as stop, open_serving(listener.getsockname()[1], access_log) as serving:
        if stop.is_set():
            return
        server = _Server(_config(serving.app, limits, access_log), on_started=serving.announce)
        stopping = asyncio.create_task(_stop_when_told(server, serving, stop))
        try:
            await server.serve(sockets=[listener])
        finally:
            stopping.cancel()


class _Server(uvicorn.Server):
    """Announces itself when it answers, and leaves signals to us: its own way of ending kills the process."""

    def __init__(self, config: uvicorn.Config, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        await asyncio.to_thread(self._on_started)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: AsgiApp, limits: Limits, access_log: AccessLog) -> uvicorn.Config:
    door = connection.Door(limits, RefusedConnections(SystemClock(), access_log))
    return uvicorn.Config(
        app,
        http=connection.protocol(door),  # type: ignore[arg-type] # a maker of connections, as their class is
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send forwarded headers
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type] # goes to call_later
        timeout_graceful_shutdown=max(1, round(limits.drain_s)),
        backlog=BACKLOG,
    )


async def _stop_when_told(server: uvicorn.Server, serving: Serving, stop: asyncio.Event) -> None:
    await stop.wait()
    await serving.stopping()
    server.should_exit = True


@contextlib.asynccontextmanager
async def _stop_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, for as long as the block lasts."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
