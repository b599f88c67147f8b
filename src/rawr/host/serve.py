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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn

from rawr.clock import SystemClock
from rawr.errors import RawrError
from rawr.host.run_folder import RunFolder, ServerRecord
from rawr.host.runtime import Host, open_host
from rawr.host.settings import HostSettings
from rawr.host.streams import OpenStreams
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.wire import encode, iso_from_ms

BACKLOG: Final = 512


class PortInUseError(RawrError):
    code = "PORT_IN_USE"


class ListenError(RawrError):
    """The address cannot be listened on: not ours, not permitted, not an address."""

    code = "LISTEN_FAILED"


def serve(root: Path, instance_id: InstanceId, manifest: Manifest, settings: HostSettings) -> None:
    """Serve the instance until SIGTERM or SIGINT, then finish what is under way and return.

    Logs go to stderr as JSON lines.

    Raises:
        ServerAlreadyRunningError, PortInUseError, ListenError, and what `open_host` raises.
    """
    _log_as_json_lines()
    served = _Served(root=root, instance_id=instance_id, manifest=manifest, settings=settings)
    run = RunFolder(root / ".rawr" / "run")
    with (
        run.held(),
        bound_socket(settings.bind_host, settings.port) as listener,
        asyncio.Runner(loop_factory=_loop_factory()) as runner,
    ):
        runner.run(_serve_until_stopped(served, run, listener))


@contextlib.contextmanager
def bound_socket(host: str, port: int) -> Iterator[socket.socket]:
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
            raise _bind_error(host, port, error) from error
        yield listener


def _bind_error(host: str, port: int, error: OSError) -> RawrError:
    details = {"host": host, "port": port}
    if error.errno == errno.EADDRINUSE:
        return PortInUseError(
            f"{host}:{port} is in use by another program",
            details=details,
            fix="choose another port: rawr up --port PORT, or [server] port in rawr.toml",
        )
    return ListenError(f"cannot listen on {host}:{port}: {error.strerror}", details=details)


class _Served(msgspec.Struct, frozen=True, kw_only=True):
    root: Path
    instance_id: InstanceId
    manifest: Manifest
    settings: HostSettings


async def _serve_until_stopped(served: _Served, run: RunFolder, listener: socket.socket) -> None:
    clock = SystemClock()
    async with _stop_signals() as stop:
        host_life = open_host(
            served.root,
            served.instance_id,
            served.manifest,
            served.settings,
            port=listener.getsockname()[1],
            clock=clock,
            access_log=_write_line,
        )
        async with host_life as host:
            record = ServerRecord(
                pid=os.getpid(),
                url=host.local_url,
                instance_id=served.instance_id,
                started_at=iso_from_ms(clock.now_ms()),
            )
            if not stop.is_set():
                await _serve_http(host, listener, stop, announce=lambda: run.announce(record), withdraw=run.withdraw)


async def _serve_http(
    host: Host,
    listener: socket.socket,
    stop: asyncio.Event,
    *,
    announce: Callable[[], None],
    withdraw: Callable[[], None],
) -> None:
    server = _Server(_config(host), on_started=announce)
    stopping = asyncio.create_task(_stop_when_told(server, host.streams, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        stopping.cancel()
        await asyncio.to_thread(withdraw)


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


def _config(host: Host) -> uvicorn.Config:
    return uvicorn.Config(
        host.app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send forwarded headers
        timeout_keep_alive=15,
        timeout_graceful_shutdown=max(1, round(host.settings.limits.drain_s)),
        backlog=BACKLOG,
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists."""
    return uvicorn.Config(app="", loop="auto", log_config=None).get_loop_factory()


async def _stop_when_told(server: uvicorn.Server, streams: OpenStreams, stop: asyncio.Event) -> None:
    await stop.wait()
    streams.stop()
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


def _log_as_json_lines() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _write_line(line: Mapping[str, object]) -> None:
    sys.stderr.write(encode(line).decode() + "\n")
    sys.stderr.flush()
