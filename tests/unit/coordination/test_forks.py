"""Running a run of desks again: what is kept, what is given, and that every timeline is whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.execution.test_program import desk, diamond, workflow

from rawr.clock import RunIdSource
from rawr.coordination.forks import Fork, RerunAsked, RerunRefusedError
from rawr.coordination.graph import graph_of
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import MemoryKey, MemoryScope, Run, RunStatus, Workflow
from rawr.coordination.ports import CreatedRun, RunNotFoundError
from rawr.coordination.service import CoordinationService
from rawr.errors import StorageError
from rawr.execution.ports import DeskContext, FunctionDeps, FunctionFailedError
from rawr.execution.program import coordination_runner
from rawr.ids import EventId, RunId
from rawr.telemetry.checker import check_timeline, observed_event
from rawr.testing.clock import FakeClock
from rawr.testing.steps import Crash, CrashPoint, Journal, drive
from rawr.testing.stores import MemoryCoordinationStore
from rawr.wire import JsonValue

T = TypeVar("T")


class FillingStore(MemoryCoordinationStore):
    """Takes no new runs while its disk is full."""

    is_full = False

    async def create_run(
        self, run: Run, fact: Fact, fork: Fork | None = None, *, newest: Workflow | None = None
    ) -> CreatedRun:
        if self.is_full:
            raise StorageError("the disk is full")
        return await super().create_run(run, fact, fork, newest=newest)


class Scene:
    """A service, a store in memory, and runs that are driven when the test says so."""

    def __init__(self, flow: Workflow) -> None:
        self.clock = FakeClock()
        self.store = FillingStore(self.clock)
        self.calls: list[tuple[str, JsonValue]] = []
        self.broken: set[str] = set()
        self.withdrawn: list[tuple[str, str]] = []
        self.told: list[str] = []
        self.journals: dict[str, Journal] = {}
        self.flow = flow
        self.service = CoordinationService(
            store=self.store,
            dispatcher=self,
            clock=self.clock,
            run_ids=RunIdSource(self.clock),
            base_url=lambda: "http://localhost",
            tell_finished=self._tell,
        )
        self.do(self.service.save_workflow(flow))

    async def dispatch(self, run: Run) -> Sequence[EventId]:
        return [EventId(f"event of {run.run_id}")]

    async def withdraw(self, run: Run, reason: str) -> None:
        self.withdrawn.append((run.run_id, reason))

    async def _tell(self, run_id: RunId) -> None:
        self.told.append(run_id)

    def do(self, waiting: Awaitable[T]) -> T:
        async def wait() -> T:
            return await waiting

        return asyncio.run(wait())

    def handler(self, received: JsonValue, ctx: DeskContext) -> JsonValue:
        if ctx.desk_id in self.broken:
            raise ValueError("broken")
        self.calls.append((ctx.desk_id, received))
        return {"desk": ctx.desk_id, "got": received, "call": len(self.calls)}

    def queue(self, run_input: JsonValue = None) -> str:
        return self.do(self.service.queue_run(self.flow.workflow_id, None, run_input)).run.run_id

    def again(self, run_id: str, **asked: Any) -> str:
        return self.do(self.service.rerun(run_id, RerunAsked(**asked))).run.run_id

    def drive(self, run_id: str, crash: CrashPoint | None = None, choose: Callable[..., str] | None = None) -> Run:
        run = self.run(run_id)
        deps = FunctionDeps(
            store=self.store, desk_handlers={"echo": self.handler}, clock=self.clock, instance_root=Path("/nowhere")
        )
        data = {"runId": run_id, "workflowId": run.workflow_id, "workflowVersion": run.workflow_version}
        journal = self.journals.setdefault(run_id, Journal())
        chosen = {} if choose is None else {"choose": choose}
        with contextlib.suppress(FunctionFailedError):
            self.do(drive(coordination_runner(), deps, data, journal=journal, crash=crash, **chosen))
        return self.run(run_id)

    def run(self, run_id: str) -> Run:
        return self.do(self.service.get_run(run_id))

    def timeline(self, run_id: str) -> list[Any]:
        return [msgspec.to_builtins(event) for event in self.do(self.service.run_timeline(run_id))[1]]

    def check(self, run_id: str) -> None:
        """What the telemetry checker says of the run's timeline: nothing."""
        graph = graph_of(self.flow)
        events = [observed_event(event) for event in self.timeline(run_id)]
        plan = {str(desk_id): list(graph.upstream[desk_id]) for desk_id in graph.upstream}
        assert check_timeline(events, ended=True, plan=plan) == []


