"""The timeline checker: right timelines pass, and every single fault in one is found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.telemetry.checker import Finding, FindingCode, Observed, check_timeline, observed_event

DIAMOND: Final[dict[str, tuple[str, ...]]] = {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")}


def timeline(*told: str) -> list[Observed]:
    """Events from `"run.started/queued"` and `"desk.started a"`."""
    return [_event(number, text) for number, text in enumerate(told, start=1)]


def _event(number: int, text: str) -> Observed:
    kind, _, desk = text.partition(" ")
    kind, _, status = kind.partition("/")
    return Observed(
        seq=number,
        event_id=f"evt-{number}",
        run_id="run-1",
        type=kind,
        status=status or {"run.completed": "completed", "run.failed": "failed"}.get(kind, "running"),
        ts=f"2026-01-01T00:00:{number:02d}.000Z",
        desk_id=desk or None,
    )


BEGIN: Final = ("run.started/queued", "run.started/running")


def worked(*desks: str) -> tuple[str, ...]:
    return tuple(f"desk.{what} {desk}" for desk in desks for what in ("started", "completed"))


COMPLETED: Final = timeline(*BEGIN, *worked(*"abcd"), "run.completed")
RETRIED: Final = timeline(
    *BEGIN, *worked(*"abc"), "desk.started d", "desk.failed d", "desk.started d", "desk.completed d", "run.completed"
)
FAILED: Final = timeline(*BEGIN, *worked("a"), "desk.started b", "desk.started c", "desk.failed b", "run.failed")
NOT_QUEUED: Final = timeline("run.started/queued", "run.failed")
GIVEN_UP: Final = timeline(*BEGIN, "desk.started a", "run.failed")
RIGHT: Final = {
    "completed": COMPLETED,
    "retried": RETRIED,
    "failed": FAILED,
    "not queued": NOT_QUEUED,
    "given up": GIVEN_UP,
}


def codes(
    events: Sequence[Observed], *, ended: bool = True, plan: dict[str, tuple[str, ...]] | None = None
) -> list[str]:
    return [finding.code.value for finding in check_timeline(events, ended=ended, plan=plan)]


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("plan", [None, DIAMOND])
def test_a_right_timeline_has_no_finding(name: str, plan: dict[str, tuple[str, ...]] | None) -> None:
    assert codes(RIGHT[name], plan=plan) == []


@pytest.mark.parametrize("length", range(1, len(COMPLETED)))
def test_a_timeline_of_a_run_that_goes_on_is_right_up_to_anywhere(length: int) -> None:
    assert codes(COMPLETED[:length], ended=False, plan=DIAMOND) == []
    assert codes(COMPLETED[:length], plan=DIAMOND) == ["TERMINAL_MISSING"]


@given(st.permutations(["b started", "b completed", "c started", "c completed"]))
def test_desks_that_do_not_wait_for_each_other_may_interleave(steps: list[str]) -> None:
    middle = [f"desk.{what} {desk}" for desk, what in (step.split() for step in steps)]
    legal = all(middle.index(f"desk.started {desk}") < middle.index(f"desk.completed {desk}") for desk in "bc")
    told = timeline(*BEGIN, *worked("a"), *middle, *worked("d"), "run.completed")
    assert (codes(told, plan=DIAMOND) == []) == legal


TABLE: Final[dict[str, tuple[list[Observed], list[tuple[str, int | None]]]]] = {
    "empty": ([], [("TIMELINE_EMPTY", None)]),
    "no queued start": (timeline("run.started/running", *worked(*"abcd"), "run.completed"), [("RUN_START_MISSING", 1)]),
    "no running start": (
        timeline("run.started/queued", "desk.started a", "run.failed"),
        [("RUN_START_ORDER", 2)],
    ),
    "queued twice": (
        timeline("run.started/queued", *BEGIN, "run.failed"),
        [("RUN_START_REPEATED", 2)],
    ),
    "two ends": (
        timeline(*BEGIN, *worked(*"abcd"), "run.completed", "run.failed"),
        [("TERMINAL_REPEATED", 12), ("EVENT_AFTER_TERMINAL", 12), ("FAILURE_UNEXPLAINED", 12)],
    ),
    "desk after the end": (
        timeline(*BEGIN, "desk.started a", "run.failed", "desk.completed a"),
        [("EVENT_AFTER_TERMINAL", 5)],
    ),
    "desk completed without a start": (
        timeline(*BEGIN, "desk.completed a", "run.failed"),
        [("DESK_NOT_STARTED", 3)],
    ),
    "desk started twice": (
        timeline(*BEGIN, "desk.started a", "desk.started a", "run.failed"),
        [("DESK_STARTED_WHILE_RUNNING", 4)],
    ),
    "desk done again": (
        timeline(*BEGIN, *worked("a", "a"), "run.failed"),
        [("DESK_COMPLETED_TWICE", 5), ("DESK_COMPLETED_TWICE", 6)],
    ),
    "desk before its inputs": (
        timeline(*BEGIN, *worked("a", "b"), "desk.started d", "run.failed"),
        [("DESK_STARTED_BEFORE_ITS_INPUTS", 7)],
    ),
    "desk that nobody knows": (timeline(*BEGIN, "desk.started x", "run.failed"), [("DESK_UNKNOWN", 3)]),
    "desk without a name": (timeline(*BEGIN, "desk.started", "run.failed"), [("DESK_UNKNOWN", 3)]),
    "completed without a desk": (
        timeline(*BEGIN, *worked(*"abc"), "run.completed"),
        [("DESK_NOT_COMPLETED", 9)],
    ),
    "completed although a desk failed": (
        timeline(*BEGIN, *worked(*"abc"), "desk.started d", "desk.failed d", "run.completed"),
        [("DESK_NOT_COMPLETED", 11)],
    ),
    "failed although all completed": (
        timeline(*BEGIN, *worked(*"abcd"), "run.failed"),
        [("FAILURE_UNEXPLAINED", 11)],
    ),
    "no such event": (timeline(*BEGIN, "run.paused", "run.failed"), [("UNKNOWN_TYPE", 3)]),
    "desk event of a run that is not running": (
        timeline(*BEGIN, "desk.started/completed a", "run.failed"),
        [("STATUS_ILLEGAL", 3)],
    ),
}


@pytest.mark.parametrize("fault", TABLE)
def test_a_fault_is_found_by_code_and_place_and_nothing_else_is(fault: str) -> None:
    events, expected = TABLE[fault]
    found = [(finding.code.value, finding.seq) for finding in check_timeline(events, ended=True, plan=DIAMOND)]
    assert found == expected


def test_a_desk_that_was_seen_must_complete_also_without_a_plan() -> None:
    events = timeline(*BEGIN, "desk.started a", "run.completed")
    assert codes(events) == ["DESK_NOT_COMPLETED"]


def test_a_clock_that_was_set_back_is_a_warning_and_every_other_impossibility_an_error() -> None:
    events = [*COMPLETED[:3], msgspec.structs.replace(COMPLETED[3], ts="2025-12-31T23:59:59.999Z"), *COMPLETED[4:]]
    (finding,) = check_timeline(events, ended=True, plan=DIAMOND)
    assert (finding.code, finding.severity, finding.seq) == (FindingCode.TIME_BACKWARDS, "warning", 4)
    warnings = {
        finding.code
        for events, _ in TABLE.values()
        for finding in check_timeline(events, ended=True, plan=DIAMOND)
        if finding.severity == "warning"
    }
    assert warnings == {FindingCode.FAILURE_UNEXPLAINED}


# --- one fault at a time, everywhere ---

STATUSES: Final = ("queued", "running", "completed", "failed")
TYPES: Final = ("run.started", "run.completed", "run.failed", "desk.started", "desk.completed", "desk.failed")


def renumbered(events: Sequence[Observed]) -> list[Observed]:
    """The same events under fresh numbers, ids and times: what is left is only their order."""
    return [
        msgspec.structs.replace(event, seq=number, event_id=f"evt-{number}", ts=f"2026-01-01T00:00:{number:02d}.000Z")
        for number, event in enumerate(events, start=1)
    ]


def mutants(events: list[Observed]) -> Iterator[tuple[str, list[Observed]]]:
    for i, event in enumerate(events):
        before, after = events[:i], events[i + 1 :]
        where = f"{event.seq} {event.type}"

        def changed(at: int = i, **fields: object) -> list[Observed]:
            return [*events[:at], msgspec.structs.replace(events[at], **fields), *events[at + 1 :]]

        yield f"drop {where}", [*before, *after]
        yield f"drop and renumber {where}", renumbered([*before, *after])
        yield f"twice {where}", [*before, event, event, *after]
        yield f"twice and renumber {where}", renumbered([*before, event, event, *after])
        yield f"other run {where}", changed(run_id="run-2")
        yield f"no id {where}", changed(event_id="")
        yield f"seq {where}", changed(seq=event.seq + 1)
        yield f"seq 0 {where}", changed(seq=event.seq - 1)
        if i:
            yield f"id of another {where}", changed(event_id=events[0].event_id)
            yield f"time back {where}", changed(ts="2025-12-31T23:59:59.999Z")
        for status in set(STATUSES) - {event.status}:
            yield f"status {status} {where}", changed(status=status)
        for kind in set(TYPES) - {event.type}:
            yield f"type {kind} {where}", changed(type=kind)
        yield f"end here {where}", renumbered([*before, event, _event(1, "run.failed"), *after])
        if event.desk_id is not None:
            yield f"no desk {where}", changed(desk_id=None)
            for desk in sorted(DIAMOND.keys() - {event.desk_id}):
                yield f"desk {desk} {where}", changed(desk_id=desk)
        for j in range(i + 1, len(events)):
            swapped = [*before, events[j], *events[i + 1 : j], event, *events[j + 1 :]]
            yield f"swap {where} with {events[j].seq}", swapped
            yield f"swap and renumber {where} with {events[j].seq}", renumbered(swapped)
    for desk in DIAMOND:
        if any(event.desk_id == desk for event in events):
            yield f"whole desk {desk}", renumbered([event for event in events if event.desk_id != desk])


def is_legal(events: Sequence[Observed]) -> bool:
    """Whether this order of types, statuses and desks can happen: a state machine, written apart from the checker."""
    status, working, done = "", set[str](), set[str]()
    for event in events:
        match (status, event.type, event.status):
            case ("", "run.started", "queued"):
                status = "queued"
            case ("queued", "run.started", "running"):
                status = "running"
            case ("queued" | "running", "run.failed", "failed") if event.desk_id is None and done != DIAMOND.keys():
                status = "failed"
            case ("running", "run.completed", "completed") if event.desk_id is None and done == DIAMOND.keys():
                status = "completed"
            case ("running", kind, "running") if event.desk_id is not None:
                desk = event.desk_id
                if kind == "desk.started" and desk not in working | done and done.issuperset(DIAMOND[desk]):
                    working.add(desk)
                elif kind == "desk.completed" and desk in working:
                    working.remove(desk)
                    done.add(desk)
                elif kind == "desk.failed" and desk in working:
                    working.remove(desk)
                else:
                    return False
            case _:
                return False
    return status in {"completed", "failed"}


@pytest.mark.parametrize("name", RIGHT)
def test_every_single_fault_is_found_or_is_another_right_timeline(name: str) -> None:
    events = RIGHT[name]
    survivors = [fault for fault, mutant in mutants(events) if not codes(mutant, plan=DIAMOND)]
    legal = [
        fault
        for fault, mutant in mutants(events)
        if is_legal(mutant)
        and [event.seq for event in mutant] == list(range(1, len(mutant) + 1))
        and not fault.startswith(("other run", "no id", "id of another", "time back"))
    ]
    assert survivors == legal


def test_the_faults_are_many_and_those_that_are_right_timelines_few() -> None:
    faults = [mutant for events in RIGHT.values() for _, mutant in mutants(events)]
    unnoticed = [mutant for mutant in faults if not codes(mutant, plan=DIAMOND)]
    assert len(faults) > 900
    assert len(unnoticed) < len(faults) // 20


def test_an_event_is_observed_from_its_json_form() -> None:
    document: dict[str, object] = {
        "eventId": "evt-1",
        "runId": "run-1",
        "workflowId": "flow",
        "deskId": "a",
        "type": "desk.started",
        "ts": "2026-01-01T00:00:03.000Z",
        "status": "running",
        "input": {"x": 1},
        "seq": 3,
    }
    assert observed_event(document) == msgspec.structs.replace(COMPLETED[2], event_id="evt-1")
    assert observed_event({**document, "deskId": None}).desk_id is None
    with pytest.raises(msgspec.ValidationError):
        observed_event({**document, "seq": "3"})


def test_a_finding_reads_as_a_sentence_about_a_place() -> None:
    (finding,) = check_timeline(TABLE["desk before its inputs"][0], ended=True, plan=DIAMOND)
    assert finding == Finding(
        code=FindingCode.DESK_TOO_EARLY,
        severity="error",
        message="desk d started before c completed",
        seq=7,
    )
