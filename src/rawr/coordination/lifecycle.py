"""The life of a run: one transition table, and the function that applies a fact to a run. Pure.

Everything that may change a run's status is in `TRANSITIONS`; stores, programs, documents and tests read it
and decide nothing themselves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from rawr.coordination.model import (
    TERMINAL_STATUSES,
    EventType,
    Finalization,
    FinishedHookState,
    MemoryRecord,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
)
from rawr.errors import RawrError
from rawr.ids import DeskId, EventId, RunId
from rawr.wire import JsonValue

TRANSITIONS: Final[Mapping[RunStatus, Mapping[EventType, RunStatus]]] = {
    RunStatus.QUEUED: {
        EventType.RUN_STARTED: RunStatus.RUNNING,
        EventType.RUN_FAILED: RunStatus.FAILED,  # it could not be handed to the engine
    },
    RunStatus.RUNNING: {
        EventType.RUN_STARTED: RunStatus.RUNNING,  # a start that is delivered twice is the same start
        EventType.DESK_STARTED: RunStatus.RUNNING,
        EventType.DESK_COMPLETED: RunStatus.RUNNING,
        EventType.DESK_FAILED: RunStatus.RUNNING,  # the desk may be retried; the run ends by run.failed
        EventType.RUN_COMPLETED: RunStatus.COMPLETED,
        EventType.RUN_FAILED: RunStatus.FAILED,
    },
    RunStatus.COMPLETED: {},
    RunStatus.FAILED: {},
}


class IllegalTransitionError(RawrError):
    """A fact does not fit the status that the run is in."""

    code = "RUN_TRANSITION_ILLEGAL"


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a run, not yet numbered.

    `key` names the happening within its run (`desk.completed/<desk>`): the same key is the same happening,
    however often it is reported. `input` and `output` stay UNSET when the event has none. `memory` is written
    in the same transaction as the event.
    """

    key: str
    type: EventType
    at: str
    desk_id: DeskId | msgspec.UnsetType = msgspec.UNSET
    detail: str | msgspec.UnsetType = msgspec.UNSET
    input: JsonValue | msgspec.UnsetType = msgspec.UNSET
    output: JsonValue | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    memory: MemoryRecord | None = None
    finished_hook: FinishedHookState | None = None
    """The outcome of the run's finished hooks where it is known as the run ends: when there are none."""
    trace_link: TraceLink | None = None
    """Where the engine shows the run, once that is known; in place of the run's earlier link of this provider."""


def event_id(run_id: RunId, key: str) -> EventId:
    """The id of the event that `key` names in `run_id`: always the same, so that a second delivery is seen."""
    return EventId("evt-" + hashlib.sha256(f"{run_id}\n{key}".encode()).hexdigest()[:32])


def advance(run: Run, fact: Fact) -> Run | None:
    """The run after `fact`, or None when the run has already ended and nothing may follow.

    Raises:
        IllegalTransitionError: the fact cannot happen in the run's status.
    """
    if run.status in TERMINAL_STATUSES:
        return None
    status = TRANSITIONS[run.status].get(fact.type)
    if status is None:
        raise IllegalTransitionError(
            f"run {run.run_id} is {run.status.value}: {fact.type.value} cannot happen now",
            details={"runId": run.run_id, "status": run.status.value, "event": fact.type.value},
        )
    ended = status in TERMINAL_STATUSES
    after = Run(
        run_id=run.run_id,
        workflow_id=run.workflow_id,
        workflow_version=run.workflow_version,
        status=status,
        started_at=run.started_at,
        finished_at=fact.at if ended else run.finished_at,
        input=run.input,
        output=fact.output if status is RunStatus.COMPLETED else run.output,
        error=fact.error if status is RunStatus.FAILED else run.error,
        trace_links=run.trace_links if fact.trace_link is None else _with_link(run, fact.trace_link),
        finalization=run.finalization,
    )
    if fact.finished_hook is not None and awaits_finished_hook(after):
        return finished(after, fact.finished_hook)
    return after


def links_when_dispatched(run: Run, link: TraceLink | None) -> tuple[TraceLink, ...]:
    """The run's links once an engine has taken it: with `link`, unless a fast engine has already given a better one."""
    if link is None or any(known.provider == link.provider for known in run.trace_links):
        return run.trace_links
    return (*run.trace_links, link)


def _with_link(run: Run, link: TraceLink) -> tuple[TraceLink, ...]:
    return (*(known for known in run.trace_links if known.provider != link.provider), link)


def awaits_finished_hook(run: Run) -> bool:
    """Whether the run has ended under the contract, and its hook's outcome is not known yet."""
    return (
        run.status in TERMINAL_STATUSES
        and run.finalization is not msgspec.UNSET
        and run.finalization.finished_hook is msgspec.UNSET
    )


def finished(run: Run, state: FinishedHookState) -> Run | None:
    """The run with the outcome of its finished hook, or None when that is known already: the first one stays.

    Raises:
        IllegalTransitionError: the run has not ended, or was made without the contract.
    """
    if run.finalization is msgspec.UNSET or run.status not in TERMINAL_STATUSES:
        raise IllegalTransitionError(
            f"run {run.run_id} is {run.status.value}: there is no finished hook to record",
            details={"runId": run.run_id, "status": run.status.value},
        )
    if not awaits_finished_hook(run):
        return None
    return msgspec.structs.replace(
        run, finalization=Finalization(contract=run.finalization.contract, finished_hook=state)
    )


def event_of(run: Run, fact: Fact, *, seq: int) -> TimelineEvent:
    """The timeline entry of `fact`, where `run` is the run after it."""
    return TimelineEvent(
        event_id=event_id(run.run_id, fact.key),
        run_id=run.run_id,
        workflow_id=run.workflow_id,
        desk_id=fact.desk_id,
        type=fact.type,
        ts=fact.at,
        status=run.status,
        detail=fact.detail,
        input=fact.input,
        output=fact.output,
        seq=seq,
    )
