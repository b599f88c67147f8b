"""`rawr engine vacuum|repair`: the care of the engine's file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome

if TYPE_CHECKING:
    from rawr.execution.embedded.model import Forgotten


@command("vacuum", "Forget old runs and give their space back.", dry_run=True)
@click.option("--older-than", "age", default="30d", show_default=True, metavar="AGE", help="30d, 12h, 90m or 0s.")
def vacuum(invocation: Invocation, age: str) -> Outcome:
    """Runs that ended before that, with their steps, and events that no run is about. Workflows and their timelines
    stay: they are not in this file. The ids of forgotten events count as never used.

    The file shrinks when no server works with it; otherwise its free space is used again. With --dry-run it is said
    how many runs there are.
    """
    from rawr.cli.engine import with_engine
    from rawr.cli.moment import age_ms
    from rawr.clock import SystemClock
    from rawr.storage.snapshots import compact

    before_ms = SystemClock().now_ms() - age_ms(age, name="--older-than")
    database = invocation.instance.layout.engine_database
    if not database.exists():
        return Outcome(data={"runs": 0, "events": 0}, text="there is no engine file yet")
    if invocation.dry_run:
        count = with_engine(invocation, lambda admin: admin.ended_before(before_ms))
        return Outcome(data={"planned": {"action": "forget", "runs": count}}, text=f"would forget {count} runs")
    size_before = database.stat().st_size
    forgotten, is_used = with_engine(invocation, lambda admin: admin.forget_old(before_ms))
    if not is_used:
        invocation.say("giving the space back")
        compact(database)
    return _vacuumed(forgotten, size_before, database.stat().st_size, is_used=is_used)


@command("repair", "Put a damaged file of the engine aside.", dry_run=True)
def repair(invocation: Invocation) -> Outcome:
    """Nothing is removed: the file is renamed, and the next server begins a new one.

    Runs of workflows that had not ended are given to it again, and what their desks have done is not done again. Runs
    of other functions, sleeps and events that were only in the damaged file do not go on.
    """
    from rawr.clock import SystemClock
    from rawr.execution.embedded.damage import put_aside

    layout = invocation.instance.layout
    done = put_aside(layout.engine_database, layout.run, at_ms=SystemClock().now_ms(), check_only=invocation.dry_run)
    data = {"damage": done.damage, "putAside": list(done.put_aside)}
    if done.damage is None:
        return Outcome(data=data, text="the engine's file is sound")
    if invocation.dry_run:
        return Outcome(data=data, text=f"would put it aside: {done.damage}")
    lines = [done.damage, *[f"moved to {path}" for path in done.put_aside], "go on with: rawr up"]
    return Outcome(data=data, text="\n".join(lines))


def _vacuumed(forgotten: Forgotten, before: int, after: int, *, is_used: bool) -> Outcome:
    data = {
        "runs": forgotten.runs,
        "events": forgotten.events,
        "sizeBytesBefore": before,
        "sizeBytesAfter": after,
        "isInUse": is_used,
    }
    space = "a server works with the file: its space is used again" if is_used else _shrunk(before, after)
    return Outcome(data=data, text=f"forgot {forgotten.runs} runs and {forgotten.events} events; {space}")


def _shrunk(before: int, after: int) -> str:
    return f"{before / 2**20:.1f} MiB before, {after / 2**20:.1f} MiB now"
