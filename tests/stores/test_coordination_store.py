"""What every store of coordination does. Each test runs against every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec
import pytest

from rawr.coordination.forks import Fork, KeptDesk
from rawr.coordination.lifecycle import Fact, IllegalTransitionError, event_id
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    Desk,
    EventType,
    Finalization,
    FinishedHookState,
    HookOutcome,
    MemoryKey,
    MemoryRecord,
    MemoryScope,
    Run,
    RunStatus,
    TraceLink,
    Workflow,
)
from rawr.coordination.ports import (
    CoordinationStore,
    CreatedRun,
    DeskResult,
    FinishedEffect,
    RunIdConflictError,
    RunNotFoundError,
    WorkflowMovedError,
    WorkflowVersionConflictError,
)
from rawr.errors import BadInputError
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.wire import JsonValue

T = TypeVar("T")
AT = "2026-01-01T00:00:00.000Z"
DESK = DeskId("draft")
AWKWARD: tuple[JsonValue, ...] = (
    None,
    False,
    0,
    "",
    [],
    {},
    "a\u0000b",
    "\U0001f680 \u2028",
    2**53 + 1,
    2**80,
    -0.0,
    1.0,
    0.1,
    {"z": 1, "a": [None, {"": "\ufeff"}]},
    "x" * 300_000,
)


class Bench(Protocol):
    def __call__(self, step: Callable[[CoordinationStore], Awaitable[T]]) -> T: ...


def workflow(version: int = 1, *, workflow_id: str = "echo", name: str = "Echo") -> Workflow:
    desk = Desk(
        desk_id=DESK,
        kind="desk:analysis",
        name="Draft",
        responsibility="drafts",
        domain="writing",
        input_schema={"type": "object", "$comment": "\u0000"},
        output_schema={},
        memory_scope=MemoryScope(persist=True, ttl_seconds=5),
    )
    return Workflow(
        workflow_id=WorkflowId(workflow_id),
        version=version,
        name=name,
        entry_desk_id=DESK,
        desks=(desk,),
        handoffs=(),
    )


def run_of(run_id: str = "r1", *, workflow_id: str = "echo", version: int = 1, **fields: Any) -> Run:
    values: dict[str, Any] = {
        "run_id": RunId(run_id),
        "workflow_id": WorkflowId(workflow_id),
        "workflow_version": version,
        "status": RunStatus.QUEUED,
        "started_at": AT,
        "trace_links": (TraceLink(provider="rawr", label="Timeline", url="http://localhost/t"),),
        **fields,
    }
    return Run(**values)


def fact(kind: EventType, key: str | None = None, **fields: Any) -> Fact:
    return Fact(key=key or kind.value, type=kind, at=AT, **fields)


QUEUED = fact(EventType.RUN_STARTED, "run.started/queued", detail="queued")
RUNNING = fact(EventType.RUN_STARTED, "run.started/running")
COMPLETED = fact(EventType.RUN_COMPLETED, output={"done": True})


def desk_completed(output: JsonValue, desk_id: DeskId = DESK, memory: MemoryRecord | None = None) -> Fact:
    return fact(EventType.DESK_COMPLETED, f"desk.completed/{desk_id}", desk_id=desk_id, output=output, memory=memory)


def save(bench: Bench, saved: Workflow) -> None:
    bench(lambda store: store.save_workflow(saved))


def create(bench: Bench, run: Run) -> CreatedRun:
    return bench(lambda store: store.create_run(run, QUEUED))


def record(bench: Bench, run_id: RunId, one: Fact) -> Run:
    return bench(lambda store: store.record(run_id, one))


def started(bench: Bench, run_id: str = "r1", **fields: Any) -> RunId:
    run = run_of(run_id, **fields)
    create(bench, run)
    record(bench, run.run_id, RUNNING)
    return run.run_id


# --- workflows


def test_a_saved_workflow_is_read_back_with_the_time_of_the_save(bench: Bench, clock: FakeClock) -> None:
    clock.advance(1234)
    save(bench, workflow())
    stored = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    assert stored == msgspec.structs.replace(workflow(), updated_at="2026-01-01T00:00:01.234Z")


def test_an_unknown_workflow_or_version_is_none(bench: Bench) -> None:
    save(bench, workflow(3))
    assert bench(lambda store: store.get_workflow(WorkflowId("other"))) is None
    assert bench(lambda store: store.get_workflow(WorkflowId("echo"), 2)) is None


def test_all_versions_are_kept_and_the_newest_is_the_answer(bench: Bench) -> None:
    for version in (1, 2, 10):
        save(bench, workflow(version, name=f"v{version}"))
    newest = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    second = bench(lambda store: store.get_workflow(WorkflowId("echo"), 2))
    assert newest is not None
    assert second is not None
    assert (newest.name, second.name) == ("v10", "v2")


def test_workflows_are_listed_by_id_in_their_newest_version(bench: Bench) -> None:
    for name, version in (("b", 1), ("a", 2), ("B", 1), ("a", 11), ("é", 1)):
        saved = workflow(version, workflow_id=name)
        save(bench, saved)
    listed = bench(lambda store: store.list_workflows())
    assert [(one.workflow_id, one.version) for one in listed] == [("B", 1), ("a", 11), ("b", 1), ("é", 1)]
    assert bench(lambda store: store.workflows_json()) == msgspec.json.encode(listed)


def test_an_older_version_is_refused_and_changes_nothing(bench: Bench) -> None:
    save(bench, workflow(2))
    with pytest.raises(WorkflowVersionConflictError, match="version 1 is older than the stored version 2"):
        save(bench, workflow(1))
    assert bench(lambda store: store.get_workflow(WorkflowId("echo"), 1)) is None


def test_the_newest_version_may_be_replaced_while_no_run_has_used_it(bench: Bench) -> None:
    save(bench, workflow(1, name="first"))
    save(bench, workflow(1, name="second"))
    stored = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    assert stored is not None
    assert stored.name == "second"


def test_a_version_that_a_run_has_used_cannot_change(bench: Bench) -> None:
    save(bench, workflow())
    create(bench, run_of())
    with pytest.raises(WorkflowVersionConflictError, match="a run has used version 1"):
        save(bench, workflow(name="changed"))
    stored = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    assert stored is not None
    assert stored.name == "Echo"


def test_saving_a_used_version_again_unchanged_is_a_no_op(bench: Bench, clock: FakeClock) -> None:
    save(bench, workflow())
    create(bench, run_of())
    before = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    clock.advance(5000)
    save(bench, msgspec.structs.replace(workflow(), updated_at="whenever"))
    assert bench(lambda store: store.get_workflow(WorkflowId("echo"))) == before


def test_a_run_of_another_version_does_not_pin_the_newest(bench: Bench) -> None:
    save(bench, workflow(1))
    create(bench, run_of(version=1))
    save(bench, workflow(2))
    save(bench, workflow(2, name="changed"))
    stored = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    assert stored is not None
    assert stored.name == "changed"


# --- runs


def test_a_created_run_and_its_first_event_are_read_back_as_given(bench: Bench) -> None:
    run = run_of(input={"a": 1})
    created = create(bench, run)
    assert (created.run, created.created) == (run, True)
    assert bench(lambda store: store.get_run(run.run_id)) == run
    [event] = bench(lambda store: store.timeline(run.run_id))
    assert (event.seq, event.event_id, event.status) == (1, event_id(run.run_id, QUEUED.key), RunStatus.QUEUED)
    assert (event.detail, event.desk_id, event.input, event.output) == (
        "queued",
        msgspec.UNSET,
        msgspec.UNSET,
        msgspec.UNSET,
    )


def test_unknown_runs_are_none_or_empty(bench: Bench) -> None:
    unknown = RunId("none")
    assert bench(lambda store: store.get_run(unknown)) is None
    assert bench(lambda store: store.timeline(unknown)) == []
    assert bench(lambda store: store.desk_result(unknown, DESK)) is None
    with pytest.raises(RunNotFoundError, match="there is no run none"):
        record(bench, unknown, RUNNING)
    with pytest.raises(RunNotFoundError):
        bench(lambda store: store.mark_dispatched(run_of(unknown)))


def test_creating_a_run_again_gives_the_stored_one(bench: Bench) -> None:
    run_id = started(bench, input=1)
    again = create(bench, run_of(input=2))
    assert again.created is False
    assert (again.run.status, again.run.input) == (RunStatus.RUNNING, 1)
    assert len(bench(lambda store: store.timeline(run_id))) == 2


def test_a_run_id_of_another_workflow_is_refused_and_changes_nothing(bench: Bench) -> None:
    run_id = started(bench)
    before = bench(lambda store: store.get_run(run_id)), bench(lambda store: store.timeline(run_id))
    with pytest.raises(RunIdConflictError, match="belongs to workflow echo, not to other"):
        create(bench, run_of(workflow_id="other"))
    assert (bench(lambda store: store.get_run(run_id)), bench(lambda store: store.timeline(run_id))) == before
    assert bench(lambda store: store.list_runs(limit=10, workflow_id=WorkflowId("other"))) == []


def test_a_run_is_created_only_of_the_newest_version_as_it_was_read(bench: Bench) -> None:
    bench(lambda store: store.save_workflow(workflow()))
    first = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    assert bench(lambda store: store.create_run(run_of("r1"), QUEUED, newest=first)).created
    bench(lambda store: store.save_workflow(workflow(2)))
    again = bench(lambda store: store.create_run(run_of("r1"), QUEUED, newest=first))
    assert again.created is False  # a run that is there is answered whatever has become of its workflow
    with pytest.raises(WorkflowMovedError, match="version 1 of workflow echo is not the newest one"):
        bench(lambda store: store.create_run(run_of("r2"), QUEUED, newest=first))
    assert bench(lambda store: store.get_run(RunId("r2"))) is None


def test_a_version_that_was_replaced_is_not_the_one_that_was_read(bench: Bench) -> None:
    bench(lambda store: store.save_workflow(workflow()))
    before = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    bench(lambda store: store.save_workflow(workflow(name="Other")))
    with pytest.raises(WorkflowMovedError):
        bench(lambda store: store.create_run(run_of(), QUEUED, newest=before))
    after = bench(lambda store: store.get_workflow(WorkflowId("echo")))
    assert bench(lambda store: store.create_run(run_of(), QUEUED, newest=after)).created


def test_a_workflow_that_nobody_has_saved_is_not_the_newest(bench: Bench) -> None:
    with pytest.raises(WorkflowMovedError):
        bench(lambda store: store.create_run(run_of(), QUEUED, newest=workflow()))


@pytest.mark.parametrize("from_seq", [1, 2, 3, 4])
def test_a_timeline_can_be_read_from_any_event_on(bench: Bench, from_seq: int) -> None:
    run_id = started(bench)
    record(bench, run_id, desk_completed("text"))
    found = bench(lambda store: store.timeline(run_id, from_seq=from_seq))
    assert [event.seq for event in found] == [1, 2, 3][from_seq - 1 :]


def test_a_run_goes_from_queued_to_completed_with_a_gapless_timeline(bench: Bench) -> None:
    run_id = started(bench)
    record(bench, run_id, fact(EventType.DESK_STARTED, "desk.started/draft/1", desk_id=DESK))
    record(bench, run_id, desk_completed("text"))
    ended = record(bench, run_id, COMPLETED)
    assert (ended.status, ended.output, ended.finished_at) == (RunStatus.COMPLETED, {"done": True}, AT)
    assert bench(lambda store: store.get_run(run_id)) == ended
    timeline = bench(lambda store: store.timeline(run_id))
    assert [event.seq for event in timeline] == [1, 2, 3, 4, 5]
    assert [event.status.value for event in timeline] == ["queued", "running", "running", "running", "completed"]


def test_a_failed_run_keeps_its_error(bench: Bench) -> None:
    run_id = started(bench)
    record(bench, run_id, fact(EventType.RUN_FAILED, error="desk draft failed: \u0000"))
    run = bench(lambda store: store.get_run(run_id))
    assert run is not None
    assert (run.status, run.error, run.output) == (RunStatus.FAILED, "desk draft failed: \u0000", msgspec.UNSET)


def test_a_fact_that_is_reported_twice_is_one_event(bench: Bench) -> None:
    run_id = started(bench)
    first = record(bench, run_id, desk_completed("first"))
    second = record(bench, run_id, desk_completed("second"))
    assert first == second
    assert len(bench(lambda store: store.timeline(run_id))) == 3
    assert bench(lambda store: store.desk_result(run_id, DESK)) == DeskResult(output="first")


def test_facts_after_the_end_change_nothing(bench: Bench) -> None:
    run_id = started(bench)
    record(bench, run_id, COMPLETED)
    for late in (desk_completed("late"), fact(EventType.RUN_FAILED, error="late"), RUNNING, COMPLETED):
        after = record(bench, run_id, late)
        assert after.status is RunStatus.COMPLETED
    assert len(bench(lambda store: store.timeline(run_id))) == 3
    assert bench(lambda store: store.desk_result(run_id, DESK)) is None


def test_a_fact_that_cannot_happen_now_is_refused_and_leaves_no_trace(bench: Bench) -> None:
    create(bench, run_of())
    for early in (desk_completed("early"), COMPLETED):
        with pytest.raises(IllegalTransitionError, match="run r1 is queued"):
            record(bench, RunId("r1"), early)
    assert len(bench(lambda store: store.timeline(RunId("r1")))) == 1
    run = bench(lambda store: store.get_run(RunId("r1")))
    assert run is not None
    assert run.status is RunStatus.QUEUED


@pytest.mark.parametrize("payload", AWKWARD, ids=lambda value: repr(value)[:24])
def test_payloads_come_back_exactly_as_they_were_given(bench: Bench, payload: JsonValue) -> None:
    run_id = started(bench, input=payload)
    memory = MemoryRecord(at=memory_key(), data=payload, updated_at=AT)
    record(bench, run_id, desk_completed(payload, memory=memory))
    record(bench, run_id, fact(EventType.RUN_COMPLETED, output=payload))
    run = bench(lambda store: store.get_run(run_id))
    result = bench(lambda store: store.desk_result(run_id, DESK))
    remembered = recall(bench, memory_key(), now_ms=0)
    event = bench(lambda store: store.timeline(run_id))[2]
    assert run is not None
    assert result is not None
    assert remembered is not None
    for value in (run.input, run.output, result.output, remembered.data, event.output):
        assert (type(value), repr(value)) == (type(payload), repr(payload))


def test_a_payload_that_is_absent_stays_absent(bench: Bench) -> None:
    run_id = started(bench)
    record(bench, run_id, fact(EventType.DESK_COMPLETED, desk_id=DESK))
    run = bench(lambda store: store.get_run(run_id))
    assert run is not None
    assert (run.input, run.output) == (msgspec.UNSET, msgspec.UNSET)
    assert bench(lambda store: store.timeline(run_id))[2].output is msgspec.UNSET
    assert bench(lambda store: store.desk_result(run_id, DESK)) == DeskResult(output=None)


@pytest.mark.parametrize("value", [object(), "\ud800", {1: 2, (): 3}], ids=["object", "surrogate", "keys"])
def test_what_json_cannot_hold_is_refused_and_leaves_no_trace(bench: Bench, value: object) -> None:
    run_id = started(bench)
    memory = MemoryRecord(at=memory_key(), data=value, updated_at=AT)
    for refused in (desk_completed(value), desk_completed("fine", memory=memory)):
        with pytest.raises(BadInputError, match="cannot be stored as JSON"):
            record(bench, run_id, refused)
    assert len(bench(lambda store: store.timeline(run_id))) == 2
    assert bench(lambda store: store.desk_result(run_id, DESK)) is None


def test_forty_appends_at_once_get_forty_numbers(bench: Bench) -> None:
    run_id = started(bench)

    async def forty(store: CoordinationStore) -> None:
        facts = [fact(EventType.DESK_STARTED, f"desk.started/draft/{attempt}") for attempt in range(40)]
        await asyncio.gather(*(store.record(run_id, one) for one in [*facts, *facts]))

    bench(forty)
    timeline = bench(lambda store: store.timeline(run_id))
    assert [event.seq for event in timeline] == list(range(1, 43))
    assert len({event.event_id for event in timeline}) == 42


def test_runs_are_listed_newest_first_also_of_one_workflow(bench: Bench) -> None:
    for number in range(5):
        run = run_of(f"r{number}", workflow_id="even" if number % 2 == 0 else "odd")
        create(bench, run)
    listed = bench(lambda store: store.list_runs(limit=3))
    of_one = bench(lambda store: store.list_runs(limit=10, workflow_id=WorkflowId("even")))
    assert [run.run_id for run in listed] == ["r4", "r3", "r2"]
    assert [run.run_id for run in of_one] == ["r4", "r2", "r0"]
    assert bench(lambda store: store.list_runs(limit=0)) == []


def test_undispatched_runs_are_queued_ones_that_no_engine_has_taken_oldest_first(bench: Bench) -> None:
    for name in ("taken", "waiting", "begun", "also-waiting", "failed"):
        run = run_of(name)
        create(bench, run)
    bench(lambda store: store.mark_dispatched(run_of("taken")))
    bench(lambda store: store.mark_dispatched(run_of("taken")))
    record(bench, RunId("begun"), RUNNING)
    record(bench, RunId("failed"), fact(EventType.RUN_FAILED, error="x"))
    waiting = bench(lambda store: store.undispatched_runs(10))
    assert [run.run_id for run in waiting] == ["waiting", "also-waiting"]
    assert [run.run_id for run in bench(lambda store: store.undispatched_runs(1))] == ["waiting"]


def test_a_handed_over_run_is_noted_before_whatever_is_written_after_it(bench: Bench) -> None:
    async def noted(store: CoordinationStore) -> list[Run]:
        await store.create_run(run_of(), QUEUED)
        store.note_dispatched(run_of())
        await store.create_run(run_of("r2"), QUEUED)
        return await store.undispatched_runs(10)

    assert [run.run_id for run in bench(noted)] == ["r2"]


OF_EVENT = TraceLink(provider="inngest", label="Inngest Trace", url="http://i/events/e")
OF_RUN = TraceLink(provider="inngest", label="Inngest Trace (r)", url="http://i/runs/r")


def links(bench: Bench) -> list[str]:
    run = bench(lambda store: store.get_run(RunId("r1")))
    assert run is not None
    return [link.url for link in run.trace_links]


def test_a_run_is_linked_to_its_event_and_then_to_its_run_at_the_engine(bench: Bench) -> None:
    create(bench, run_of())
    bench(lambda store: store.mark_dispatched(run_of("r1"), trace_link=OF_EVENT))
    assert links(bench) == ["http://localhost/t", OF_EVENT.url]
    started = record(bench, RunId("r1"), msgspec.structs.replace(RUNNING, trace_link=OF_RUN))
    assert links(bench) == [link.url for link in started.trace_links] == ["http://localhost/t", OF_RUN.url]


def test_an_engine_that_is_faster_than_the_handover_keeps_its_better_link(bench: Bench) -> None:
    create(bench, run_of())
    record(bench, RunId("r1"), msgspec.structs.replace(RUNNING, trace_link=OF_RUN))
    bench(lambda store: store.mark_dispatched(run_of("r1"), trace_link=OF_EVENT))
    record(bench, RunId("r1"), COMPLETED)
    assert links(bench) == ["http://localhost/t", OF_RUN.url]
    with pytest.raises(RunNotFoundError):
        bench(lambda store: store.mark_dispatched(run_of("none"), trace_link=OF_EVENT))


def test_a_run_that_is_handed_over_is_answered_as_it_is_then(bench: Bench) -> None:
    create(bench, run_of())
    record(bench, RunId("r1"), RUNNING)
    marked = bench(lambda store: store.mark_dispatched(run_of("r1"), trace_link=OF_EVENT))
    assert marked == bench(lambda store: store.get_run(RunId("r1")))
    assert marked.status is RunStatus.RUNNING


def test_runs_are_counted_by_status(bench: Bench) -> None:
    assert set(bench(lambda store: store.count_runs()).values()) == {0}
    create(bench, run_of("a"))
    started(bench, "b")
    started(bench, "c")
    record(bench, RunId("c"), COMPLETED)
    assert bench(lambda store: store.count_runs()) == {
        RunStatus.QUEUED: 1,
        RunStatus.RUNNING: 1,
        RunStatus.COMPLETED: 1,
        RunStatus.FAILED: 0,
    }


def test_desk_results_are_kept_apart_by_run_and_desk(bench: Bench) -> None:
    for run_id in (started(bench, "r1"), started(bench, "r2")):
        for desk in (DeskId("a"), DeskId("b")):
            one = desk_completed(f"{run_id}/{desk}", desk)
            record(bench, run_id, one)
    found = bench(lambda store: store.desk_result(RunId("r2"), DeskId("a")))
    assert found == DeskResult(output="r2/a")


# --- memory


def memory_key(**changes: Any) -> MemoryKey:
    key = MemoryKey(workflow_id=WorkflowId("echo"), workflow_version=1, desk_id=DESK, namespace="", key="last")
    return msgspec.structs.replace(key, **changes)


def recall(bench: Bench, at: MemoryKey, *, now_ms: int = 0) -> MemoryRecord | None:
    return bench(lambda store: store.get_memory(at, now_ms=now_ms))


def test_memory_is_kept_apart_by_all_five_parts_of_its_key(bench: Bench) -> None:
    keys = [
        memory_key(),
        memory_key(workflow_id="other"),
        memory_key(workflow_version=2),
        memory_key(desk_id="other"),
        memory_key(namespace="other"),
        memory_key(key="other"),
        memory_key(namespace="a\u0000", key="b"),
        memory_key(namespace="a", key="\u0000b"),
    ]
    run_id = started(bench)
    for number, at in enumerate(keys):
        memory = MemoryRecord(at=at, data=number, updated_at=AT)
        one = desk_completed(None, DeskId(f"desk-{number}"), memory)
        record(bench, run_id, one)
    for number, at in enumerate(keys):
        assert recall(bench, at) == MemoryRecord(at=at, data=number, updated_at=AT)
    assert recall(bench, memory_key(namespace="none"), now_ms=0) is None


def test_later_memory_replaces_earlier(bench: Bench) -> None:
    for run_id, data, expires in ((started(bench, "r1"), "old", 10), (started(bench, "r2"), "new", None)):
        memory = MemoryRecord(at=memory_key(), data=data, updated_at=AT, expires_at_ms=expires)
        record(bench, run_id, desk_completed(None, memory=memory))
    found = recall(bench, memory_key(), now_ms=99)
    assert found == MemoryRecord(at=memory_key(), data="new", updated_at=AT)


def test_memory_is_gone_from_the_millisecond_of_its_expiry(bench: Bench) -> None:
    run_id = started(bench)
    memory = MemoryRecord(at=memory_key(), data=1, updated_at=AT, expires_at_ms=5000)
    record(bench, run_id, desk_completed(None, memory=memory))
    assert recall(bench, memory_key(), now_ms=4999) == memory
    assert recall(bench, memory_key(), now_ms=5000) is None


def test_the_memory_of_a_fact_that_is_ignored_is_ignored_too(bench: Bench) -> None:
    run_id = started(bench)
    record(bench, run_id, COMPLETED)
    memory = MemoryRecord(at=memory_key(), data="late", updated_at=AT)
    record(bench, run_id, desk_completed(None, memory=memory))
    assert recall(bench, memory_key(), now_ms=0) is None


UNDER_CONTRACT = Finalization(contract=FINALIZATION_CONTRACT)
SUCCEEDED = FinishedHookState(
    attempted_at=AT,
    outcome=HookOutcome.SUCCEEDED,
    non_critical=True,
    idempotency_required=True,
    timeout_ms=5000,
)
FAILED = msgspec.structs.replace(SUCCEEDED, outcome=HookOutcome.FAILED, error="\U0001f680")


def ended_run(bench: Bench, name: str = "r1", *, ends: Fact = COMPLETED) -> RunId:
    create(bench, run_of(name, finalization=UNDER_CONTRACT))
    record(bench, RunId(name), RUNNING)
    record(bench, RunId(name), ends)
    return RunId(name)


@pytest.mark.parametrize("ends", [COMPLETED, fact(EventType.RUN_FAILED, error="x")])
@pytest.mark.parametrize("state", [SUCCEEDED, FAILED])
def test_the_first_outcome_of_a_finished_hook_stays_and_changes_nothing_else(
    bench: Bench, ends: Fact, state: FinishedHookState
) -> None:
    run_id = ended_run(bench, ends=ends)
    before = bench(lambda store: store.get_run(run_id))
    assert before is not None
    assert before.finalization == UNDER_CONTRACT
    after = bench(lambda store: store.record_finished_hook(run_id, state))
    assert after == msgspec.structs.replace(
        before, finalization=Finalization(contract=FINALIZATION_CONTRACT, finished_hook=state)
    )
    other = SUCCEEDED if state is FAILED else FAILED
    assert bench(lambda store: store.record_finished_hook(run_id, other)) == after
    assert bench(lambda store: store.get_run(run_id)) == after
    assert bench(lambda store: store.list_runs(limit=1)) == [after]
    assert len(bench(lambda store: store.timeline(run_id))) == 3


def test_a_run_that_no_hook_waits_for_ends_together_with_that_outcome(bench: Bench) -> None:
    skipped = msgspec.structs.replace(SUCCEEDED, outcome=HookOutcome.SKIPPED)
    ends = msgspec.structs.replace(COMPLETED, finished_hook=skipped)
    known = Finalization(contract=FINALIZATION_CONTRACT, finished_hook=skipped)
    for name, before, after in (("new", UNDER_CONTRACT, known), ("old", msgspec.UNSET, msgspec.UNSET)):
        run_id = RunId(name)
        create(bench, run_of(name, finalization=before))
        going = record(bench, run_id, msgspec.structs.replace(RUNNING, finished_hook=skipped))
        assert going.finalization == before
        ended = record(bench, run_id, ends)
        assert ended.finalization == after
        assert bench(lambda store, at=run_id: store.get_run(at)) == ended  # type: ignore[misc]


def test_only_an_ended_run_under_the_contract_takes_an_outcome(bench: Bench) -> None:
    create(bench, run_of("going", finalization=UNDER_CONTRACT))
    create(bench, run_of("of-old"))
    record(bench, RunId("of-old"), RUNNING)
    record(bench, RunId("of-old"), COMPLETED)
    for name in ("going", "of-old"):
        with pytest.raises(IllegalTransitionError, match=name):
            bench(lambda store, name=name: store.record_finished_hook(RunId(name), SUCCEEDED))  # type: ignore[misc]
    with pytest.raises(RunNotFoundError):
        bench(lambda store: store.record_finished_hook(RunId("none"), SUCCEEDED))
    going, of_old = (bench(lambda store, name=name: store.get_run(RunId(name))) for name in ("going", "of-old"))  # type: ignore[misc]
    assert (going.finalization, of_old.finalization) == (UNDER_CONTRACT, msgspec.UNSET)


def test_deliveries_to_the_finished_hook_are_counted_for_each_run(bench: Bench) -> None:
    one, other = ended_run(bench, "one"), ended_run(bench, "other")
    create(bench, run_of("of-old"))
    counts = [
        bench(lambda store, at=run_id: store.begin_finished_hook(at))  # type: ignore[misc]
        for run_id in (one, one, other, one)
    ]
    assert counts == [1, 2, 1, 3]
    for name in ("of-old", "none"):
        with pytest.raises(RunNotFoundError):
            bench(lambda store, name=name: store.begin_finished_hook(RunId(name)))  # type: ignore[misc]
    run = bench(lambda store: store.get_run(one))
    assert run is not None
    assert run.finalization == UNDER_CONTRACT


def test_unheard_runs_are_failed_ones_that_no_engine_took_oldest_first(bench: Bench) -> None:
    failed = fact(EventType.RUN_FAILED, error="x")
    for name in ("late", "heard", "taken", "later"):
        create(bench, run_of(name, finalization=UNDER_CONTRACT))
        if name == "taken":
            bench(lambda store: store.mark_dispatched(run_of("taken")))
        record(bench, RunId(name), failed)
    create(bench, run_of("of-old"))
    record(bench, RunId("of-old"), failed)
    ended_run(bench, "completed")
    create(bench, run_of("queued", finalization=UNDER_CONTRACT))
    bench(lambda store: store.record_finished_hook(RunId("heard"), SUCCEEDED))
    assert [run.run_id for run in bench(lambda store: store.unheard_runs(9))] == ["late", "later"]
    assert [run.run_id for run in bench(lambda store: store.unheard_runs(1))] == ["late"]


@pytest.mark.parametrize("result", AWKWARD, ids=lambda value: repr(value)[:20])
def test_the_first_record_of_an_effect_stays(bench: Bench, result: JsonValue) -> None:
    run_id = ended_run(bench)
    assert bench(lambda store: store.finished_effect(run_id, "mail")) is None
    kept = bench(lambda store: store.record_finished_effect(run_id, "mail", result))
    again = bench(lambda store: store.record_finished_effect(run_id, "mail", {"second": True}))
    assert repr(kept) == repr(again) == repr(FinishedEffect(result=result))
    assert repr(bench(lambda store: store.finished_effect(run_id, "mail"))) == repr(kept)


def test_effects_are_kept_apart_by_run_and_key(bench: Bench) -> None:
    one, other = ended_run(bench, "one"), ended_run(bench, "other")
    for run_id, key in ((one, "a"), (one, "A"), (other, "a"), (one, "a\nb")):
        bench(lambda store, at=(run_id, key): store.record_finished_effect(*at, list(at)))  # type: ignore[misc]
    for run_id, key in ((one, "a"), (one, "A"), (other, "a"), (one, "a\nb")):
        kept = bench(lambda store, at=(run_id, key): store.finished_effect(*at))  # type: ignore[misc]
        assert kept == FinishedEffect(result=[run_id, key])
    assert bench(lambda store: store.finished_effect(other, "A")) is None
    assert bench(lambda store: store.finished_effect(RunId("none"), "a")) is None


def test_an_effect_of_no_run_or_that_is_no_json_is_refused(bench: Bench) -> None:
    run_id = ended_run(bench)
    with pytest.raises(RunNotFoundError):
        bench(lambda store: store.record_finished_effect(RunId("none"), "a", 1))
    with pytest.raises(BadInputError):
        bench(lambda store: store.record_finished_effect(run_id, "a", object()))
    assert bench(lambda store: store.finished_effect(run_id, "a")) is None


FORK = Fork(
    rerun_of=RunId("r0"),
    from_desk=DESK,
    kept={DeskId("before"): KeptDesk(input=None, output={"n": 1})},
    inputs={DESK: [1, None, "x"]},
)


def test_how_a_run_goes_on_from_another_is_kept_with_it_and_never_changes(bench: Bench) -> None:
    save(bench, workflow())
    bench(lambda store: store.create_run(run_of(), QUEUED, FORK))
    assert bench(lambda store: store.fork(RunId("r1"))) == FORK
    bench(lambda store: store.create_run(run_of(), QUEUED))
    assert bench(lambda store: store.fork(RunId("r1"))) == FORK
    create(bench, run_of("r2"))
    assert bench(lambda store: store.fork(RunId("r2"))) is None
    assert bench(lambda store: store.fork(RunId("nobody"))) is None


def test_a_withdrawn_run_ends_and_its_hooks_are_told_as_those_of_one_that_no_engine_took(bench: Bench) -> None:
    save(bench, workflow())
    create(bench, run_of(finalization=Finalization(contract=FINALIZATION_CONTRACT)))
    bench(lambda store: store.mark_dispatched(run_of("r1")))
    bench(lambda store: store.record(RunId("r1"), RUNNING))
    ended = fact(EventType.RUN_FAILED, "run.failed", error="ended")
    assert bench(lambda store: store.withdraw(RunId("r1"), ended)).status is RunStatus.FAILED
    assert [run.run_id for run in bench(lambda store: store.unheard_runs(9))] == ["r1"]
    assert bench(lambda store: store.undispatched_runs(9)) == []
    with pytest.raises(RunNotFoundError):
        bench(lambda store: store.withdraw(RunId("nobody"), ended))


def test_a_run_that_has_ended_is_not_withdrawn(bench: Bench) -> None:
    save(bench, workflow())
    create(bench, run_of(finalization=Finalization(contract=FINALIZATION_CONTRACT)))
    bench(lambda store: store.mark_dispatched(run_of("r1")))
    bench(lambda store: store.record(RunId("r1"), RUNNING))
    bench(lambda store: store.record(RunId("r1"), fact(EventType.RUN_FAILED, "other", error="e")))
    bench(lambda store: store.withdraw(RunId("r1"), fact(EventType.RUN_FAILED, "run.failed", error="ended")))
    assert bench(lambda store: store.get_run(RunId("r1"))).error == "e"  # type: ignore[union-attr]  # it is there
    assert bench(lambda store: store.unheard_runs(9)) == []
