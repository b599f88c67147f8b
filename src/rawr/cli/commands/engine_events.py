"""`rawr engine events|send`: the events that an engine has accepted, and one more."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import BadInputError, RawrError

if TYPE_CHECKING:
    from rawr.execution.embedded.admin import EngineAdmin
    from rawr.execution.embedded.listing import EventRow, RunRow
    from rawr.execution.ports import OutgoingEvent

LIMIT: Final = 20
WAIT_S: Final = 60.0


class RunsPendingError(BadInputError):
    """The runs of an event that were waited for have not ended."""

    code = "RUN_WAIT_TIMEOUT"


@command("events", "List events, newest first.")
@click.option("--name", help="Only events of this name.")
@click.option("--limit", type=click.IntRange(1, 1000), default=LIMIT, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="EVENT", help="Go on after this event of the last page.")
def events(invocation: Invocation, *, name: str | None, limit: int, cursor: str | None) -> Outcome:
    """With the runs that each has started."""
    from rawr.cli.engine import warn_elsewhere, with_engine

    warn_elsewhere(invocation)
    return with_engine(invocation, lambda admin: _listed(admin, name=name, limit=limit, before=cursor))


@command("send", "Send an event.")
@click.argument("name")
@click.option("--data", "given", metavar="JSON|@FILE|@-", default="{}", help="Its data, an object; {} by default.")
@click.option("--id", "event_id", help="Your own id: the same id again within 24 hours starts nothing.")
@click.option("--ts", "ts_ms", type=click.IntRange(min=1), metavar="MS", help="When its runs start, in Unix ms.")
@click.option("--wait", is_flag=True, help="Wait until the runs that it starts have ended.")
def send(
    invocation: Invocation, *, name: str, given: str, event_id: str | None, ts_ms: int | None, wait: bool
) -> Outcome:
    """The engine accepts it durably. Functions that it triggers run when a server runs.

    With --wait the exit code is 1 when one of its runs did not complete, and 75 when they have not ended in a minute.
    """
    from rawr.cli.engine import refuse_elsewhere, with_engine
    from rawr.cli.json_argument import json_argument
    from rawr.execution.ports import OutgoingEvent

    refuse_elsewhere(invocation, "an event can be sent to the embedded engine only")
    data = json_argument(given, name="--data", limit_bytes=invocation.config().limits.body_bytes)
    if not isinstance(data, dict):
        raise BadInputError("--data is no JSON object", fix='--data \'{"key": "value"}\'')
    event = OutgoingEvent(name=name, data=data, event_id=event_id, ts_ms=ts_ms)
    return with_engine(invocation, lambda admin: _sent(invocation, admin, event, wait=wait))


async def _sent(invocation: Invocation, admin: EngineAdmin, event: OutgoingEvent, *, wait: bool) -> Outcome:
    from rawr.cli.engine import wire

    ulid = await admin.send(event)
    is_served = any(worker.is_alive for worker in (await admin.overview()).workers)
    if not is_served:
        invocation.warn("no server runs: the event is kept, and starts its runs at the next `rawr up`")
    is_awaited = wait and is_served
    runs = await (_ended(admin, ulid) if is_awaited else admin.runs_of_event(ulid))
    found = [(await admin.run(run_id)).run for run_id in runs]
    text = "\n".join([f"sent {ulid}", *[f"  {row.status:<10} {row.run_id}  {clean(row.fn_id)}" for row in found]])
    data = {"event": ulid, "eventId": event.event_id or ulid, "runs": [wire(row) for row in found]}
    return Outcome(data=data, text=text, error=_failure_of(found) if is_awaited else None)


def _failure_of(found: list[RunRow]) -> RawrError | None:
    """Why what was waited for is not well."""
    from rawr.cli.commands.engine_runs import EngineRunFailedError

    if any(row.ended_at_ms is None for row in found):
        return RunsPendingError(f"not all of its runs have ended within {WAIT_S:g} s", fix="rawr engine runs")
    if wrong := [row for row in found if row.status != "completed"]:
        message = f"{len(wrong)} of {len(found)} runs did not complete"
        return EngineRunFailedError(message, fix=f"rawr engine run {wrong[0].run_id}")
    return None


async def _ended(admin: EngineAdmin, ulid: str) -> tuple[str, ...]:
    """The runs that the event has started, once all have ended or the time is over."""
    until_s = time.monotonic() + WAIT_S
    while time.monotonic() < until_s:
        runs = await admin.runs_of_event(ulid)
        if runs and all([(await admin.run(run_id)).run.ended_at_ms is not None for run_id in runs]):
            return runs
        if not runs and await admin.is_routed(ulid):
            return ()
        await asyncio.sleep(0.05)
    return await admin.runs_of_event(ulid)


async def _listed(admin: EngineAdmin, *, name: str | None, limit: int, before: str | None) -> Outcome:
    from rawr.cli.engine import columns, wire

    found = await admin.events(name=name, before=before, limit=limit)
    cursor = found[-1].ulid if len(found) == limit else None
    data = {"events": [wire(row) for row in found], "cursor": cursor}
    if not found:
        return Outcome(data=data, text="no events")
    text = columns([_row(row) for row in found], ("EVENT", "RECEIVED", "NAME", "ID", "RUNS"))
    more = "" if cursor is None else f"\n\nmore: rawr engine events --cursor {cursor}"
    return Outcome(data=data, text=text + more)


def _row(row: EventRow) -> tuple[str, ...]:
    from rawr.cli.engine import when

    runs = " ".join(row.runs) if row.runs else ("-" if row.is_routed else "not looked at yet")
    event_id = "-" if row.event_id == row.ulid else clean(row.event_id)
    return (row.ulid, when(row.received_at_ms), clean(row.name), event_id, runs)