def test_a_run_is_run_again_whole_as_a_new_run_that_names_the_old_one() -> None:
    scene = Scene(diamond("echo"))
    old = scene.queue({"q": 1})
    before = scene.drive(old)
    new = scene.again(old)
    assert scene.drive(new).status is RunStatus.COMPLETED
    assert new != old
    assert scene.run(old) == before
    assert [name for name, _ in scene.calls] == [*"abcd", *"abcd"]
    assert scene.timeline(new)[0]["detail"] == f"Coordination run queued for Inngest execution: {old} again"
    assert scene.run(new).input == {"q": 1}
    scene.check(new)


def test_from_a_desk_on_what_completed_before_it_is_kept_and_its_handlers_are_not_called() -> None:
    scene = Scene(diamond("echo"))
    old = scene.queue({"q": 1})
    scene.drive(old)
    scene.calls.clear()
    new = scene.again(old, from_step="desk/c")
    run = scene.drive(new)
    assert [name for name, _ in scene.calls] == ["c", "d"]
    assert run.status is RunStatus.COMPLETED
    kept = [event for event in scene.timeline(new) if event.get("deskId") in ("a", "b")]
    same = [event for event in scene.timeline(old) if event.get("deskId") in ("a", "b")]
    assert [(event["type"], event.get("input"), event.get("output")) for event in kept] == [
        (event["type"], event.get("input"), event.get("output")) for event in same
    ]
    assert {event["detail"] for event in kept} == {f"kept from run {old}"}
    assert scene.timeline(new)[0]["detail"].endswith(f"{old} again from desk c on")
    scene.check(new)


def test_a_desk_is_given_the_edited_input() -> None:
    scene = Scene(diamond("echo"))
    old = scene.queue()
    scene.drive(old)
    scene.calls.clear()
    new = scene.again(old, from_step="b", desk_input=[None, {"edited": True}])
    scene.drive(new)
    assert scene.calls[0] == ("b", [None, {"edited": True}])
    (started,) = [e for e in scene.timeline(new) if (e["type"], e.get("deskId")) == ("desk.started", "b")]
    assert started["input"] == [None, {"edited": True}]
    assert scene.timeline(new)[0]["detail"].endswith("from desk b on with another input")
    scene.check(new)


def test_a_run_is_run_again_with_another_input() -> None:
    scene = Scene(workflow([desk("a", handler="echo")]))
    old = scene.queue({"q": 1})
    scene.drive(old)
    new = scene.again(old, run_input={"q": 2})
    scene.drive(new)
    assert scene.calls == [("a", {"q": 1}), ("a", {"q": 2})]
    assert (scene.run(old).input, scene.run(new).input) == ({"q": 1}, {"q": 2})


def test_a_failed_run_goes_on_from_the_desk_that_failed() -> None:
    scene = Scene(diamond("echo"))
    scene.broken = {"c"}
    old = scene.queue()
    assert scene.drive(old).status is RunStatus.FAILED
    scene.broken = set()
    scene.calls.clear()
    new = scene.again(old, from_step="c")
    assert scene.drive(new).status is RunStatus.COMPLETED
    assert [name for name, _ in scene.calls] == ["c", "d"]
    scene.check(old)
    scene.check(new)


def test_a_run_that_repeats_one_that_repeats_another_keeps_all_of_it() -> None:
    scene = Scene(diamond("echo"))
    first = scene.queue()
    scene.drive(first)
    second = scene.again(first, from_step="b")
    scene.drive(second)
    scene.calls.clear()
    third = scene.again(second, from_step="d")
    scene.drive(third)
    assert [name for name, _ in scene.calls] == ["d"]
    scene.check(third)


