"""Starting the server of an instance in the background: once, however many ask, and with a reason when it fails.

The server is a process of its own session whose output goes to `.rawr/logs/server.log`. It is ready when it has
written its record and answers; when it ends before that, what it wrote last says why.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from rawr.cli.context import Instance, Invocation
from rawr.cli.server import (
    ANSWER_TIMEOUT_S,
    POLL_S,
    START_LOCK_S,
    Server,
    ServerOtherInstanceError,
    asking,
    running_server,
)
from rawr.client.http import HqClient, ServerAnswerError, ServerNotRunningError, ServerTimeoutError
from rawr.errors import RawrError
from rawr.host.run_folder import RunFolder, ServerRecord
from rawr.storage.faults import storage_fault
from rawr.storage.jsonfile import read_json
from rawr.storage.lock import FileLock
from rawr.wire import MalformedJsonError, decode

START_S: Final = 60.0
LOG_BYTES_MAX: Final = 16 << 20
LOG_TAIL_BYTES: Final = 64 << 10
LOG_LINES_SHOWN: Final = 20


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server is to listen, as far as that is not left to the configuration."""

    port: int | None = None
    host: str | None = None
    insecure_bind: bool = False

    def arguments(self) -> list[str]:
        port = [] if self.port is None else ["--port", str(self.port)]
        host = [] if self.host is None else ["--host", self.host]
        return [*port, *host, *(["--insecure-bind"] if self.insecure_bind else [])]


class Started(msgspec.Struct, frozen=True, kw_only=True):
    server: Server
    fresh: bool
    """False when it was up before."""


class ServerStartError(RawrError):
    """The server did not come up. The code is that of the cause, when the server could say it."""

    code = "SERVER_START_FAILED"

    def __init__(self, message: str, *, code: str | None = None, **rest: Any) -> None:
        super().__init__(message, **rest)
        if code is not None:
            vars(self)["code"] = code


class PortTakenError(RawrError):
    code = "PORT_IN_USE"


def start_server(invocation: Invocation, wanted: Wanted) -> Started:
    """Have a server of the instance running and ready; whether it had to be started.

    Raises:
        PortTakenError, ServerOtherInstanceError: somebody else has the port.
        ServerStartError: it ended, or was not ready in time and was ended.
        LockTimeoutError: another command has been starting it for too long.
    """
    instance = invocation.instance
    with FileLock(instance.layout.start_lock).acquire(START_LOCK_S):
        server = running_server(instance)
        if server is not None:
            return Started(server=server, fresh=False)
        RunFolder(instance.layout.run).withdraw()  # what a server that was killed has left
        invocation.say(f"starting the server of {instance.root} ...")
        return Started(server=_start(invocation, instance, wanted), fresh=True)


def _start(invocation: Invocation, instance: Instance, wanted: Wanted) -> Server:
    log = _Log(instance.layout.server_log)
    process = _spawn(instance, wanted, log)
    try:
        server = _ready(process, instance, log)
    except BaseException:  # Ctrl-C included: a server that nobody waited for would be a surprise
        _abandon(process)
        raise
    process.returncode = 0  # it lives on without us; without this Popen would warn of that
    for warning in log.warnings():
        invocation.warn(warning)
    return server


def _spawn(instance: Instance, wanted: Wanted, log: _Log) -> subprocess.Popen[bytes]:
    # -P: what lies in the instance's folder must not be importable in place of the real modules.
    command = [sys.executable, "-P", "-m", "rawr", "serve", "--instance", str(instance.root), "--background"]
    with log.path.open("ab") as output:
        return subprocess.Popen(
            [*command, *wanted.arguments()],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=instance.root,
            start_new_session=True,
        )


