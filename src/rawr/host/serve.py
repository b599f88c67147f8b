"""The server process of an instance: one at a time, on a socket that is bound before anything else is opened.

SIGTERM or SIGINT lets it finish the requests that are under way, for as long as the limits say, and refuse new
ones; a second signal ends it at once. SIGHUP opens the access log anew and reads the certificate again. With
`connection` the only importer of uvicorn.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn

from rawr.clock import Clock, SystemClock
from rawr.errors import RawrError
from rawr.host import connection, tls
from rawr.host.json_log import logging_to
from rawr.host.log_writer import Descriptor, LineWriter, RotatingFile
from rawr.host.refused_connections import RefusedConnections
from rawr.host.run_folder import RunFolder, ServerRecord
from rawr.host.runtime import Host, open_host
from rawr.host.settings import HostSettings
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.instance.layout import InstanceLayout
from rawr.storage.faults import storage_fault
from rawr.wire import iso_from_ms

BACKLOG: Final = 512
_PORT_FIX: Final = "choose another port: rawr up --port PORT, or [server] port in rawr.toml"
GARBAGE_MIN: Final = 10_000
"""How many more objects than before there must be, until some of them are looked through for cycles."""
CLOSING_S: Final = 2
"""How long the last bytes of streams and answers may take, once a stopping server has nothing else to do."""
LEAVING_S: Final = 8.0
"""For what comes after the last connection: the stores are closed, the logs written."""

_log: Final = logging.getLogger("rawr.host")


class PortInUseError(RawrError):
    code = "PORT_IN_USE"


class ListenError(RawrError):
    """The address cannot be listened on: not ours, not permitted, not an address."""

    code = "LISTEN_FAILED"


def serve(root: Path, instance_id: InstanceId, manifest: Manifest, settings: HostSettings) -> None:
    """Serve the instance until SIGTERM or SIGINT, then finish what is under way and return.

    Logs go to stderr as JSON lines; what was asked goes to `.rawr/logs/access.jsonl`.

    Raises:
        ServerAlreadyRunningError, PortInUseError, ListenError, TlsFilesError, and what `open_host` raises.
    """
    clock = SystemClock()
    with contextlib.ExitStack() as stack:
        log = LineWriter(Descriptor(sys.stderr.fileno()), clock)
        stack.callback(log.close)
        stack.enter_context(logging_to(log))
        context = None if settings.tls is None else tls.server_context(settings.tls)
        run = RunFolder(root / ".rawr" / "run")
        stack.enter_context(run.held())
        listener = stack.enter_context(bound_socket(settings.bind_host, settings.port, port_fix=_PORT_FIX))
        access_log = LineWriter(_access_file(InstanceLayout(root).access_log), clock)
        stack.callback(access_log.close)
        served = _Served(
            root=root,
            instance_id=instance_id,
            manifest=manifest,
            settings=settings,
            clock=clock,
            tls=context,
            log=log,
            access_log=access_log,
        )
        if settings.is_exposed:
            _log.warning(
                "listening on %s without TLS: every key and answer can be read and changed on the way",
                settings.bind_host,
            )
        runner = stack.enter_context(asyncio.Runner(loop_factory=loop_factory()))
        runner.run(_serve_until_stopped(served, run, listener))


def _access_file(path: Path) -> RotatingFile:
    try:
        return RotatingFile(path)
    except OSError as error:
        raise storage_fault(path, "open the access log", error) from error


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


class _Served(msgspec.Struct, frozen=True, kw_only=True):
    root: Path
    instance_id: InstanceId
    manifest: Manifest
    settings: HostSettings
    clock: Clock
    tls: ssl.SSLContext | None
    log: LineWriter
    access_log: LineWriter

    def record(self, url: str) -> ServerRecord:
        return ServerRecord(
            pid=os.getpid(),
            url=url,
            instance_id=self.instance_id,
            started_at=iso_from_ms(self.clock.now_ms()),
            certificate=None if self.settings.tls is None else str(self.settings.tls.certificate.resolve()),
            ends_within_s=self.settings.limits.drain_s + CLOSING_S + LEAVING_S,
        )

    def renew(self) -> None:
        """What SIGHUP asks for."""
        self.access_log.reopen()
        if self.tls is not None and self.settings.tls is not None:
            try:
                tls.reload(self.tls, self.settings.tls)
            except tls.TlsFilesError as error:
                _log.error("the certificate stays as it was: %s", error.message)
            else:
                _log.info("the certificate was read again")


async def _serve_until_stopped(served: _Served, run: RunFolder, listener: socket.socket) -> None:
    async with _signals(served.renew) as stop:
        host_life = open_host(
            served.root,
            served.instance_id,
            served.manifest,
            served.settings,
            port=listener.getsockname()[1],
            clock=served.clock,
            access_log=served.access_log,
        )
        async with host_life as host:
            record = await asyncio.to_thread(served.record, host.local_url)
            if not stop.is_set():
                try:
                    await _serve_http(served, host, listener, stop, announce=lambda: run.announce(record))
                finally:
                    await asyncio.to_thread(run.withdraw)


async def _serve_http(
    served: _Served,
    host: Host,
    listener: socket.socket,
    stop: asyncio.Event,
    announce: Callable[[], None],
) -> None:
    def started() -> None:
        served.log.flush()  # who waits for the record reads the warnings then
        _spare_collector()
        announce()

    server = _Server(_config(served, host), host, on_started=started)
    stopping = asyncio.create_task(_stop_when_told(server, stop))
    try:
        await server.serve(sockets=[listener])
    finally:
        stopping.cancel()


class _Server(uvicorn.Server):
    """Announces itself when it answers, and leaves signals to us: its own way of ending kills the process."""

    def __init__(self, config: uvicorn.Config, host: Host, *, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._host = host
        self._on_started = on_started
        self._under_way: asyncio.Future[Any] | None = None
        """What the end waits for, once it has begun."""

    def stop(self) -> None:
        """Begin to end: no more work, no new requests, and at the same time the end of what is under way."""
        drain_s = self._host.settings.limits.drain_s
        self._host.app.stop()
        self._under_way = asyncio.gather(self._answered(drain_s), self._host.drain(drain_s))
        for kept in list(self.server_state.connections):
            kept.shutdown()
        self._host.streams.stop()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        await asyncio.to_thread(self._on_started)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell everybody else that we stop while anything is under way; only then close."""
        if self._under_way is not None:
            await self._under_way
        await super().shutdown(sockets=sockets)

    async def _answered(self, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                await self._host.app.idle()
        except TimeoutError:
            _log.warning("some requests were not answered within %g s and are given up", within_s)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _spare_collector() -> None:
    """What is in memory once the server is up stays there, and what a request makes goes with it.

    Looking through all of it again and again is a tenth of what a request costs.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_MIN)


def _config(served: _Served, host: Host) -> uvicorn.Config:
    limits = served.settings.limits
    door = connection.Door(limits, RefusedConnections(served.clock, served.access_log))
    config = uvicorn.Config(
        host.app,
        http=connection.protocol(door),  # type: ignore[arg-type] # a maker of connections, as their class is
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # anybody can send forwarded headers; the guard knows whom to believe
        timeout_keep_alive=limits.idle_s,  # type: ignore[arg-type] # goes to call_later
        timeout_graceful_shutdown=CLOSING_S,
        backlog=BACKLOG,
    )
    config.load()
    config.ssl = served.tls
    return config


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it exists."""
    return uvicorn.Config(app="", loop="auto", log_config=None).get_loop_factory()


async def _stop_when_told(server: _Server, stop: asyncio.Event) -> None:
    await stop.wait()
    _log.info("stopping; another signal ends this at once")
    server.stop()


@contextlib.asynccontextmanager
async def _signals(renew: Callable[[], None]) -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM and SIGINT set, for as long as the block lasts. The second of them kills."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def stop_once() -> None:
        stop.set()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop_once)
    if not sys.stderr.isatty():  # a terminal that is closed says so by SIGHUP as well, and ends us
        loop.add_signal_handler(signal.SIGHUP, renew)
    try:
        yield stop
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
