"""Whether a timeline is complete and possible. Pure; an oracle that shares no code with what writes timelines.

With a plan (which desk waits for which) it also finds desks that ran too early, and desks of a completed run
that never ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Literal

import msgspec

from rawr.telemetry.contract import ALLOWED_STATUSES, TERMINAL_EVENT_TYPES


class FindingCode(StrEnum):
    EMPTY = "TIMELINE_EMPTY"
    SEQ_GAP = "SEQ_GAP"
    EVENT_ID_REPEATED = "EVENT_ID_REPEATED"
    EVENT_ID_MISSING = "EVENT_ID_MISSING"
    FOREIGN_RUN = "FOREIGN_RUN"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    STATUS_ILLEGAL = "STATUS_ILLEGAL"
    START_MISSING = "RUN_START_MISSING"
    START_REPEATED = "RUN_START_REPEATED"
    START_ORDER = "RUN_START_ORDER"
    TERMINAL_MISSING = "TERMINAL_MISSING"
    TERMINAL_REPEATED = "TERMINAL_REPEATED"
    AFTER_TERMINAL = "EVENT_AFTER_TERMINAL"
    DESK_UNKNOWN = "DESK_UNKNOWN"
    DESK_NOT_STARTED = "DESK_NOT_STARTED"
    DESK_RESTARTED = "DESK_STARTED_WHILE_RUNNING"
    DESK_COMPLETED_TWICE = "DESK_COMPLETED_TWICE"
    DESK_TOO_EARLY = "DESK_STARTED_BEFORE_ITS_INPUTS"
    DESK_NOT_COMPLETED = "DESK_NOT_COMPLETED"
    FAILURE_UNEXPLAINED = "FAILURE_UNEXPLAINED"
    TIME_BACKWARDS = "TIME_BACKWARDS"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    code: FindingCode
    severity: Literal["error", "warning"]
    message: str
    seq: int | None = None


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """One event as it was observed, in the order in which it was read."""

    seq: int
    event_id: str
    run_id: str
    type: str
    status: str
    ts: str
    desk_id: str | None = None


Plan = Mapping[str, Sequence[str]]
"""Each desk of the workflow and the desks that hand off to it."""


def observed_event(document: Mapping[str, object]) -> Observed:
    """An event from its JSON form."""
    desk_id = document.get("deskId")
    return msgspec.convert(
        {
            "seq": document.get("seq"),
            "event_id": document.get("eventId"),
            "run_id": document.get("runId"),
            "type": document.get("type"),
            "status": document.get("status"),
            "ts": document.get("ts"),
            "desk_id": desk_id,
        },
        Observed,
    )


def check_timeline(events: Sequence[Observed], *, ended: bool, plan: Plan | None = None) -> list[Finding]:
    """Everything that is wrong with the timeline of one run; empty when it is right.

    `ended` says whether the run itself claims to have ended, so that a missing terminal event is seen.
    """
    if not events:
        return [_error(FindingCode.EMPTY, "the timeline has no event")]
    return [
        *_envelope(events),
        *_run_lifecycle(events, ended=ended),
        *_desk_lifecycle(events),
        *(_against_plan(events, plan) if plan is not None else ()),
        *_times(events),
    ]


def _envelope(events: Sequence[Observed]) -> Iterator[Finding]:
    ids: set[str] = set()
    for expected, event in enumerate(events, start=1):
        if event.seq != expected:
            yield _error(FindingCode.SEQ_GAP, f"expected seq {expected}, found {event.seq}", event)
        if not event.event_id:
            yield _error(FindingCode.EVENT_ID_MISSING, "the event has no id", event)
        if event.event_id in ids:
            yield _error(FindingCode.EVENT_ID_REPEATED, f"event {event.event_id} occurs twice", event)
        ids.add(event.event_id)
        if event.run_id != events[0].run_id:
            yield _error(FindingCode.FOREIGN_RUN, f"the event belongs to run {event.run_id}", event)
        allowed = ALLOWED_STATUSES.get(event.type)
        if allowed is None:
            yield _error(FindingCode.UNKNOWN_TYPE, f"{event.type} is no event type", event)
        elif event.status not in allowed:
            yield _error(FindingCode.STATUS_ILLEGAL, f"{event.type} with status {event.status}", event)
        elif event.type.startswith("desk.") and event.status != "running":
            yield _error(FindingCode.STATUS_ILLEGAL, f"{event.type} while the run is {event.status}", event)


def _run_lifecycle(events: Sequence[Observed], *, ended: bool) -> Iterator[Finding]:
    starts = [event for event in events if event.type == "run.started"]
    for status in ("queued", "running"):
        same = [event for event in starts if event.status == status]
        if len(same) > 1:
            yield _error(FindingCode.START_REPEATED, f"run.started/{status} occurs {len(same)} times", same[1])
    first = events[0]
    if (first.type, first.status) != ("run.started", "queued"):
        yield _error(FindingCode.START_MISSING, "the timeline does not begin with run.started/queued", first)
    yield from _running_first(events)
    terminals = [event for event in events if event.type in TERMINAL_EVENT_TYPES]
    if ended and not terminals:
        yield _error(FindingCode.TERMINAL_MISSING, "the run has ended and no event says so")
    for event in terminals[1:]:
        yield _error(FindingCode.TERMINAL_REPEATED, f"{event.type} after {terminals[0].type}", event)
    if terminals:
        position = events.index(terminals[0])
        for event in events[position + 1 :]:
            yield _error(FindingCode.AFTER_TERMINAL, f"{event.type} after the run ended", event)


def _running_first(events: Sequence[Observed]) -> Iterator[Finding]:
    """Nothing but a failure to queue may come before the run runs."""
    running = False
    for event in events:
        running = running or (event.type, event.status) == ("run.started", "running")
        if not running and (event.type.startswith("desk.") or event.type == "run.completed"):
            yield _error(FindingCode.START_ORDER, f"{event.type} before run.started/running", event)


def _desk_lifecycle(events: Sequence[Observed]) -> Iterator[Finding]:
    running: set[str] = set()
    completed: set[str] = set()
    seen: dict[str, None] = {}
    for event in events:
        desk = event.desk_id
        if event.type == "run.completed":
            for missing in (one for one in seen if one not in completed):
                yield _error(FindingCode.DESK_NOT_COMPLETED, f"the run completed without desk {missing}", event)
        if not event.type.startswith("desk."):
            continue
        if desk is None:
            yield _error(FindingCode.DESK_UNKNOWN, f"{event.type} names no desk", event)
            continue
        seen[desk] = None
        if event.type == "desk.started":
            if desk in completed:
                yield _error(FindingCode.DESK_COMPLETED_TWICE, f"desk {desk} started again after completing", event)
            elif desk in running:
                yield _error(FindingCode.DESK_RESTARTED, f"desk {desk} started twice", event)
            running.add(desk)
            continue
        if event.type == "desk.completed" and desk in completed:
            yield _error(FindingCode.DESK_COMPLETED_TWICE, f"desk {desk} completed twice", event)
        elif desk not in running:
            yield _error(FindingCode.DESK_NOT_STARTED, f"{event.type} of {desk}, which was not started", event)
        running.discard(desk)
        if event.type == "desk.completed":
            completed.add(desk)


def _against_plan(events: Sequence[Observed], plan: Plan) -> Iterator[Finding]:
    seen: set[str] = set()
    completed: set[str] = set()
    for event in events:
        desk = event.desk_id
        if desk is not None and desk not in plan:
            yield _error(FindingCode.DESK_UNKNOWN, f"the workflow has no desk {desk}", event)
        elif desk is not None:
            seen.add(desk)
            if event.type == "desk.started":
                for upstream in plan[desk]:
                    if upstream not in completed:
                        message = f"desk {desk} started before {upstream} completed"
                        yield _error(FindingCode.DESK_TOO_EARLY, message, event)
            elif event.type == "desk.completed":
                completed.add(desk)
        elif event.type == "run.completed":
            for missing in (one for one in plan if one not in seen):  # those that were seen are judged without a plan
                yield _error(FindingCode.DESK_NOT_COMPLETED, f"the run completed without desk {missing}", event)
        elif event.type == "run.failed" and plan.keys() <= completed:
            yield Finding(  # an engine may give up between the last desk and the end
                code=FindingCode.FAILURE_UNEXPLAINED,
                severity="warning",
                message="the run failed although every desk completed",
                seq=event.seq,
            )


def _times(events: Sequence[Observed]) -> Iterator[Finding]:
    for earlier, later in pairwise(events):
        if later.ts < earlier.ts:
            yield Finding(
                code=FindingCode.TIME_BACKWARDS,
                severity="warning",
                message=f"{later.ts} comes after {earlier.ts}: the clock was set back",
                seq=later.seq,
            )


def _error(code: FindingCode, message: str, event: Observed | None = None) -> Finding:
    return Finding(code=code, severity="error", message=message, seq=None if event is None else event.seq)
