"""Limits of a run, and the fence around results, at the store: too large to reach through real functions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from rawr.execution.embedded.fragment import fragment
from rawr.execution.embedded.functions import Concurrency, RegisteredFunction, Trigger
from rawr.execution.embedded.ingestion import new_event
from rawr.execution.embedded.model import Claim, EngineRun, EngineRunStatus, Lease, NewEvent
from rawr.execution.embedded.outcomes import FunctionFinished, OpsAnswered, StepPlanned, StepRan
from rawr.execution.embedded.store import EngineStore
from rawr.execution.ports import OutgoingEvent
from rawr.testing.clock import FakeClock

ME = Lease(owner="me", until_ms=10**15)


def with_claim(root: Path, scenario: Callable[[EngineStore, Claim], Awaitable[None]]) -> EngineRun:
    """Let `scenario` work on the first call of one run; the run as it is then."""

    async def whole() -> EngineRun:
        store = EngineStore(root / "engine.sqlite", clock=FakeClock(), backoff=lambda _attempt: 1000)
        trigger = Trigger(event_name="go")
        await store.register("app", [RegisteredFunction(fn_id="fn", name="fn", max_attempts=3, triggers=(trigger,))])
        body = fragment({"name": "go", "data": {}})
        event = NewEvent(ulid=store.new_ulid(), event_id="e", name="go", of_function=None, body=body)
        await store.accept([event], route_now=True)
        try:
            (claim,) = await store.claim(ME, {"fn": ""}, 10)
            await scenario(store, claim)
            (run,) = await store.runs(10)
        finally:
            store.close()
        return run

    return asyncio.run(whole())


@pytest.mark.parametrize(
    ("steps", "size_bytes", "reason"),
    [
        (1001, 1, "the run has more than 1000 steps"),
        (8, 4 * 1024 * 1024, "the run's step results have 33554520 bytes; the limit is 33554432"),
    ],
)
def test_a_run_that_grows_without_end_is_stopped_with_a_reason(
    tmp_path: Path, steps: int, size_bytes: int, reason: str
) -> None:
    memo = fragment({"data": "x" * size_bytes})

    async def scenario(store: EngineStore, claim: Claim) -> None:
        ops = tuple(StepRan(step_id=str(number), name="s", memo=memo) for number in range(steps))
        await store.settle(claim, OpsAnswered(ops=ops), next_lease=None)

    run = with_claim(tmp_path, scenario)
    assert run.status is EngineRunStatus.FAILED
    assert run.error is not None
    assert run.error.message == reason


def test_the_result_of_a_claim_counts_once(tmp_path: Path) -> None:
    async def scenario(store: EngineStore, claim: Claim) -> None:
        first = await store.settle(claim, FunctionFinished(output=fragment("first")), next_lease=None)
        second = await store.settle(claim, FunctionFinished(output=fragment("second")), next_lease=None)
        assert (first.stale, second.stale) == (False, True)

    assert with_claim(tmp_path, scenario).output == "first"


def test_the_result_of_a_lost_lease_is_dropped(tmp_path: Path) -> None:
    async def scenario(store: EngineStore, claim: Claim) -> None:
        assert await store.reclaim(dead=["me"], alive=[]) == 1
        (again,) = await store.claim(Lease(owner="other", until_ms=10**15), {"fn": ""}, 10)
        assert (again.call.attempt, again.generation) == (claim.call.attempt, claim.generation + 1)
        late = await store.settle(claim, FunctionFinished(output=fragment("late")), next_lease=None)
        assert late.stale
        assert not (await store.settle(again, FunctionFinished(output=fragment("good")), next_lease=None)).stale

    assert with_claim(tmp_path, scenario).output == "good"


def test_a_step_that_is_remembered_is_neither_planned_again_nor_changed(tmp_path: Path) -> None:
    async def scenario(store: EngineStore, claim: Claim) -> None:
        first = StepRan(step_id="s", name="s", memo=fragment({"data": 1}))
        settled = await store.settle(claim, OpsAnswered(ops=(first,)), next_lease=ME)
        assert settled.next_claim is not None
        second = StepRan(step_id="s", name="s", memo=fragment({"data": 2}))
        settled = await store.settle(settled.next_claim, OpsAnswered(ops=(second,)), next_lease=ME)
        assert settled.next_claim is not None
        assert settled.next_claim.call.memory.memos().value() == {"s": {"data": 1}}

    with_claim(tmp_path, scenario)


def test_a_call_is_not_claimed_for_functions_of_other_processes(tmp_path: Path) -> None:
    async def scenario(store: EngineStore, claim: Claim) -> None:
        await store.release("me")
        assert await store.claim(ME, {"another": ""}, 10) == []
        assert [again.job_id for again in await store.claim(ME, {"fn": ""}, 10)] == [claim.job_id]

    with_claim(tmp_path, scenario)


def test_jobs_under_which_the_host_died_twice_are_worked_on_one_at_a_time(tmp_path: Path) -> None:
    async def scenario(store: EngineStore, claim: Claim) -> None:
        await store.settle(claim, OpsAnswered(ops=tuple(planned(name) for name in "abc")), next_lease=None)
        for _ in range(2):
            assert len(await store.claim(ME, {"fn": ""}, 10)) == 3
            await store.reclaim(dead=["me"], alive=[])
        for _ in range(3):
            (suspect,) = await store.claim(ME, {"fn": ""}, 10)
            assert await store.claim(ME, {"fn": ""}, 10) == []
            ran = StepRan(step_id=suspect.call.step_id, name="s", memo=fragment({"data": 1}))
            await store.settle(suspect, OpsAnswered(ops=(ran,)), next_lease=None)
        (discovery,) = await store.claim(ME, {"fn": ""}, 10)
        assert discovery.call.memory.steps == len(discovery.call.memory.stack().value()) == 3

    with_claim(tmp_path, scenario)


def planned(name: str) -> StepPlanned:
    return StepPlanned(step_id=name, name=name, race=False)


USER, KIND = "event.data.user", "event.data.kind"


def on_limited(root: Path, scenario: Callable[[EngineStore], Awaitable[None]], *limits: Concurrency) -> None:
    """Let `scenario` work on a store whose function `fn`, on event `go`, has these limits."""

    async def whole() -> None:
        store = EngineStore(root / "engine.sqlite", clock=FakeClock(), backoff=lambda _attempt: 1000)
        function = RegisteredFunction(
            fn_id="fn", name="fn", max_attempts=3, triggers=(Trigger(event_name="go"),), concurrency=limits
        )
        try:
            await store.register("app", [function])
            await scenario(store)
        finally:
            store.close()

    asyncio.run(whole())


async def send(store: EngineStore, **data: str) -> None:
    event = new_event(OutgoingEvent(name="go", data=data), ulid=store.new_ulid(), now_ms=FakeClock().now_ms())
    await store.accept([event], route_now=True)


async def claimed(store: EngineStore) -> list[Claim]:
    return await store.claim(ME, {"fn": ""}, 10)


def test_when_a_call_that_had_its_turn_is_cancelled_the_turn_goes_to_the_next(tmp_path: Path) -> None:
    async def scenario(store: EngineStore) -> None:
        for _ in range(3):
            await send(store)
        (first,) = await claimed(store)
        assert await claimed(store) == []
        await store.settle(first, FunctionFinished(output=fragment(1)), next_lease=None)  # the second is called
        third, second, _ = await store.runs(10)
        await store.cancel(second.run_id, "not needed")
        assert [claim.run_id for claim in await claimed(store)] == [third.run_id]

    on_limited(tmp_path, scenario, Concurrency(limit=1))


def test_a_call_whose_turn_it_is_passes_it_on_when_another_limit_holds_it_back(tmp_path: Path) -> None:
    async def scenario(store: EngineStore) -> None:
        await send(store, user="a", kind="x")
        (first,) = await claimed(store)
        await send(store, user="b", kind="x")
        await send(store, user="c", kind="x")
        assert await claimed(store) == []  # both wait for kind x
        await send(store, user="b", kind="y")
        assert len(await claimed(store)) == 1
        await store.settle(first, FunctionFinished(output=fragment(1)), next_lease=None)
        (next_one,) = await claimed(store)
        assert next_one.call.events[0].value()["data"] == {"user": "c", "kind": "x"}

    on_limited(tmp_path, scenario, Concurrency(limit=1, key=USER), Concurrency(limit=1, key=KIND))
