"""The one table that says how a run may move."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.coordination.lifecycle import TRANSITIONS, Fact, IllegalTransitionError, advance, event_id, event_of
from rawr.coordination.model import TERMINAL_STATUSES, EventType, Run, RunStatus
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.telemetry.contract import ALLOWED_STATUSES, STATUSES

AT = "2026-01-01T00:00:00.000Z"
LATER = "2026-01-01T00:00:01.000Z"

facts = st.builds(
    lambda kind, desk, output: Fact(key=f"{kind}/{desk}", type=kind, at=LATER, desk_id=DeskId(desk), output=output),
    st.sampled_from(EventType),
    st.sampled_from("ab"),
    st.integers() | st.none(),
)


def run(status: RunStatus = RunStatus.QUEUED) -> Run:
    return Run(
        run_id=RunId("run-1"),
        workflow_id=WorkflowId("flow"),
        workflow_version=3,
        status=status,
        started_at=AT,
        input={"a": 1},
        trace_links=(),
    )


def fact(kind: EventType, **fields: object) -> Fact:
    return Fact(key=kind.value, type=kind, at=LATER, **fields)  # type: ignore[arg-type]  # the fields of a case


@pytest.mark.parametrize("status", RunStatus)
@pytest.mark.parametrize("kind", EventType)
def test_the_table_is_what_happens(status: RunStatus, kind: EventType) -> None:
    to = TRANSITIONS[status].get(kind)
    if status in TERMINAL_STATUSES:
        assert advance(run(status), fact(kind)) is None
    elif to is None:
        with pytest.raises(IllegalTransitionError, match=f"run run-1 is {status}: {re.escape(kind)} cannot happen now"):
            advance(run(status), fact(kind))
    else:
        after = advance(run(status), fact(kind))
        assert after is not None
        assert after.status is to


def test_every_status_has_its_row_and_terminal_rows_are_empty() -> None:
    assert set(TRANSITIONS) == set(RunStatus)
    assert {status for status, row in TRANSITIONS.items() if not row} == TERMINAL_STATUSES


def test_the_table_gives_only_pairs_that_the_telemetry_contract_allows() -> None:
    assert {status.value for status in RunStatus} == STATUSES
    assert {kind.value for kind in EventType} == set(ALLOWED_STATUSES)
    for row in TRANSITIONS.values():
        assert all(to.value in ALLOWED_STATUSES[kind.value] for kind, to in row.items())


def test_a_run_that_completes_has_an_output_and_an_end() -> None:
    done = advance(run(RunStatus.RUNNING), fact(EventType.RUN_COMPLETED, output=[1], error="not this"))
    assert done == msgspec.structs.replace(run(RunStatus.COMPLETED), output=[1], finished_at=LATER)


def test_a_run_that_fails_has_an_error_and_an_end_and_no_output() -> None:
    failed = advance(run(), fact(EventType.RUN_FAILED, error="no engine", output="not this"))
    assert failed == msgspec.structs.replace(run(RunStatus.FAILED), error="no engine", finished_at=LATER)


def test_a_desk_changes_nothing_in_its_run() -> None:
    running = run(RunStatus.RUNNING)
    assert advance(running, fact(EventType.DESK_COMPLETED, output=1, error="x")) == running


@given(st.lists(facts, max_size=12))
def test_no_sequence_of_facts_leads_out_of_a_terminal_status(history: list[Fact]) -> None:
    now, ended = run(), None
    for happened in history:
        try:
            after = advance(now, happened)
        except IllegalTransitionError:
            continue
        if ended is not None:
            assert after is None
        if after is not None:
            now = after
            ended = now if now.status in TERMINAL_STATUSES else None
    assert (now.finished_at is not msgspec.UNSET) == (now.status in TERMINAL_STATUSES)


@given(st.sampled_from(RunStatus), facts)
def test_the_same_fact_gives_the_same_run(status: RunStatus, happened: Fact) -> None:
    def outcome() -> object:
        try:
            return advance(run(status), happened)
        except IllegalTransitionError as error:
            return error.message, error.details

    assert outcome() == outcome()


def test_d8_the_id_of_an_event_is_derived_from_run_and_key() -> None:
    first = event_id(RunId("run-1"), "desk.completed/a")
    assert first == event_id(RunId("run-1"), "desk.completed/a")
    assert re.fullmatch(r"evt-[0-9a-f]{32}", first)
    others = {event_id(RunId("run-2"), "desk.completed/a"), event_id(RunId("run-1"), "desk.completed/b")}
    assert first not in others
    assert len(others) == 2


def test_an_event_says_what_happened_and_how_the_run_stood_after_it() -> None:
    happened = fact(EventType.DESK_STARTED, desk_id=DeskId("a"), input={"x": 1}, detail="first try")
    event = event_of(run(RunStatus.RUNNING), happened, seq=4)
    assert msgspec.to_builtins(event) == {
        "eventId": event_id(RunId("run-1"), "desk.started"),
        "runId": "run-1",
        "workflowId": "flow",
        "deskId": "a",
        "type": "desk.started",
        "ts": LATER,
        "status": "running",
        "detail": "first try",
        "input": {"x": 1},
        "seq": 4,
    }
