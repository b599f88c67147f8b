"""A run and its timeline as text, and what the telemetry checker says about them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

import click
import msgspec

from rawr.cli.output import clean
from rawr.coordination.graph import graph_of
from rawr.coordination.model import TERMINAL_STATUSES, EventType, HookOutcome, Run, RunStatus, TimelineEvent, Workflow
from rawr.telemetry.checker import Finding, check_timeline, observed_event
from rawr.wire import JsonValue

VALUE_CHARS_MAX: Final = 2000

_COLOURS: Final = {
    RunStatus.QUEUED: "cyan",
    RunStatus.RUNNING: "cyan",
    RunStatus.COMPLETED: "green",
    RunStatus.FAILED: "red",
}


def findings_of(run: Run, timeline: Sequence[TimelineEvent], workflow: Workflow | None) -> list[Finding]:
    """What is wrong with the timeline; empty when it is complete and possible.

    `workflow` is the version that ran, when it is known: then desks are checked against its handoffs too.
    """
    observed = [observed_event(msgspec.to_builtins(event)) for event in timeline]
    plan = None if workflow is None else {str(desk): before for desk, before in graph_of(workflow).upstream.items()}
    return check_timeline(observed, ended=run.status in TERMINAL_STATUSES, plan=plan)


def run_text(run: Run) -> str:
    rows = [
        ("run", run.run_id),
        ("workflow", f"{run.workflow_id} version {run.workflow_version}"),
        ("status", click.style(run.status.value, fg=_COLOURS[run.status])),
        ("started", run.started_at),
    ]
    if isinstance(run.finished_at, str):
        rows.append(("finished", f"{run.finished_at} ({_seconds(run.started_at, run.finished_at):.2f} s)"))
    if run.output is not msgspec.UNSET:
        rows.append(("output", value_text(run.output)))
    if isinstance(run.error, str):
        rows.append(("error", clean(run.error)))
    if (hook := _hook_text(run)) is not None:
        rows.append(("hook", hook))
    return "\n".join(f"{name:<9} {value}" for name, value in rows)


def _hook_text(run: Run) -> str | None:
    """How the finished hooks ended; None when there was none, or nothing is known yet."""
    state = msgspec.UNSET if run.finalization is msgspec.UNSET else run.finalization.finished_hook
    if state is msgspec.UNSET or state.outcome is HookOutcome.SKIPPED:
        return None
    return state.outcome.value if state.error is msgspec.UNSET else f"{state.outcome.value}: {clean(state.error)}"


def timeline_text(timeline: Sequence[TimelineEvent]) -> str:
    started: dict[str, TimelineEvent] = {}
    return "\n".join(f"{event.seq:>4}  {event_line(event, timeline[0], started)}" for event in timeline)


def event_line(event: TimelineEvent, first: TimelineEvent, started: dict[str, TimelineEvent]) -> str:
    """One event for people. `started` remembers the starts of desks from call to call, for how long they took."""
    desk = event.desk_id if isinstance(event.desk_id, str) else ""
    note = event.detail if isinstance(event.detail, str) else ""
    if event.type is EventType.DESK_STARTED:
        started[desk] = event
    elif desk in started:
        note = f"{elapsed_s(started[desk], event):.2f} s  {note}".rstrip()
    at = f"{elapsed_s(first, event):8.2f} s"
    kind = click.style(f"{event.type.value:<14}", fg=_event_colour(event))
    return f"{at}  {kind}  {clean(desk or event.status.value):<16}  {clean(note)}".rstrip()


def elapsed_s(earlier: TimelineEvent, later: TimelineEvent) -> float:
    return _seconds(earlier.ts, later.ts)


def value_text(value: JsonValue) -> str:
    """A JSON value on one line, cut when it is long."""
    text = msgspec.json.encode(value).decode()
    if len(text) <= VALUE_CHARS_MAX:
        return clean(text)
    return f"{clean(text[:VALUE_CHARS_MAX])} ... ({len(text)} characters; --json shows all)"


def _event_colour(event: TimelineEvent) -> str | None:
    match event.type:
        case EventType.RUN_FAILED | EventType.DESK_FAILED:
            return "red"
        case EventType.RUN_COMPLETED | EventType.DESK_COMPLETED:
            return "green"
        case _:
            return None


def _seconds(earlier: str, later: str) -> float:
    parse = datetime.datetime.fromisoformat
    return (parse(later) - parse(earlier)).total_seconds()
