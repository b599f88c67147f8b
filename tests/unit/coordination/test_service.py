"""What the coordination service promises, on a store in memory and an engine that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import msgspec
import pytest

from rawr.clock import RunIdSource
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    Desk,
    EventType,
    Finalization,
    Handoff,
    MemoryScope,
    Run,
    RunStatus,
    TraceLink,
    Workflow,
)
from rawr.coordination.ports import (
    EngineUnreachableError,
    RunIdConflictError,
    RunNotFoundError,
    WorkflowVersionConflictError,
)
from rawr.coordination.runnable import (
    InvalidWorkflowIdError,
    WorkflowInvalidError,
    WorkflowNotFoundError,
    WorkflowNotRunnableError,
)
from rawr.coordination.service import (
    AT_ONCE,
    CoordinationService,
    InvalidRunIdError,
    QueuedRun,
    RunQueueFailedError,
    TimelineEventNotFoundError,
)
from rawr.errors import RawrError, StorageError
from rawr.ids import DeskId, EventId, HandoffId, RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.testing.stores import MemoryCoordinationStore

T = TypeVar("T")
AT = "2026-01-01T00:00:00.000Z"


class Engine:
    """Remembers what it was handed; `before` is what happens while it takes a run."""

    def __init__(self) -> None:
        self.taken: list[RunId] = []
        self.refuses: Callable[[Run], Exception | None] = lambda _: None
        self.before: Callable[[Run], Awaitable[None]] | None = None

    async def dispatch(self, run: Run) -> Sequence[EventId]:
        if self.before is not None:
            await self.before(run)
        if (error := self.refuses(run)) is not None:
            raise error
        self.taken.append(run.run_id)
        return [EventId(f"event-{len(self.taken)}")]

    async def withdraw(self, run: Run, reason: str) -> None:
        self.taken.remove(run.run_id)


class FullDisk(MemoryCoordinationStore):
    """Takes new runs, and nothing about them."""

    async def record(self, run_id: RunId, fact: Fact) -> Run:
        raise StorageError("the disk is full")


class NothingMore(MemoryCoordinationStore):
    """Takes new runs, and not that the engine has them."""

    async def mark_dispatched(self, run: Run, *, trace_link: TraceLink | None = None) -> Run:
        raise StorageError("the disk is full")

    def note_dispatched(self, run: Run) -> None:
        raise StorageError("the disk is full")


class Scene:
    def __init__(self, *, store: MemoryCoordinationStore | None = None, trace_url: str | None = None) -> None:
        self.clock = FakeClock()
        self.store = store or MemoryCoordinationStore(self.clock)
        self.engine = Engine()
        self.base_url = "http://127.0.0.1:0"
        self.told: list[RunId] = []
        self.cannot_tell: Exception | None = None
        self.service = CoordinationService(
            store=self.store,
            dispatcher=self.engine,
            clock=self.clock,
            run_ids=RunIdSource(self.clock),
            base_url=lambda: self.base_url,
            trace_url=trace_url,
            pause=self.pause,
            tell_finished=self._tell,
        )
        self.pauses: list[float] = []
        self.while_paused: list[Callable[[], Awaitable[object]]] = []

    async def pause(self, seconds: float) -> None:
        """Takes no time; the next of `while_paused` happens meanwhile."""
        self.pauses.append(seconds)
        await self.while_paused.pop(0)()

    def happens(self, *kinds: EventType | None) -> None:
        """What becomes of run-1 in the pauses to come; None for nothing."""
        for number, kind in enumerate(kinds):
            self.while_paused.append(lambda kind=kind, number=number: self._happen(kind, number))  # type: ignore[misc]

    async def _happen(self, kind: EventType | None, number: int) -> None:
        if kind is not None:
            await self.store.record(RunId("run-1"), Fact(key=f"{kind.value}/{number}", type=kind, at=AT))

    def watched(self, after_seq: int = 0) -> list[tuple[int, str]]:
        """Everything that watching run-1 gives, until it ends."""
        return done(self._watched(after_seq))

    async def _watched(self, after_seq: int) -> list[tuple[int, str]]:
        events = await self.service.watch_run("run-1", after_seq=after_seq)
        return [(event.seq, event.type.value) async for event in events]

    async def _tell(self, run_id: RunId) -> None:
        self.told.append(run_id)
        if self.cannot_tell is not None:
            raise self.cannot_tell

    def save(self, *workflows: Workflow) -> Scene:
        for one in workflows:
            done(self.service.save_workflow(one))
        return self

    def queue(self, workflow_id: str = "flow", run_id: str | None = "run-1", run_input: Any = None) -> QueuedRun:
        return done(self.service.queue_run(workflow_id, run_id, run_input))

    def everything(self) -> list[object]:
        runs = done(self.store.list_runs(limit=99))
        return [done(self.store.list_workflows()), runs, [done(self.store.timeline(run.run_id)) for run in runs]]


def done(waiting: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(waiting)


def desk(desk_id: str, **changes: Any) -> Desk:
    plain = Desk(
        desk_id=DeskId(desk_id),
        kind="desk:analysis",
        name="n",
        responsibility="r",
        domain="d",
        input_schema={},
        output_schema={},
        memory_scope=MemoryScope(persist=False),
    )
    return msgspec.structs.replace(plain, **changes)


def flow(workflow_id: str = "flow", version: int = 1, **changes: Any) -> Workflow:
    plain = Workflow(
        workflow_id=WorkflowId(workflow_id),
        version=version,
        name="Flow",
        entry_desk_id=DeskId("a"),
        desks=(desk("a"), desk("b")),
        handoffs=(Handoff(handoff_id=HandoffId("h"), from_desk_id=DeskId("a"), to_desk_id=DeskId("b")),),
    )
    return msgspec.structs.replace(plain, **changes)


def refused(scene: Scene, call: Coroutine[Any, Any, Any], kind: type[RawrError]) -> RawrError:
    """The error of a call that must change nothing."""
    before = scene.everything()
    with pytest.raises(kind) as caught:
        done(call)
    assert scene.everything() == before
    assert scene.engine.taken == []
    return caught.value


# --- saving and reading ---


def test_a_saved_workflow_is_answered_as_given_and_read_with_the_time_of_the_save() -> None:
    scene = Scene()
    given = flow(updated_at="by the client")
    assert done(scene.service.save_workflow(given)) is given
    assert done(scene.service.get_workflow(" flow ")) == flow(updated_at=AT)
    assert done(scene.service.list_workflows()) == [flow(updated_at=AT)]
    assert done(scene.service.validate_workflow("flow")).ok


def test_an_invalid_workflow_is_refused_with_every_reason() -> None:
    scene = Scene()
    error = refused(scene, scene.service.save_workflow(flow(desks=(), entry_desk_id=DeskId("z"))), WorkflowInvalidError)
    assert isinstance(error, WorkflowInvalidError)
    assert (error.code, error.message) == ("WORKFLOW_VALIDATION_FAILED", "Workflow validation failed")
    codes = [issue.code for issue in error.validation.errors]
    assert codes == ["MISSING_ENTRY_DESK", "EDGE_UNKNOWN_SOURCE", "EDGE_UNKNOWN_TARGET"]
    assert error.details == msgspec.to_builtins(error.validation)


def test_a_schema_that_will_be_enforced_and_cannot_be_is_refused_at_the_save() -> None:
    scene = Scene()
    broken = flow(desks=(desk("a"), desk("b", handler="do.it", output_schema={"pattern": "(?=a)"})))
    error = refused(scene, scene.service.save_workflow(broken), WorkflowInvalidError)
    assert isinstance(error, WorkflowInvalidError)
    (issue,) = error.validation.errors
    assert (issue.code, issue.desk_id) == ("INVALID_DESK_SCHEMA", "b")
    assert issue.message.startswith("Desk b outputSchema is not an acceptable JSON Schema: ")


def test_an_older_version_does_not_overwrite_a_newer_one() -> None:
    scene = Scene().save(flow(version=2))
    refused(scene, scene.service.save_workflow(flow(version=1)), WorkflowVersionConflictError)
    assert done(scene.service.get_workflow("flow")).version == 2


def test_a_version_that_has_been_run_cannot_change() -> None:
    scene = Scene().save(flow())
    scene.queue()
    with pytest.raises(WorkflowVersionConflictError):
        scene.save(flow(name="Other"))
    assert done(scene.service.get_workflow("flow")).name == "Flow"


@pytest.mark.parametrize(
    ("workflow_id", "kind", "message", "details"),
    [
        (" ../x ", InvalidWorkflowIdError, "Invalid workflowId format", {"workflowId": "../x"}),
        ("", InvalidWorkflowIdError, "Invalid workflowId format", {"workflowId": ""}),
        ("a" * 129, InvalidWorkflowIdError, "Invalid workflowId format", {"workflowId": "a" * 129}),
        (" none ", WorkflowNotFoundError, "workflow not found", {"workflowId": "none"}),
    ],
)
def test_a_workflow_that_cannot_be_found_is_answered_in_the_published_words(
    workflow_id: str, kind: type[RawrError], message: str, details: dict[str, str]
) -> None:
    scene = Scene().save(flow())
    service = scene.service
    for call in (
        service.get_workflow(workflow_id),
        service.validate_workflow(workflow_id),
        service.queue_run(workflow_id, "run-1"),
    ):
        error = refused(scene, call, kind)
        assert (error.message, error.details) == (message, details)


@pytest.mark.parametrize(
    ("run_id", "kind", "message", "details"),
    [
        (" ../x ", InvalidRunIdError, "Invalid runId format", {"runId": "../x"}),
        (" none ", RunNotFoundError, "run not found", {"runId": "none"}),
    ],
)
def test_a_run_that_cannot_be_found_is_answered_in_the_published_words(
    run_id: str, kind: type[RawrError], message: str, details: dict[str, str]
) -> None:
    scene = Scene()
    for call in (scene.service.get_run(run_id), scene.service.run_timeline(run_id)):
        error = refused(scene, call, kind)
        assert (error.message, error.details) == (message, details)


# --- queueing ---


def test_a_queued_run_is_stored_with_its_first_event_and_handed_over() -> None:
    scene = Scene().save(flow(version=3))
    queued = scene.queue(run_id=" run-1 ", run_input={"q": 1})
    assert queued.event_ids == ("event-1",)
    assert queued.run == Run(
        run_id=RunId("run-1"),
        workflow_id=WorkflowId("flow"),
        workflow_version=3,
        status=RunStatus.QUEUED,
        started_at=AT,
        input={"q": 1},
        trace_links=(
            TraceLink(
                provider="rawr",
                label="RAWR Run Timeline",
                url="http://127.0.0.1:0/api/orpc/coordination/runs/run-1/timeline",
            ),
        ),
        finalization=Finalization(contract=FINALIZATION_CONTRACT),
    )
    run_id, (event,) = done(scene.service.run_timeline(" run-1 "))
    assert run_id == "run-1"
    assert (event.seq, event.type, event.status) == (1, EventType.RUN_STARTED, RunStatus.QUEUED)
    assert event.detail == "Coordination run queued for Inngest execution"
    assert scene.engine.taken == ["run-1"]
    assert done(scene.store.undispatched_runs(9)) == []


def test_d11_an_engine_is_handed_the_run_and_not_the_workflow_document() -> None:
    scene = Scene().save(flow())
    handed: list[Run] = []

    async def look(run: Run) -> None:
        handed.append(run)

    scene.engine.before = look
    scene.queue()
    assert [msgspec.structs.asdict(run).keys() & {"workflow", "desks"} for run in handed] == [set()]


@pytest.mark.parametrize("run_input", [[1, 2], 0, False, "", "x", {}, {"a": None}])
def test_an_input_is_kept_as_given(run_input: Any) -> None:
    kept = Scene().save(flow()).queue(run_input=run_input).run.input
    assert (type(kept), kept) == (type(run_input), run_input)


def test_an_input_of_null_is_an_empty_object() -> None:
    assert Scene().save(flow()).queue(run_input=None).run.input == {}


@pytest.mark.parametrize("run_id", [None, "", "  "])
def test_a_run_without_an_id_is_given_one(run_id: str | None) -> None:
    scene = Scene().save(flow())
    first, second = scene.queue(run_id=run_id).run.run_id, scene.queue(run_id=run_id).run.run_id
    assert first != second
    assert first.startswith("run-1767225600000-")


def test_a_bad_run_id_is_named_in_the_message() -> None:
    scene = Scene().save(flow())
    error = refused(scene, scene.service.queue_run("flow", " ../x "), InvalidRunIdError)
    assert (error.message, error.details) == ("Invalid runId format: ../x", {"runId": "../x"})


def test_the_same_run_id_and_workflow_give_the_same_run() -> None:
    scene = Scene().save(flow())
    first = scene.queue(run_input={"a": 1})
    again = scene.queue(run_input={"a": 2})
    assert again == QueuedRun(run=first.run, event_ids=())
    assert scene.engine.taken == ["run-1"]


def test_the_same_run_is_given_also_when_its_workflow_can_no_longer_be_run() -> None:
    scene = Scene().save(flow())
    first = scene.queue()
    scene.save(flow(version=2, desks=(desk("a"), desk("b", kind="desk:human-wait"))))
    assert scene.queue().run == first.run


def test_two_calls_at_once_with_one_run_id_hand_the_run_over_once() -> None:
    scene = Scene().save(flow())

    async def both() -> list[QueuedRun]:
        calls = [scene.service.queue_run("flow", "run-1") for _ in range(2)]
        return list(await asyncio.gather(*calls))

    answers = done(both())
    assert sorted(answer.event_ids for answer in answers) == [(), ("event-1",)]
    assert scene.engine.taken == ["run-1"]


def test_a_run_is_of_the_version_that_another_process_has_saved_meanwhile() -> None:
    scene = Scene().save(flow())
    assert scene.queue(run_id=None).run.workflow_version == 1
    done(scene.store.save_workflow(flow(version=2)))
    assert scene.queue(run_id=None).run.workflow_version == 2


def test_a_workflow_that_another_process_has_changed_is_judged_again() -> None:
    scene = Scene().save(flow())
    scene.queue(run_id=None)
    done(scene.store.save_workflow(flow(version=2, desks=(desk("a", kind="desk:human-wait"), desk("b")))))
    scene.engine.taken.clear()
    refused(scene, scene.service.queue_run("flow"), WorkflowNotRunnableError)


def test_d5_a_run_id_of_another_workflow_is_refused_and_changes_nothing() -> None:
    scene = Scene().save(flow(), flow("other"))
    scene.queue()
    scene.engine.taken.clear()
    error = refused(scene, scene.service.queue_run("other", "run-1"), RunIdConflictError)
    assert error.message == "run run-1 belongs to workflow flow, not to other"
    assert done(scene.service.get_run("run-1")).status is RunStatus.QUEUED


def test_d6_a_run_that_ended_while_it_was_handed_over_stays_ended() -> None:
    scene = Scene().save(flow())

    async def run_at_once(run: Run) -> None:
        for kind in (EventType.RUN_STARTED, EventType.RUN_COMPLETED):
            await scene.store.record(run.run_id, Fact(key=f"{kind}/now", type=kind, at=AT, output={"done": True}))

    scene.engine.before = run_at_once
    assert scene.queue().run.status is RunStatus.QUEUED  # as it was handed over
    stored = done(scene.service.get_run("run-1"))
    assert (stored.status, stored.output, stored.finished_at) == (RunStatus.COMPLETED, {"done": True}, AT)


def test_d8_handing_a_run_over_again_adds_no_event() -> None:
    scene = Scene().save(flow())
    scene.queue()
    before = done(scene.service.run_timeline("run-1"))
    scene.queue()
    assert done(scene.service.run_timeline("run-1")) == before


@pytest.mark.parametrize(
    "broken",
    [
        flow(desks=(desk("a"), desk("b", kind="desk:human-wait"))),
        flow(handoffs=(msgspec.structs.replace(flow().handoffs[0], condition="x > 1"),)),
        flow(handoffs=(msgspec.structs.replace(flow().handoffs[0], mapping_refs={"a": "b"}),)),
    ],
)
def test_d9_what_cannot_be_run_yet_can_be_saved_and_is_refused_to_run(broken: Workflow) -> None:
    scene = Scene().save(broken)
    error = refused(scene, scene.service.queue_run("flow", "run-1"), WorkflowNotRunnableError)
    assert error.message.startswith("workflow flow cannot be run: ")
    assert error.details is not None
    assert error.details["workflowId"] == "flow"


def test_a_stored_workflow_that_is_not_valid_today_is_not_run() -> None:
    scene = Scene()
    done(scene.store.save_workflow(flow(desks=())))
    refused(scene, scene.service.queue_run("flow"), WorkflowInvalidError)


def test_the_address_in_links_is_asked_for_when_a_run_is_queued() -> None:
    scene = Scene(trace_url="http://localhost:8288").save(flow())
    scene.base_url = "http://127.0.0.1:4321/"
    urls = [link.url for link in scene.queue().run.trace_links]
    assert urls == [
        "http://127.0.0.1:4321/api/orpc/coordination/runs/run-1/timeline",
        "http://localhost:8288/events/event-1",
    ]


def test_an_engine_that_cannot_be_reached_at_the_start_leaves_queued_runs_as_they_are() -> None:
    scene = Scene(store=FullDisk(FakeClock())).save(flow())
    scene.engine.refuses = lambda _: OSError("no")
    for run_id in ("run-1", "run-2"):
        with pytest.raises(RunQueueFailedError):
            scene.queue(run_id=run_id)
    scene.engine.refuses = lambda _: EngineUnreachableError("nobody answers")
    with pytest.raises(EngineUnreachableError):
        done(scene.service.resume_undispatched())
    assert {run.status for run in done(scene.store.list_runs(limit=9))} == {RunStatus.QUEUED}
    scene.engine.refuses = lambda _: None
    assert done(scene.service.resume_undispatched()) == 2


# --- an engine that does not take a run ---


def test_a_run_that_the_engine_refuses_is_recorded_as_failed_and_answered() -> None:
    scene = Scene().save(flow())
    scene.engine.refuses = lambda _: OSError("connection refused")
    with pytest.raises(RunQueueFailedError) as caught:
        scene.queue()
    stored = done(scene.service.get_run("run-1"))
    message = "run run-1 could not be handed to the engine: connection refused"
    assert caught.value.message == message
    assert caught.value.run == stored
    assert caught.value.details == {"run": msgspec.to_builtins(stored)}
    assert (stored.status, stored.error, stored.finished_at) == (RunStatus.FAILED, message, AT)
    _, timeline = done(scene.service.run_timeline("run-1"))
    assert [event.type.value for event in timeline] == ["run.started", "run.failed"]
    assert done(scene.service.resume_undispatched()) == 0


def test_the_finished_hooks_of_a_run_that_the_engine_refuses_are_told_at_once() -> None:
    scene = Scene().save(flow())
    scene.queue(run_id="taken")
    scene.engine.refuses = lambda _: OSError("connection refused")
    with pytest.raises(RunQueueFailedError):
        scene.queue(run_id="refused")
    assert scene.told == ["refused"]


def test_what_could_not_be_told_then_is_told_at_the_next_start() -> None:
    scene = Scene().save(flow())
    scene.engine.refuses = lambda _: OSError("connection refused")
    scene.cannot_tell = StorageError("the disk is full")
    with pytest.raises(RunQueueFailedError, match=r"connection refused$"):
        scene.queue()
    scene.cannot_tell = None
    done(scene.service.tell_unheard())
    assert scene.told == ["run-1", "run-1"]


def test_a_failure_that_cannot_be_stored_either_says_both_and_the_run_is_tried_again_at_the_next_start() -> None:
    clock = FakeClock()
    scene = Scene(store=FullDisk(clock)).save(flow())
    scene.engine.refuses = lambda _: OSError("connection refused")
    with pytest.raises(RunQueueFailedError, match=r"connection refused; that could not be stored either: the disk is"):
        scene.queue()
    assert done(scene.service.get_run("run-1")).status is RunStatus.QUEUED
    scene.engine.refuses = lambda _: None
    assert done(scene.service.resume_undispatched()) == 1
    assert scene.engine.taken == ["run-1"]


@pytest.mark.parametrize("trace_url", [None, "http://inngest"])
def test_a_run_that_the_engine_has_is_none_that_failed_because_that_could_not_be_stored(trace_url: str | None) -> None:
    scene = Scene(store=NothingMore(FakeClock()), trace_url=trace_url).save(flow())
    assert scene.queue().run.status is RunStatus.QUEUED
    assert scene.engine.taken == ["run-1"]
    assert done(scene.service.get_run("run-1")).status is RunStatus.QUEUED
    assert [run.run_id for run in done(scene.store.undispatched_runs(9))] == ["run-1"]


def test_a_run_whose_process_died_before_the_handover_is_handed_over_at_the_next_start() -> None:
    scene = Scene().save(flow())

    async def die(_: Run) -> None:
        raise asyncio.CancelledError

    scene.engine.before = die
    with pytest.raises(asyncio.CancelledError):
        scene.queue()
    scene.engine.before = None
    assert done(scene.service.resume_undispatched()) == 1
    assert done(scene.service.resume_undispatched()) == 0
    assert scene.engine.taken == ["run-1"]


def test_a_run_that_is_refused_again_does_not_keep_the_others_back() -> None:
    scene = Scene(store=FullDisk(FakeClock())).save(flow())
    scene.engine.refuses = lambda _: OSError("no")
    for run_id in ("run-1", "run-2", "run-3"):
        with pytest.raises(RunQueueFailedError):
            scene.queue(run_id=run_id)
    scene.engine.refuses = lambda run: OSError("still no") if run.run_id == "run-2" else None
    assert done(scene.service.resume_undispatched()) == 2
    assert scene.engine.taken == ["run-1", "run-3"]


def test_many_runs_that_are_refused_do_not_keep_back_the_one_behind_them() -> None:
    scene = Scene().save(flow())

    async def die(_: Run) -> None:
        raise asyncio.CancelledError

    scene.engine.before = die
    for number in range(AT_ONCE + 2):
        with pytest.raises(asyncio.CancelledError):
            scene.queue(run_id=f"run-{number}")
    scene.engine.before = None
    last = f"run-{AT_ONCE + 1}"
    scene.engine.refuses = lambda run: None if run.run_id == last else OSError("no")
    assert done(scene.service.resume_undispatched()) == 1
    assert scene.engine.taken == [last]


def test_runs_are_listed_newest_first_up_to_a_limit() -> None:
    scene = Scene().save(flow())
    for number in range(3):
        scene.queue(run_id=f"run-{number}")
    assert [run.run_id for run in done(scene.service.list_runs(limit=2))] == ["run-2", "run-1"]


def test_a_watched_run_tells_what_was_and_what_comes_and_ends_with_it() -> None:
    scene = Scene().save(flow())
    scene.queue()
    scene.happens(EventType.RUN_STARTED, None, EventType.RUN_COMPLETED)
    assert scene.watched() == [(1, "run.started"), (2, "run.started"), (3, "run.completed")]


@pytest.mark.parametrize(("after_seq", "seqs"), [(0, [1, 2, 3]), (1, [2, 3]), (2, [3]), (3, [])])
def test_watching_goes_on_after_the_event_that_was_seen(after_seq: int, seqs: list[int]) -> None:
    scene = Scene().save(flow())
    scene.queue()
    done(scene._happen(EventType.RUN_STARTED, 0))
    done(scene._happen(EventType.RUN_FAILED, 1))
    assert [seq for seq, _ in scene.watched(after_seq)] == seqs
    assert scene.pauses == []


def test_watching_asks_ever_less_often_while_nothing_happens() -> None:
    scene = Scene().save(flow())
    scene.queue()
    scene.happens(*[None] * 6, EventType.RUN_STARTED, None, EventType.RUN_COMPLETED)
    scene.watched()
    assert scene.pauses == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4, 0.4, 0.05, 0.1]


def test_an_event_that_the_run_never_had_cannot_have_been_seen() -> None:
    scene = Scene().save(flow())
    scene.queue()
    with pytest.raises(TimelineEventNotFoundError, match="run run-1 has no event 2"):
        scene.watched(2)
    with pytest.raises(RunNotFoundError):
        done(scene.service.watch_run("nope"))
    with pytest.raises(InvalidRunIdError):
        done(scene.service.watch_run("../x"))
