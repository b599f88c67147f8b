"""The server process of an instance: one at a time, on a socket that is bound before anything else is opened.

It ends on SIGTERM or SIGINT, after the calls that are under way, and never waits for them longer than the
limits say. The only importer of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn

from rawr.clock import SystemClock
from rawr.errors import RawrError
from rawr.host.request import AsgiApp
from rawr.host.run_folder import RunFolder, ServerRecord
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.wire import encode, iso_from_ms

BACKLOG: Final = 512
_PORT_FIX: Final = "choose another port: rawr up --port PORT, or [server] port in rawr.toml"


class PortInUseError(RawrError):
    code = "PORT_IN_USE"


class ListenError(RawrError):
    """The address cannot be listened on: not ours, not permitted, not an address."""

    code = "LISTEN_FAILED"


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What is served, and what is to be done around it."""

    app: AsgiApp
    announce: Callable[[], None]
    """Once calls are answered. May block."""
    stopping: Callable[[], Awaitable[None]]
    """Before the socket is closed."""
    withdraw: Callable[[], None]
    """When no call is answered any more. May block."""


OpenServing = Callable[[int], AbstractAsyncContextManager[Serving]]
"""`open_serving(port)`: everything opened, for as long as the block lasts."""


def run_server(host: str, port: int, open_serving: OpenServing, *, drain_s: float, port_fix: str) -> None:
    """Serve what `open_serving` opens until SIGTERM or SIGINT, then finish what is under way and return.

    Raises:
        PortInUseError (with `port_fix` as the way out), ListenError, and what `open_serving` raises.
    """
    with (
        bound_socket(host, port, port_fix=port_fix) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve_until_stopped(open_serving, listener, drain_s))


def serve(root: Path, instance_id: InstanceId, manifest: Manifest, settings: HostSettings) -> None:
    """Serve the instance until SIGTERM or SIGINT, then finish what is under way and return.

    Logs go to stderr as JSON lines.

    Raises:
        ServerAlreadyRunningError, PortInUseError, ListenError, and what `open_host` raises.
    """
    log_as_json_lines()
    run = RunFolder(root / ".rawr" / "run")

    @contextlib.asynccontextmanager
    async def open_serving(port: int) -> AsyncIterator[Serving]:
        clock = SystemClock()
        opened = open_host(root, instance_id, manifest, settings, port=port, clock=clock, access_log=write_line)
        async with opened as host:
            record = ServerRecord(
                pid=os.getpid(), url=host.local_url, instance_id=instance_id, started_at=iso_from_ms(clock.now_ms())
            )

            async def stopping() -> None:
                host.streams.stop()

            yield Serving(app=host.app, announce=lambda: run.announce(record), stopping=stopping, withdraw=run.withdraw)

    with run.held():
        run_server(settings.bind_host, settings.port, open_serving, drain_s=settings.limits.drain_s, port_fix=_PORT_FIX)


@contextlib.contextmanager
def bound_socket(host: str, port: int, *, port_fix: str) -> Iterator[socket.socket]:
    """A TCP socket bound to the address; port 0 lets the system choose.

    Raises:
        PortInUseError: somebody else listens there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        # Lets us start while connections of our predecessor linger; it does not share a live port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(BACKLOG)
        except OSError as error:
            raise _bind_error(host, port, error, port_fix) from error
        yield listener


def _bind_error(host: str, port: int, error: OSError, port_fix: str) -> RawrError:
    details = {"host": host, "port": port}
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"{host}:{port} is in use by another program",
            details=details,
            fix=port_fix,
        )
    return ListenError(f"cannot listen on {host}:{port}: {error.strerror}", details=details)


async def _serve_until_stopped(open_serving: OpenServing, listener: socket.socket, drain_s: float) -> None:
    async with _stop_signals() as stop, open_serving(listener.getsockname()[1]) as serving:
        if not stop.is_set():
            await _serve_http(serving, listener, stop, drain_s)


async def _serve_http(serving: Serving, listener: socket.socket, stop: asyncio.Event, drain_s: float) -> None:
    server = _Server(_config(serving.app, drain_s), on_started=serving.announce)
    stopping = asyncio.create_task(_stop_when_told(server, serving, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        stopping.cancel()
        await asyncio.to_thread(serving.withdraw)


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


def _config(app: AsgiApp, drain_s: float) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send forwarded headers
        timeout_keep_alive=15,
        timeout_graceful_shutdown=max(1, round(drain_s)),
        backlog=BACKLOG,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists."""
    return uvicorn.Config(app="", loop="auto", log_config=None).get_loop_factory()


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


class _JsonLines(logging.Formatter):
    """Every log record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": iso_from_ms(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return encode(line).decode()


def log_as_json_lines() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def write_line(line: Mapping[str, object]) -> None:
    sys.stderr.write(encode(line).decode() + "\n")
    sys.stderr.flush()
