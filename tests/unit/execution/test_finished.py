"""Finished hooks: told of every ended run, bounded, remembered, and unable to change how the run ended."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    Desk,
    EventType,
    Finalization,
    FinishedHookState,
    HookOutcome,
    MemoryScope,
    Run,
    RunStatus,
    Workflow,
)
from rawr.errors import StorageError
from rawr.execution.finished import tell_finished
from rawr.execution.ports import DeskContext, FinishedEffects, FinishedHook, FunctionDeps, FunctionFailedError
from rawr.execution.program import coordination_runner
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.testing.steps import Crash, CrashPoint, Journal, drive
from rawr.testing.stores import MemoryCoordinationStore
from rawr.wire import JsonValue, iso_from_ms

RUN = RunId("run-1")
DATA = {"runId": RUN, "workflowId": "flow", "workflowVersion": 1}
AT = "2026-01-01T00:00:00.000Z"


def hook(call: Callable[[Run, FinishedEffects], Any], *, name: str = "h", of: str | None = None) -> FinishedHook:
    return FinishedHook(name=name, workflow_id=None if of is None else WorkflowId(of), call=call)


def work(received: JsonValue, _: DeskContext) -> JsonValue:
    if received.get("fail"):
        raise ValueError("the desk gives up")
    return {"done": True}


class Scene:
    """One queued run of a workflow of one desk, and hooks that hear of its end."""

    def __init__(
        self, *hooks: FinishedHook, fails: bool = False, under_contract: bool = True, store: Any = None
    ) -> None:
        clock = FakeClock()
        self.store: MemoryCoordinationStore = store or MemoryCoordinationStore(clock)
        self.journal = Journal()
        self.deps = FunctionDeps(
            store=self.store,
            desk_handlers={"work": work},
            clock=clock,
            instance_root=Path("/nowhere"),
            finished_hooks=hooks,
        )
        run = Run(
            run_id=RUN,
            workflow_id=WorkflowId("flow"),
            workflow_version=1,
            status=RunStatus.QUEUED,
            started_at=iso_from_ms(clock.now_ms()),
            input={"fail": fails},
            trace_links=(),
            finalization=Finalization(contract=FINALIZATION_CONTRACT) if under_contract else msgspec.UNSET,
        )
        asyncio.run(self.store.save_workflow(FLOW))
        asyncio.run(self.store.create_run(run, Fact(key="q", type=EventType.RUN_STARTED, at=AT)))

    def drive(self, crash: CrashPoint | None = None) -> None:
        with contextlib.suppress(FunctionFailedError):
            asyncio.run(drive(coordination_runner(), self.deps, DATA, journal=self.journal, crash=crash))

    def tell(self, *, timeout_ms: int = 5000) -> None:
        asyncio.run(tell_finished(self.deps, RUN, timeout_ms=timeout_ms))

    def end(self) -> None:
        """Without the engine, so that the hooks are told by `tell` only."""
        for key, kind in (("s", EventType.RUN_STARTED), ("c", EventType.RUN_COMPLETED)):
            asyncio.run(self.store.record(RUN, Fact(key=key, type=kind, at=AT, output=1)))

    @property
    def run(self) -> Run:
        run = asyncio.run(self.store.get_run(RUN))
        assert run is not None
        return run

    @property
    def state(self) -> FinishedHookState | None:
        assert self.run.finalization is not msgspec.UNSET
        known = self.run.finalization.finished_hook
        return None if known is msgspec.UNSET else known


FLOW = Workflow(
    workflow_id=WorkflowId("flow"),
    version=1,
    name="Flow",
    entry_desk_id=DeskId("a"),
    desks=(
        Desk(
            desk_id=DeskId("a"),
            kind="desk:analysis",
            name="a",
            responsibility="r",
            domain="d",
            input_schema={},
            output_schema={},
            memory_scope=MemoryScope(persist=False),
            handler="work",
        ),
    ),
    handoffs=(),
)


class Heard:
    """A hook that notes what it was told, as a sync or as an async function."""

    def __init__(self) -> None:
        self.runs: list[Run] = []

    def sync(self, run: Run, _: FinishedEffects) -> None:
        self.runs.append(run)

    async def in_loop(self, run: Run, _: FinishedEffects) -> None:
        self.runs.append(run)


# --- what a run says about its hook ---


@pytest.mark.parametrize("kind", ["sync", "in_loop"])
@pytest.mark.parametrize(("fails", "status"), [(False, RunStatus.COMPLETED), (True, RunStatus.FAILED)])
def test_a_hook_hears_of_a_run_as_it_ended_and_its_success_is_recorded(
    kind: str, fails: bool, status: RunStatus
) -> None:
    heard = Heard()
    scene = Scene(hook(getattr(heard, kind)), fails=fails)
    assert scene.state is None
    scene.drive()
    assert [(run.run_id, run.status) for run in heard.runs] == [(RUN, status)]
    assert scene.run.status is status
    assert scene.state == FinishedHookState(
        attempted_at=iso_from_ms(FakeClock().now_ms()),
        outcome=HookOutcome.SUCCEEDED,
        non_critical=True,
        idempotency_required=True,
        timeout_ms=5000,
    )


class NoSecondWrite(MemoryCoordinationStore):
    async def record_finished_hook(self, run_id: RunId, state: FinishedHookState) -> Run:
        raise AssertionError((run_id, state))


def test_without_a_hook_for_it_the_outcome_is_skipped() -> None:
    heard = Heard()
    for hooks in ((), (hook(heard.sync, of="another"),)):
        scene = Scene(*hooks, store=NoSecondWrite(FakeClock()))  # it is recorded together with the end
        scene.drive()
        assert scene.state is not None
        assert (scene.state.outcome, scene.state.error) == (HookOutcome.SKIPPED, msgspec.UNSET)
    assert heard.runs == []


def test_a_hook_of_one_workflow_hears_of_its_runs() -> None:
    heard = Heard()
    Scene(hook(heard.sync, of="flow")).drive()
    assert len(heard.runs) == 1


def raises(_: Run, __: FinishedEffects) -> None:
    raise ValueError("no \ud800 network")


def exits(_: Run, __: FinishedEffects) -> None:
    raise SystemExit(3)


async def raises_in_loop(_: Run, __: FinishedEffects) -> None:
    raise RuntimeError("x" * 10_000)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (raises, "h: ValueError: no \\ud800 network"),
        (exits, "h: SystemExit: 3"),
        (raises_in_loop, "h: RuntimeError: " + "x" * 1983),
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_a_hook_that_fails_leaves_the_run_as_it_ended(
    call: Any, error: str, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Scene(fails=fails)
    plain.drive()
    scene = Scene(hook(call), fails=fails)
    scene.drive()
    assert scene.state is not None
    assert (scene.state.outcome, str(scene.state.error)[:1990]) == (HookOutcome.FAILED, error[:1990])
    assert caplog.messages == ["finished hooks of run run-1 failed; the run says why"]
    without = msgspec.structs.replace(scene.run, finalization=msgspec.UNSET)
    assert without == msgspec.structs.replace(plain.run, finalization=msgspec.UNSET)


def test_all_hooks_are_told_and_one_that_fails_names_itself() -> None:
    heard = Heard()
    scene = Scene(hook(raises, name="a"), hook(heard.sync, name="b"), hook(raises_in_loop, name="c"))
    scene.drive()
    assert len(heard.runs) == 1
    assert scene.state is not None
    assert str(scene.state.error).startswith("a: ValueError: no")
    assert "; c: RuntimeError: xxx" in str(scene.state.error)


def test_a_hook_that_is_out_of_time_is_recorded_as_failed_and_can_do_nothing_more() -> None:
    release, ended = threading.Event(), threading.Event()
    done: list[str] = []

    def hangs(_: Run, fx: FinishedEffects) -> None:
        release.wait(60)
        try:
            fx.once("late", lambda: done.append("late"))
        except Exception as error:  # noqa: BLE001 - it is looked at below
            done.append(type(error).__name__)
        ended.set()

    async def hangs_in_loop(_: Run, __: FinishedEffects) -> None:
        await asyncio.Event().wait()

    scene = Scene(hook(hangs, name="a"), hook(hangs_in_loop, name="b"))
    scene.end()
    scene.tell(timeout_ms=50)
    assert scene.state is not None
    assert (scene.state.outcome, scene.state.error) == (
        HookOutcome.FAILED,
        "a: not done within 0.05 s; b: not done within 0.05 s",
    )
    release.set()
    assert ended.wait(60)
    assert done == ["HookEndedError"]


# --- delivery ---


def test_a_run_that_goes_on_or_was_made_before_there_were_hooks_is_not_told() -> None:
    heard = Heard()
    going, of_old = Scene(hook(heard.sync)), Scene(hook(heard.sync), under_contract=False)
    going.tell()
    of_old.drive()
    of_old.tell()
    assert heard.runs == []
    assert of_old.run.status is RunStatus.COMPLETED


def test_a_hook_whose_outcome_is_recorded_is_not_told_again() -> None:
    heard = Heard()
    scene = Scene(hook(heard.sync))
    scene.drive()
    scene.tell()
    assert len(heard.runs) == 1


class ForgetsOnce(MemoryCoordinationStore):
    """Loses the first outcome, as a process does that dies just before it is recorded."""

    has_forgotten = False

    async def record_finished_hook(self, run_id: RunId, state: FinishedHookState) -> Run:
        if not self.has_forgotten:
            self.has_forgotten = True
            raise StorageError("the disk is full")
        return await super().record_finished_hook(run_id, state)


def test_until_its_outcome_is_recorded_a_hook_is_told_again_and_repeats_no_effect() -> None:
    told: list[str] = []
    effects: list[str] = []
    results: list[JsonValue] = []

    def send(key: str) -> str:
        effects.append(key)
        return f"sent {key}"

    def notify(_: Run, fx: FinishedEffects) -> None:
        told.append(fx.idempotency_key)
        results.extend(fx.once(key, partial(send, key)) for key in ("mail", "chat"))

    scene = Scene(hook(notify), store=ForgetsOnce(FakeClock()))
    scene.drive()  # the step that ends the run is tried again
    assert told == ["run-1/finished/h"] * 2
    assert effects == ["mail", "chat"]
    assert results == ["sent mail", "sent chat"] * 2
    assert scene.state is not None
    assert scene.state.outcome is HookOutcome.SUCCEEDED


class Dies(BaseException):
    """The process ends inside a hook."""


def test_a_hook_that_always_takes_the_process_down_is_given_up_after_three_deliveries() -> None:
    told: list[str] = []

    async def kills(run: Run, _: FinishedEffects) -> None:
        told.append(run.run_id)
        raise Dies

    scene = Scene(hook(kills))
    scene.end()
    for _ in range(3):
        with pytest.raises(Dies):
            scene.tell()
        assert scene.state is None
    scene.tell()
    assert len(told) == 3
    assert scene.state is not None
    assert scene.state.outcome is HookOutcome.FAILED
    assert str(scene.state.error).startswith("3 deliveries had no outcome")
    assert scene.run.status is RunStatus.COMPLETED


def boundaries(*, fails: bool) -> int:
    point = CrashPoint()
    Scene(fails=fails).drive(point)
    return point.passed


@pytest.mark.parametrize(
    ("fails", "crash_at"), [(fails, at) for fails in (False, True) for at in range(boundaries(fails=fails))]
)
def test_a_crash_at_any_boundary_loses_no_delivery_and_repeats_no_effect(fails: bool, crash_at: int) -> None:
    effects: list[str] = []

    async def notify(run: Run, fx: FinishedEffects) -> None:
        await fx.once("mail", lambda: effects.append(run.status.value))

    scene = Scene(hook(notify), fails=fails)
    with pytest.raises(Crash):
        asyncio.run(drive(coordination_runner(), scene.deps, DATA, journal=scene.journal, crash=CrashPoint(crash_at)))
    scene.drive()
    assert effects == ["failed" if fails else "completed"]
    assert scene.state is not None
    assert scene.state.outcome is HookOutcome.SUCCEEDED


# --- effects ---


async def as_value(value: JsonValue) -> JsonValue:
    return value


@pytest.mark.parametrize("result", [None, 0, {"id": [1, None]}, "x"])
@pytest.mark.parametrize("is_async", [False, True])
def test_an_effect_gives_its_result_now_and_at_every_later_delivery(result: JsonValue, is_async: bool) -> None:
    given: list[JsonValue] = []
    happened: list[str] = []

    def effect() -> JsonValue:
        happened.append("now")
        return result

    async def async_effect() -> JsonValue:
        return effect()

    async def in_loop(_: Run, fx: FinishedEffects) -> None:
        given.extend([await fx.once("a", async_effect), await fx.once("a", async_effect)])

    def in_thread(_: Run, fx: FinishedEffects) -> None:
        given.extend([fx.once("a", effect), fx.once("a", effect)])

    scene = Scene(hook(in_loop if is_async else in_thread))
    scene.end()
    scene.tell()
    assert given == [result, result]
    assert happened == ["now"]


def test_hooks_do_not_share_keys() -> None:
    effects: list[str] = []
    first_is_done = threading.Event()

    def first(_: Run, fx: FinishedEffects) -> None:
        fx.once("mail", lambda: effects.append("first"))
        first_is_done.set()

    def second(_: Run, fx: FinishedEffects) -> None:
        assert first_is_done.wait(60)
        fx.once("mail", lambda: effects.append("second"))

    scene = Scene(hook(first, name="a"), hook(second, name="b"))
    scene.end()
    scene.tell(timeout_ms=60_000)
    assert effects == ["first", "second"]


def test_an_effect_that_fails_is_not_remembered() -> None:
    tries: list[int] = []

    def notify(_: Run, fx: FinishedEffects) -> None:
        def send() -> int:
            tries.append(1)
            if len(tries) == 1:
                raise OSError("down")
            return len(tries)

        try:
            fx.once("mail", send)
        except OSError:
            fx.once("mail", send)

    scene = Scene(hook(notify))
    scene.drive()
    assert scene.state is not None
    assert (scene.state.outcome, len(tries)) == (HookOutcome.SUCCEEDED, 2)


@pytest.mark.parametrize(
    ("use", "error"),
    [
        (lambda fx: fx.once("", lambda: 1), "h: an effect needs a key, such as fx.once('mail', send)"),
        (lambda fx: fx.once("a", lambda: as_value(1)), "h: the effect 'a' is async: make the hook async as well"),
        (lambda fx: fx.once("a", object), "h: cannot be stored as JSON"),
    ],
)
def test_a_misuse_is_said_in_the_outcome(use: Callable[[FinishedEffects], Any], error: str) -> None:
    scene = Scene(hook(lambda _, fx: use(fx)))
    scene.drive()
    assert scene.state is not None
    assert str(scene.state.error).startswith(error)


def test_hooks_work_at_the_same_time_within_one_limit() -> None:
    both = threading.Barrier(2)

    def meets(_: Run, __: FinishedEffects) -> None:
        both.wait(30)  # would break if the second came after the first

    scene = Scene(hook(meets, name="a"), hook(meets, name="b"))
    scene.end()
    scene.tell(timeout_ms=60_000)
    assert scene.state is not None
    assert scene.state.outcome is HookOutcome.SUCCEEDED