def _ready(process: subprocess.Popen[bytes], instance: Instance, log: _Log) -> Server:
    deadline_s = time.monotonic() + START_S
    reason = "it did not say where it is"
    while time.monotonic() < deadline_s:
        if process.poll() is not None:
            raise _failure(process.returncode, instance, log)
        # The record is enough: asking for the lock could take it away from the server for a moment.
        record = _record(instance)
        if record is not None and record.pid == process.pid:
            missing = _missing(record, instance)
            if missing is None:
                return Server.of(record)
            reason = missing
        time.sleep(POLL_S)
    raise ServerStartError(
        f"the server was not ready within {START_S:g} s and was stopped: {reason}",
        code="SERVER_START_TIMEOUT",
        details={"log": log.tail(), "logPath": str(log.path)},
        fix="rawr doctor",
    )


def _missing(record: ServerRecord, instance: Instance) -> str | None:
    """What keeps the server from being ready, or None."""
    try:
        report = asking(record).ready()
    except (ServerNotRunningError, ServerTimeoutError, ServerAnswerError) as error:
        return error.message
    if report.get("instanceId") != instance.id:
        return f"{record.url} answers for another HQ"
    return None if report.get("ok") is True else str(report.get("reason"))


def _record(instance: Instance) -> ServerRecord | None:
    try:
        return msgspec.convert(read_json(instance.layout.server_record), ServerRecord)
    except (RawrError, msgspec.ValidationError):
        return None


def _abandon(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=5)


def _failure(exit_code: int, instance: Instance, log: _Log) -> RawrError:
    cause = log.cause()
    if cause is None:
        return ServerStartError(
            f"the server ended during its start (exit code {exit_code})",
            details={"exitCode": exit_code, "log": log.tail(), "logPath": str(log.path)},
            fix=f"look into {log.path}, or run it in the foreground: rawr serve",
        )
    details = dict(cause.get("details") or {})
    if cause["code"] == "PORT_IN_USE" and isinstance(details.get("port"), int):
        return _port_taken(details["port"], instance, said=str(cause["message"]))
    return ServerStartError(
        f"the server could not start: {cause['message']}",
        code=str(cause["code"]),
        details={**details, "logPath": str(log.path)},
        fix=cause.get("fix") or "rawr doctor",
    )


def _port_taken(port: int, instance: Instance, *, said: str) -> RawrError:
    free = f"rawr up --port 0 takes a free port; or set [server] port in {instance.root / 'rawr.toml'}"
    other = _instance_at(port)
    if other is not None:
        return ServerOtherInstanceError(
            f"port {port} is in use by the server of another HQ ({other})",
            details={"port": port, "instanceId": instance.id, "answeredInstanceId": other},
            fix=f"{free}; or stop that one: rawr down, in its folder",
        )
    from rawr.storage.processes import describe_listener

    holder = describe_listener(port)
    message = said if holder is None else f"port {port} is in use by {holder}"
    return PortTakenError(message, details={"port": port, "holder": holder}, fix=free)


def _instance_at(port: int) -> str | None:
    """The id of the HQ that answers at the port, if one does."""
    try:
        answered = HqClient(f"http://127.0.0.1:{port}", "", timeout_s=ANSWER_TIMEOUT_S).health().get("instanceId")
    except RawrError:
        return None
    return answered if isinstance(answered, str) else None


class _Log:
    """The server's log, and what a server wrote to it since this was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
                path.replace(path.with_name(f"{path.name}.1"))
            path.touch()
        except OSError as error:
            raise storage_fault(path, "write the log", error) from error
        self._from = path.stat().st_size

    def tail(self) -> list[str]:
        return self._lines()[-LOG_LINES_SHOWN:]

    def cause(self) -> dict[str, Any] | None:
        """The error that the server said it ended with."""
        said = [entry for entry in self._entries() if "code" in entry and "message" in entry]
        return said[-1] if said else None

    def warnings(self) -> list[str]:
        return [str(entry.get("message")) for entry in self._entries() if entry.get("level") == "warning"]

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        for line in self._lines():
            try:
                entry = decode(line)
            except MalformedJsonError:
                continue  # what the interpreter itself prints
            if isinstance(entry, dict):
                entries.append(entry)
        return entries

    def _lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(max(self._from, self.path.stat().st_size - LOG_TAIL_BYTES))
                return file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
