"""`rawr status`."""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome

PATIENCE_S: Final = 5.0


@command("status", "Show whether the server of this HQ runs, and where.")
def status(invocation: Invocation) -> Outcome:
    """Exit code 0 either way; `data.running` says which."""
    from rawr.cli.server import running_server

    instance = invocation.instance
    server = running_server(instance, wait_s=PATIENCE_S)
    data = {
        "running": server is not None,
        "instanceId": instance.id,
        "root": str(instance.root),
        "server": msgspec.to_builtins(server),
        "url": None if server is None else server.url,
    }
    if server is None:
        return Outcome(data=data, text=f"the server of {instance.root} is not running\n  start it: rawr up")
    rows = [("url", server.url), ("pid", server.pid), ("since", server.started_at), ("hq", instance.root)]
    return Outcome(data=data, text="\n".join(f"{name:<6} {value}" for name, value in rows))
