"""`rawr down`."""

from __future__ import annotations

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome


@command("down", "Stop the server of this HQ.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long it may take to end by itself before it is killed; by default what its limits allow, and a margin.",
)
def down(invocation: Invocation, timeout_s: float | None) -> Outcome:
    """Calls that are under way are finished first. Runs are durable: they go on at the next start."""
    from rawr.cli.server import stop_server

    stopped = stop_server(invocation, timeout_s=timeout_s)
    if stopped is None:
        return Outcome(data={"stopped": False, "wasRunning": False}, text="the server was not running")
    how = "did not end in time and was killed; nothing durable is lost" if stopped.killed else "is stopped"
    data = {"stopped": True, "wasRunning": True, "pid": stopped.pid, "killed": stopped.killed}
    return Outcome(data=data, text=f"the server (pid {stopped.pid}) {how}")
