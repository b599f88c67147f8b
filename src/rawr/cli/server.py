"""The server of an instance as the commands see it: find it, start it, stop it.

A server is known by three things that must agree: the kernel lock on `run/server.lock` is held, `run/server.json`
names its process and address, and `/health` there answers with our own instance id. It is never looked for,
and never stopped, by port.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Final

import msgspec

from rawr.cli.context import Instance, Invocation
from rawr.client.http import HqClient, ServerAnswerError, ServerNotRunningError, ServerTimeoutError
from rawr.errors import RawrError
from rawr.host.run_folder import RunFolder, ServerRecord
from rawr.security.credentials import SecretsFolder
from rawr.storage.lock import FileLock, pids_holding

ANSWER_TIMEOUT_S: Final = 2.0
COMES_UP_S: Final = 15.0
"""How long a command waits for a server that lives and does not answer yet."""
ENDS_WITHIN_S: Final = 20.0
"""How long a server has to end that has not said how long it may take."""
KILL_S: Final = 5.0
START_LOCK_S: Final = 90.0
POLL_S: Final = 0.05


class ServerOtherInstanceError(RawrError):
    """What answers at the address is the server of another instance."""

    code = "SERVER_OTHER_INSTANCE"


class ServerStuckError(RawrError):
    """A server process of the instance lives and cannot be used or stopped."""

    code = "SERVER_STUCK"


class Server(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A server of the instance that lives and answers."""

    url: str
    pid: int
    instance_id: str
    started_at: str
    certificate: str | msgspec.UnsetType = msgspec.UNSET
    """The file with what it shows, when it speaks TLS."""

    @classmethod
    def of(cls, record: ServerRecord) -> Server:
        return cls(
            url=record.url,
            pid=record.pid,
            instance_id=record.instance_id,
            started_at=record.started_at,
            certificate=record.certificate or msgspec.UNSET,
        )


class Stopped(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    pid: int
    killed: bool
    """It did not end by itself in time. Nothing durable is lost."""


def running_server(instance: Instance, *, wait_s: float = COMES_UP_S) -> Server | None:
    """The server of this instance, or None when none lives. Waits for one that is just coming up.

    Raises:
        ServerOtherInstanceError: another instance answers at the recorded address.
        ServerStuckError: one lives and did not answer in time.
    """
    run = RunFolder(instance.layout.run)
    deadline_s = time.monotonic() + wait_s
    while run_lock_is_held(instance):
        if (record := _true_record(instance, run)) and _answers(record, instance):
            return Server.of(record)
        if time.monotonic() >= deadline_s:
            raise _stuck(instance, f"lives and gave no answer within {wait_s:g} s")
        time.sleep(POLL_S)
    return None


def require_server(instance: Instance) -> Server:
    """Raises ServerNotRunningError, and as `running_server` does."""
    server = running_server(instance)
    if server is None:
        raise ServerNotRunningError("the server of this HQ is not running", fix="rawr up")
    return server


def client_of(server: Server, instance: Instance, *, timeout_s: float = 30.0) -> HqClient:
    certificate = Path(server.certificate) if isinstance(server.certificate, str) else None
    cli_key = SecretsFolder(instance.layout.secrets).cli_key()
    return HqClient(server.url, cli_key, timeout_s=timeout_s, certificate=certificate)


def asking(record: ServerRecord) -> HqClient:
    """A client without a key, for what a server tells everybody about itself."""
    certificate = None if record.certificate is None else Path(record.certificate)
    return HqClient(record.url, "", timeout_s=ANSWER_TIMEOUT_S, certificate=certificate)


def stop_server(invocation: Invocation, *, timeout_s: float | None = None) -> Stopped | None:
    """Stop the server of this instance; None when none lives. A record that a dead one left is removed.

    One that has not ended by itself after `timeout_s` is killed; by default it has as long as it said it may take.

    Raises:
        ServerStuckError: who holds the lock cannot be found out, or it cannot be ended.
        LockTimeoutError: another command is starting the server.
    """
    instance = invocation.instance
    with FileLock(instance.layout.start_lock).acquire(START_LOCK_S):
        if not run_lock_is_held(instance):
            RunFolder(instance.layout.run).withdraw()
            return None
        pid = _pid_of_server(instance)
        invocation.say(f"stopping the server (pid {pid}) ...")
        killed = _end(instance, pid, _ends_within_s(instance) if timeout_s is None else timeout_s)
        RunFolder(instance.layout.run).withdraw()
        return Stopped(pid=pid, killed=killed)


def run_lock_is_held(instance: Instance) -> bool:
    return FileLock(instance.layout.server_lock).is_held()


def _true_record(instance: Instance, run: RunFolder) -> ServerRecord | None:
    """The record, unless it is one that a dead server left: the process that it names must hold the lock."""
    record = run.running()
    if record is None:
        return None
    pids = pids_holding(instance.layout.server_lock)
    return record if pids is None or record.pid in pids else None


def _answers(record: ServerRecord, instance: Instance) -> bool:
    try:
        answered = asking(record).health().get("instanceId")
    except (ServerNotRunningError, ServerTimeoutError):
        return False
    except ServerAnswerError:
        answered = None
    if answered != instance.id:
        who = "something that is no HQ" if answered is None else f"the server of another HQ ({answered})"
        raise ServerOtherInstanceError(
            f"{record.url} is recorded as the server of this HQ ({instance.id}), and {who} answers there",
            details={"url": record.url, "instanceId": instance.id, "answeredInstanceId": answered},
            fix="rawr down, then rawr up",
        )
    return True


def _pid_of_server(instance: Instance) -> int:
    pids = pids_holding(instance.layout.server_lock)
    if pids:
        return min(pids)
    record = RunFolder(instance.layout.run).running()
    if record is None or pids is not None or not _answers(record, instance):
        raise _stuck(instance, "holds its lock, and which process that is cannot be found out")
    return record.pid


def _ends_within_s(instance: Instance) -> float:
    record = _true_record(instance, RunFolder(instance.layout.run))
    return ENDS_WITHIN_S if record is None or record.ends_within_s is None else record.ends_within_s


def _end(instance: Instance, pid: int, timeout_s: float) -> bool:
    """End the process; whether it had to be killed."""
    for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, KILL_S)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return number is signal.SIGKILL
        except PermissionError as error:
            raise _stuck(instance, f"has pid {pid}, which belongs to another user") from error
        if _lock_is_freed(instance, patience_s):
            return number is signal.SIGKILL
    raise _stuck(instance, f"has pid {pid}, and that cannot be ended")


def _lock_is_freed(instance: Instance, timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    while run_lock_is_held(instance):
        if time.monotonic() >= deadline_s:
            return False
        time.sleep(POLL_S)
    return True


def _stuck(instance: Instance, what: str) -> ServerStuckError:
    return ServerStuckError(
        f"the server of {instance.root} {what}",
        details={"lockPath": str(instance.layout.server_lock), "logPath": str(instance.layout.server_log)},
        fix=f"look into {instance.layout.server_log}; rawr down stops it",
    )
