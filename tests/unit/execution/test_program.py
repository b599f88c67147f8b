"""The coordination runner, driven by steps that crash at every boundary."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import (
    Desk,
    EventType,
    Handoff,
    MemoryKey,
    MemoryScope,
    Run,
    RunStatus,
    RuntimePolicy,
    TimelineEvent,
    Workflow,
)
from rawr.coordination.ports import CoordinationStore
from rawr.execution.ports import DeskContext, DeskHandler, FunctionDeps, FunctionFailedError
from rawr.execution.program import coordination_runner
from rawr.ids import DeskId, HandoffId, RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.testing.steps import Crash, CrashPoint, Journal, drive
from rawr.testing.stores import MemoryCoordinationStore
from rawr.wire import JsonValue, iso_from_ms

RUN = RunId("run-1")
DATA = {"runId": RUN, "workflowId": "flow", "workflowVersion": 1}
DIAMOND = (("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"))


def desk(
    desk_id: str,
    *,
    kind: str = "desk:analysis",
    handler: str | None = None,
    retries: int = 0,
    timeout_s: int = 0,
    input_schema: dict[str, Any] | None = None,
    output_schema: dict[str, Any] | None = None,
    memory: MemoryScope | None = None,
) -> Desk:
    return Desk(
        desk_id=DeskId(desk_id),
        kind=kind,
        name=desk_id,
        responsibility="r",
        domain="d",
        input_schema=input_schema or {},
        output_schema=output_schema or {},
        memory_scope=memory or MemoryScope(persist=False),
        runtime_policy=RuntimePolicy(retries=retries, timeout_seconds=timeout_s),
        handler=msgspec.UNSET if handler is None else handler,
    )


def workflow(desks: Sequence[Desk], edges: Sequence[tuple[str, str]] = ()) -> Workflow:
    return Workflow(
        workflow_id=WorkflowId("flow"),
        version=1,
        name="Flow",
        entry_desk_id=desks[0].desk_id,
        desks=tuple(desks),
        handoffs=tuple(
            Handoff(handoff_id=HandoffId(f"{a}-{b}"), from_desk_id=DeskId(a), to_desk_id=DeskId(b)) for a, b in edges
        ),
    )


def diamond(handler: str | None = None) -> Workflow:
    kinds = {"d": "desk:join"}
    return workflow([desk(name, kind=kinds.get(name, "desk:analysis"), handler=handler) for name in "abcd"], DIAMOND)


class Scene:
    """One queued run of one workflow, its store, and the journal of its steps."""

    def __init__(
        self,
        flow: Workflow,
        handlers: Mapping[str, DeskHandler] | None = None,
        *,
        run_input: JsonValue = None,
        store: CoordinationStore | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.store = store or MemoryCoordinationStore(self.clock)
        self.journal = Journal()
        self.handlers = dict(handlers or {})
        asyncio.run(self._queue(flow, {} if run_input is None else run_input))

    async def _queue(self, flow: Workflow, run_input: JsonValue) -> None:
        at = iso_from_ms(self.clock.now_ms())
        await self.store.save_workflow(flow)
        run = Run(
            run_id=RUN,
            workflow_id=flow.workflow_id,
            workflow_version=flow.version,
            status=RunStatus.QUEUED,
            started_at=at,
            input=run_input,
            trace_links=(),
        )
        await self.store.create_run(run, Fact(key="run.started/queued", type=EventType.RUN_STARTED, at=at))

    def drive(self, crash: CrashPoint | None = None, choose: Callable[[Sequence[str]], str] | None = None) -> JsonValue:
        deps = FunctionDeps(
            store=self.store, desk_handlers=self.handlers, clock=self.clock, instance_root=Path("/nowhere")
        )
        arguments = {} if choose is None else {"choose": choose}
        return asyncio.run(drive(coordination_runner(), deps, DATA, journal=self.journal, crash=crash, **arguments))

    def failure(self) -> str:
        with pytest.raises(FunctionFailedError) as caught:
            self.drive()
        assert self.run.status is RunStatus.FAILED
        assert self.run.error == str(caught.value)
        return str(caught.value)

    @property
    def run(self) -> Run:
        found = asyncio.run(self.store.get_run(RUN))
        assert found is not None
        return found

    @property
    def timeline(self) -> list[TimelineEvent]:
        return asyncio.run(self.store.timeline(RUN))

    @property
    def told(self) -> list[str]:
        """`type` of run events, `type desk` of desk events."""
        return [
            event.type.value if event.desk_id is msgspec.UNSET else f"{event.type.value} {event.desk_id}"
            for event in self.timeline
        ]


CONTAINS_ITSELF: list[Any] = []
CONTAINS_ITSELF.append(CONTAINS_ITSELF)


def echo(given: JsonValue, ctx: DeskContext) -> JsonValue:
    return {"desk": ctx.desk_id, "got": given}


def test_desks_without_handlers_pass_their_input_on_in_order() -> None:
    scene = Scene(diamond(), run_input={"q": 1})
    assert scene.drive() == {"runId": RUN, "status": "completed"}
    a = {"deskId": "a", "status": "ok", "kind": "desk:analysis", "received": {"q": 1}, "memory": None}
    b = {"deskId": "b", "status": "ok", "kind": "desk:analysis", "received": a, "memory": None}
    c = {"deskId": "c", "status": "ok", "kind": "desk:analysis", "received": a, "memory": None}
    assert scene.run.output == {"deskId": "d", "status": "joined", "merged": {"b": b, "c": c}, "memory": None}
    assert scene.told == [
        "run.started",
        "run.started",
        "desk.started a",
        "desk.completed a",
        "desk.started b",
        "desk.completed b",
        "desk.started c",
        "desk.completed c",
        "desk.started d",
        "desk.completed d",
        "run.completed",
    ]
    assert [event.seq for event in scene.timeline] == list(range(1, 12))


@pytest.mark.parametrize("run_input", [[1, 2], 0, "x", False, {"a": None}])
def test_the_input_of_a_run_reaches_the_first_desk_as_given(run_input: JsonValue) -> None:
    scene = Scene(workflow([desk("a", handler="echo")]), {"echo": echo}, run_input=run_input)
    scene.drive()
    assert scene.run.output == {"desk": "a", "got": run_input}


def boundaries(flow: Workflow) -> int:
    scene, point = Scene(flow, {"echo": echo}), CrashPoint()
    scene.drive(point)
    return point.passed


@pytest.mark.parametrize("crash_at", range(boundaries(diamond("echo"))))
def test_a_run_survives_a_crash_at_every_boundary(crash_at: int) -> None:
    calls: list[str] = []

    def counted(given: JsonValue, ctx: DeskContext) -> JsonValue:
        calls.append(ctx.desk_id)
        return echo(given, ctx)

    whole = Scene(diamond("echo"), {"echo": echo})
    whole.drive()
    scene = Scene(diamond("echo"), {"echo": counted})
    with pytest.raises(Crash):
        scene.drive(CrashPoint(crash_at))
    scene.drive()
    assert scene.run == whole.run
    assert scene.timeline == whole.timeline
    assert sorted(calls) == ["a", "b", "c", "d"]  # between record and memo, too: the recorded result is used


class CrashingStore:
    """A store whose process dies before or after its n-th write."""

    def __init__(self, store: CoordinationStore, point: CrashPoint) -> None:
        self._store = store
        self._point = point

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def record(self, run_id: RunId, fact: Fact) -> Run:
        self._point.reach()
        run = await self._store.record(run_id, fact)
        self._point.reach()
        return run


def test_a_run_survives_a_crash_before_and_after_every_write() -> None:
    whole = Scene(diamond("echo"), {"echo": echo})
    whole.drive()
    point = CrashPoint()
    counting = Scene(diamond("echo"), {"echo": echo})
    counting.store = CrashingStore(counting.store, point)
    counting.drive()
    for crash_at in range(point.passed):
        scene = Scene(diamond("echo"), {"echo": echo})
        store = scene.store
        scene.store = CrashingStore(store, CrashPoint(crash_at))
        with pytest.raises(Crash):
            scene.drive()
        scene.store = store
        scene.drive()
        assert scene.run == whole.run
        assert scene.timeline == whole.timeline


@pytest.mark.parametrize("seed", range(10))
def test_the_order_in_which_ready_desks_run_does_not_change_the_output(seed: int) -> None:
    whole = Scene(diamond("echo"), {"echo": echo})
    whole.drive()
    scene = Scene(diamond("echo"), {"echo": echo})
    scene.drive(choose=lambda planned: random.Random(seed).choice(planned))
    assert scene.run == whole.run


def test_a_failing_desk_fails_the_run_and_the_desks_behind_it_never_start() -> None:
    def refuse(_given: JsonValue, _ctx: DeskContext) -> JsonValue:
        raise ValueError("no good")

    scene = Scene(workflow([desk("a", handler="refuse"), desk("b")], [("a", "b")]), {"refuse": refuse})
    assert scene.failure() == "desk a failed: ValueError: no good"
    assert scene.told == ["run.started", "run.started", "desk.started a", "desk.failed a", "run.failed"]
    assert scene.timeline[3].detail == "ValueError: no good"


def test_a_desk_is_tried_again_as_often_as_its_policy_says() -> None:
    attempts: list[int] = []

    async def third_time(_given: JsonValue, ctx: DeskContext) -> JsonValue:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise OSError("not yet")
        return ctx.idempotency_key

    scene = Scene(workflow([desk("a", handler="h", retries=2)]), {"h": third_time})
    scene.drive()
    assert attempts == [1, 2, 3]
    assert scene.run.output == "run-1/a"
    details = [event.detail for event in scene.timeline if event.type is EventType.DESK_FAILED]
    assert details == ["try 1 of 3: OSError: not yet", "try 2 of 3: OSError: not yet"]


def test_a_desk_that_uses_up_its_retries_fails_the_run() -> None:
    def never(_given: JsonValue, _ctx: DeskContext) -> JsonValue:
        raise OSError("never")

    scene = Scene(workflow([desk("a", handler="h", retries=1)]), {"h": never})
    assert scene.failure() == "desk a failed: OSError: never"
    assert scene.told.count("desk.failed a") == 2


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (desk("a", handler="nobody", retries=3), "desk a failed: no desk handler is named 'nobody'; known: echo"),
        (
            desk("a", handler="echo", retries=3, input_schema={"type": "object", "required": ["x"]}),
            "desk a failed: input does not fit the desk's schema: ",
        ),
    ],
)
def test_what_another_try_cannot_change_is_not_retried(broken: Desk, message: str) -> None:
    scene = Scene(workflow([broken]), {"echo": echo})
    assert scene.failure().startswith(message)
    assert scene.told.count("desk.failed a") == 1


def test_an_output_that_does_not_fit_its_schema_fails_the_desk() -> None:
    scene = Scene(workflow([desk("a", handler="echo", output_schema={"type": "string"})]), {"echo": echo})
    assert "output does not fit the desk's schema" in scene.failure()


@pytest.mark.parametrize(
    ("gives", "reason"),
    [
        (object(), "it gave what cannot be JSON"),
        ({"deep": [1.5, float("nan")]}, "it gave what cannot be JSON: NaN"),
        (float("inf"), "it gave what cannot be JSON: NaN or an infinite number"),
        (CONTAINS_ITSELF, "it gave what cannot be JSON"),
        ("\ud800", "it gave what cannot be JSON"),
        ("x" * (4 * 1024 * 1024), "the limit is 4194304"),
    ],
)
def test_an_output_that_cannot_be_kept_fails_the_desk(gives: Any, reason: str) -> None:
    scene = Scene(workflow([desk("a", handler="h")]), {"h": lambda _given, _ctx: gives})
    assert reason in scene.failure()


def test_a_handler_that_takes_too_long_fails_its_desk() -> None:
    async def endless(_given: JsonValue, _ctx: DeskContext) -> JsonValue:
        await asyncio.sleep(60)

    scene = Scene(workflow([desk("a", handler="h", timeout_s=1)]), {"h": endless})
    assert scene.failure() == "desk a failed: not done within 1 s"


def test_a_handler_that_exits_the_process_only_fails_its_desk() -> None:
    def leave(_given: JsonValue, _ctx: DeskContext) -> JsonValue:
        raise SystemExit(3)

    scene = Scene(workflow([desk("a", handler="h")]), {"h": leave})
    assert scene.failure() == "desk a failed: SystemExit: 3"


def test_an_error_text_that_is_not_utf8_is_recorded_escaped() -> None:
    def odd(_given: JsonValue, _ctx: DeskContext) -> JsonValue:
        raise ValueError("\ud800")

    scene = Scene(workflow([desk("a", handler="h")]), {"h": odd})
    assert scene.failure() == "desk a failed: ValueError: \\ud800"


def test_a_run_that_has_ended_is_left_alone_and_its_handlers_do_not_run() -> None:
    calls: list[str] = []
    scene = Scene(workflow([desk("a", handler="h")]), {"h": lambda given, ctx: calls.append(ctx.desk_id)})
    ended = Fact(key="run.failed", type=EventType.RUN_FAILED, at=iso_from_ms(0), error="gone", detail="gone")
    asyncio.run(scene.store.record(RUN, ended))
    with pytest.raises(FunctionFailedError):
        scene.drive()
    assert scene.run.error == "gone"
    assert calls == []


def test_a_failure_is_recorded_while_another_desk_has_yet_to_run() -> None:
    def refuse(_given: JsonValue, _ctx: DeskContext) -> JsonValue:
        raise ValueError("no")

    flow = workflow([desk("a"), desk("b", handler="echo"), desk("c", handler="refuse")], [("a", "b"), ("a", "c")])
    scene = Scene(flow, {"echo": echo, "refuse": refuse})
    with pytest.raises(FunctionFailedError):
        scene.drive(choose=lambda planned: planned[-1])  # c before b, then the failure before b
    assert scene.run.status is RunStatus.FAILED
    assert "desk.started b" not in scene.told


def test_an_unknown_workflow_version_fails_the_run() -> None:
    scene = Scene(diamond())
    deps = FunctionDeps(store=scene.store, desk_handlers={}, clock=scene.clock, instance_root=Path("/nowhere"))
    with pytest.raises(FunctionFailedError, match="workflow flow version 9 is not in the store"):
        asyncio.run(drive(coordination_runner(), deps, {**DATA, "workflowVersion": 9}, journal=scene.journal))
    assert scene.run.status is RunStatus.FAILED


def test_giving_up_on_a_run_that_nobody_knows_is_no_error() -> None:
    scene = Scene(diamond())
    deps = FunctionDeps(store=scene.store, desk_handlers={}, clock=scene.clock, instance_root=Path("/nowhere"))

    async def give_up() -> None:
        await coordination_runner().on_failure(deps, {**DATA, "runId": "other"}, "gave up")

    asyncio.run(give_up())
    assert scene.run.status is RunStatus.QUEUED


def test_a_desk_with_memory_keeps_what_it_asked_for_or_its_output() -> None:
    def learn(_given: JsonValue, ctx: DeskContext) -> JsonValue:
        ctx.remember({"seen": ctx.desk_id})
        return "out"

    keeping = MemoryScope(persist=True, ttl_seconds=60, namespace="ns")
    flow = workflow(
        [desk("a", handler="learn", memory=keeping), desk("b", handler="echo", memory=MemoryScope(persist=True))],
        [("a", "b")],
    )
    scene = Scene(flow, {"learn": learn, "echo": echo})
    scene.drive()
    now_ms = scene.clock.now_ms()
    a = MemoryKey(workflow_id=flow.workflow_id, workflow_version=1, desk_id=DeskId("a"), namespace="ns", key="default")
    kept = asyncio.run(scene.store.get_memory(a, now_ms=now_ms))
    assert kept is not None
    assert kept.data == {"seen": "a"}
    assert kept.expires_at_ms == now_ms + 60_000
    b = MemoryKey(
        workflow_id=flow.workflow_id, workflow_version=1, desk_id=DeskId("b"), namespace="default", key="default"
    )
    kept = asyncio.run(scene.store.get_memory(b, now_ms=now_ms))
    assert kept is not None
    assert kept.data == {"desk": "b", "got": "out"}


def test_a_chain_of_300_desks_completes() -> None:
    names = [f"d{number}" for number in range(300)]
    flow = workflow([desk(name, handler="count") for name in names], list(itertools.pairwise(names)))
    scene = Scene(flow, {"count": lambda given, _ctx: given + 1}, run_input=0)
    scene.drive()
    assert scene.run.output == 300
    assert len(scene.timeline) == 2 + 600 + 1


def test_a_chain_of_desks_without_handlers_fails_clearly_where_its_wrapping_gets_too_deep() -> None:
    names = [f"d{number}" for number in range(100)]
    scene = Scene(workflow([desk(name) for name in names], list(itertools.pairwise(names))), run_input={})
    assert "nested deeper than" in scene.failure()