def test_an_unfinished_run_is_ended_with_a_reason_before_it_is_run_again() -> None:
    scene = Scene(diamond("echo"))
    old = scene.queue()
    with pytest.raises(Crash):
        scene.drive(old, CrashPoint(6))
    new = scene.again(old)
    ended = scene.run(old)
    reason = f"ended: it is run again as {new}"
    assert (ended.status, ended.error) == (RunStatus.FAILED, reason)
    assert scene.withdrawn == [(old, reason)]
    assert scene.told == [old]
    scene.check(old)
    assert scene.drive(new).status is RunStatus.COMPLETED
    scene.check(new)


def test_a_rerun_that_breaks_off_after_the_old_run_was_ended_can_be_asked_for_again() -> None:
    scene = Scene(diamond("echo"))
    old = scene.queue()
    with pytest.raises(Crash):
        scene.drive(old, CrashPoint(6))
    scene.store.is_full = True
    with pytest.raises(StorageError):
        scene.again(old)
    scene.store.is_full = False
    assert scene.run(old).status is RunStatus.FAILED
    new = scene.again(old, from_step="b")
    assert scene.drive(new).status is RunStatus.COMPLETED
    scene.check(old)
    scene.check(new)


def test_what_a_kept_desk_remembers_is_not_written_again() -> None:
    keeps = desk("a", handler="echo", memory=MemoryScope(persist=True))
    scene = Scene(workflow([keeps, desk("b", handler="echo")], [("a", "b")]))
    at = MemoryKey(
        workflow_id=scene.flow.workflow_id,
        workflow_version=1,
        desk_id=keeps.desk_id,
        namespace="default",
        key="default",
    )
    old = scene.queue()
    scene.drive(old)
    scene.drive(scene.queue())
    remembered = scene.do(scene.store.get_memory(at, now_ms=0))
    scene.drive(scene.again(old, from_step="b"))
    assert scene.do(scene.store.get_memory(at, now_ms=0)) == remembered


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"from_step": "z"}, "version 1 has no desk 'z'"),
        ({"desk_input": {}}, "an input is for a desk"),
    ],
)
def test_what_cannot_be_run_again_is_refused_and_changes_nothing(asked: dict[str, Any], why: str) -> None:
    scene = Scene(diamond("echo"))
    old = scene.queue()
    before = (scene.do(scene.store.list_runs(limit=9)), scene.timeline(old))
    with pytest.raises(RerunRefusedError, match=why):
        scene.again(old, **asked)
    with pytest.raises(RunNotFoundError):
        scene.again("nobody")
    assert (scene.do(scene.store.list_runs(limit=9)), scene.timeline(old)) == before
    assert scene.withdrawn == []


@settings(max_examples=60, deadline=None)
@given(st.randoms(), st.sampled_from("abcde"), st.integers(0, 40), st.booleans())
def test_every_fork_of_every_order_has_a_whole_timeline_also_when_it_crashes(
    dice: Any, from_desk: str, crash_at: int, fails: bool
) -> None:
    """A lattice of five desks whose desks end in any order; the fork dies at any boundary, and goes on."""
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("c", "e")]
    kinds = {"d": "desk:join"}
    desks = [desk(name, kind=kinds.get(name, "desk:analysis"), handler="echo") for name in "abcde"]
    scene = Scene(workflow(desks, edges))
    scene.broken = {dice.choice("abcde")} if fails else set()
    old = scene.queue()
    scene.drive(old, choose=dice.choice)
    scene.check(old)
    scene.broken = set()
    completed_before = {e["deskId"] for e in scene.timeline(old) if e["type"] == "desk.completed"}
    scene.calls.clear()
    new = scene.again(old, from_step=from_desk)
    with contextlib.suppress(Crash):
        scene.drive(new, CrashPoint(crash_at), dice.choice)
    assert scene.drive(new, choose=dice.choice).status is RunStatus.COMPLETED
    scene.check(new)
    called = [name for name, _ in scene.calls]
    assert len(called) == len(set(called))
    assert from_desk in called
    assert set("abcde") - completed_before <= set(called)
