"""What other processes on this machine are, as far as the system tells. The only module that knows psutil."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import psutil

COMMAND_LENGTH_MAX: Final = 120


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that lives. One that has ended and was not yet waited for is not one."""

    pid: int
    started_ms: int
    """Since the Unix epoch, by the present clock; off by up to a second or two."""
    command: str
    """Its arguments, cut; empty when it belongs to somebody else and is not shown."""


def process(pid: int) -> Process | None:
    """The process with that number, or None when there is none."""
    import psutil

    if pid <= 0:  # to the system these are groups of processes
        return None
    try:
        found = psutil.Process(pid)
        with found.oneshot():
            if found.status() == psutil.STATUS_ZOMBIE:
                return None
            return Process(pid=pid, started_ms=round(found.create_time() * 1000), command=_command(found))
    except (psutil.NoSuchProcess, OverflowError):
        return None


def boot_ms() -> int:
    """When this machine started, by the present clock; off by up to a second."""
    import psutil

    return round(psutil.boot_time() * 1000)


def describe_listener(port: int) -> str | None:
    """`name (pid 412)` of what listens on a local TCP port; None when that cannot be found out."""
    import psutil

    try:
        connections = psutil.net_connections(kind="tcp")
    except (psutil.Error, OSError):
        return None
    for connection in connections:
        local = connection.laddr
        if connection.status == psutil.CONN_LISTEN and local and local.port == port and connection.pid:
            return describe_process(connection.pid)
    return None


def describe_process(pid: int) -> str | None:
    """`name (pid 412)`, or None when there is no such process."""
    import psutil

    try:
        return f"{psutil.Process(pid).name()} (pid {pid})"
    except psutil.Error:
        return None


def _command(found: psutil.Process) -> str:
    import psutil

    try:
        command = " ".join(found.cmdline()) or found.name()
    except psutil.AccessDenied:
        return ""
    return command if len(command) <= COMMAND_LENGTH_MAX else command[: COMMAND_LENGTH_MAX - 1] + "…"
