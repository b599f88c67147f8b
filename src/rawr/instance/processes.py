"""What other processes on this machine are, as far as the system tells. The only module that knows psutil."""

from __future__ import annotations


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
