"""Several engines on one file, engines that die or hang, and engines that stop."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.ports import IngressResponse
from rawr.storage.faults import StorageFullError

TRIGGER = inngest.TriggerEvent(event="go")
LEASE_MS = 30_000


def one_function(handler: Any, **options: Any) -> Any:
    return lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, **options)(handler)]


async def until_done(engine: EmbeddedEngine) -> None:
    while await engine.pending_count():  # noqa: ASYNC110 - the engine is the thing under test
        await asyncio.sleep(0.005)


class Hanging:
    """A wire on which all calls after the first few never come back."""

    def __init__(self, wire: Any, let_through: int) -> None:
        self._wire = wire
        self._left = let_through
        self.hung = asyncio.Event()

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        self._left -= method == "POST"
        if method == "POST" and self._left < 0:
            self.hung.set()
            await asyncio.Event().wait()
        answer: IngressResponse = await self._wire(method, query, headers, body)
        return answer


async def hang_once(bench: Any, let_through: int = 0) -> EmbeddedEngine:
    """An engine that has claimed what was due, and never answers."""
    hanging = Hanging(bench.wire, let_through)
    engine: EmbeddedEngine = bench.another(hanging)
    await engine.prepare()
    tasks.append(asyncio.create_task(engine.run_due()))
    await hanging.hung.wait()
    return engine


tasks: list[asyncio.Task[int]] = []


@pytest.fixture(autouse=True)
def no_tasks_left() -> Any:
    tasks.clear()
    yield
    tasks.clear()


async def end_hanging(*engines: EmbeddedEngine) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for engine in engines:
        await engine.stop(0)


def test_a_live_engine_keeps_its_job_until_the_lease_ends_and_then_the_same_attempt_is_delivered_again(
    on_bench: Any,
) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.attempt

    async def scenario(bench: Any) -> None:
        await bench.send()
        hung = await hang_once(bench)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(LEASE_MS)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1
        assert (await bench.only_run()).output == 0
        await end_hanging(hung)

    on_bench(one_function(fn), scenario)


def test_the_job_of_a_dead_engine_goes_on_at_once(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.attempt

    async def scenario(bench: Any) -> None:
        await bench.send()
        hung = await hang_once(bench)
        hung._slot.free()  # what the kernel does when the process dies
        assert await bench.engine.run_due() == 1
        assert (await bench.only_run()).output == 0
        await end_hanging(hung)

    on_bench(one_function(fn), scenario)


def test_a_new_engine_in_the_slot_of_a_dead_one_takes_over_its_jobs_at_its_start(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return "taken over"

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.stop(0)
        hung = await hang_once(bench)
        hung._slot.free()
        bench.engine = bench.another()
        await bench.engine.prepare()
        assert (await bench.finish()).output == "taken over"
        await end_hanging(hung)

    on_bench(one_function(fn), scenario)


@pytest.mark.parametrize("in_step", [True, False])
def test_a_job_whose_host_dies_five_times_is_given_up(on_bench: Any, in_step: bool) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        if in_step:
            pair = (partial(ctx.step.run, "deadly", asyncio.sleep, 0), partial(ctx.step.run, "fine", asyncio.sleep, 0))
            await ctx.group.parallel(pair)

    async def scenario(bench: Any) -> None:
        await bench.send()
        died: list[EmbeddedEngine] = []
        for _ in range(5):
            died.append(await hang_once(bench, let_through=1 if in_step and not died else 0))
            died[-1]._slot.free()
        run = await bench.finish()
        assert run.status is EngineRunStatus.FAILED
        assert run.error is not None
        assert "the host process died 5 times" in run.error.message
        await end_hanging(*died)

    on_bench(one_function(fn), scenario)


def test_three_engines_on_one_file_run_every_step_exactly_once(on_bench: Any) -> None:
    ran: Counter[str] = Counter()

    async def fn(ctx: inngest.Context) -> Any:
        async def note(name: str) -> None:
            ran[f"{ctx.run_id} {name}"] += 1
            await asyncio.sleep(0.001)

        await ctx.step.run("first", note, "first")
        branches = tuple(partial(ctx.step.run, name, note, name) for name in "abc")
        await ctx.group.parallel(branches, parallel_mode=inngest.ParallelMode.RACE)
        await ctx.step.run("last", note, "last")

    async def scenario(bench: Any) -> None:
        for _ in range(25):
            await bench.send()
        await bench.engine.stop(0)
        engines = [bench.another() for _ in range(3)]
        for engine in engines:
            await engine.start()
        bench.engine = engines[0]
        for _ in range(25):
            await bench.send()
        await until_done(engines[1])
        runs = await engines[2].runs(100)
        assert [run.status for run in runs] == [EngineRunStatus.COMPLETED] * 50
        for engine in engines[1:]:
            await engine.stop(1)

    on_bench(one_function(fn), scenario)
    assert len(ran) == 50 * 5
    assert set(ran.values()) == {1}


def test_an_event_sent_by_one_process_wakes_the_engine_of_another(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return "woken"

    async def scenario(bench: Any) -> None:
        working = bench.another()
        await working.start()
        await bench.send()
        async with asyncio.timeout(5):
            await until_done(working)
        assert (await bench.only_run()).output == "woken"
        await working.stop(1)

    on_bench(one_function(fn), scenario)


def test_stopping_lets_calls_under_way_end(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        begun.set()
        await asyncio.sleep(0.05)
        return "ended"

    begun = asyncio.Event()

    async def scenario(bench: Any) -> None:
        await bench.send()
        working = bench.another()
        await working.start()
        await begun.wait()
        await working.stop(5)
        assert (await bench.only_run()).output == "ended"

    on_bench(one_function(fn), scenario)


def test_stopping_hands_back_what_does_not_end_and_it_costs_no_attempt(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(60)
        return ctx.attempt

    begun = asyncio.Event()

    async def scenario(bench: Any) -> None:
        await bench.send()
        working = bench.another()
        await working.start()
        await begun.wait()
        await working.stop(0.01)
        assert await bench.engine.run_due() == 1
        assert (await bench.only_run()).output == 0

    on_bench(one_function(fn), scenario)


def test_an_engine_that_could_not_start_can_be_stopped(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return None

    async def refuse(*_call: Any) -> IngressResponse:
        return IngressResponse(status=403, headers={}, body=b"forbidden")

    async def scenario(bench: Any) -> None:
        engine = bench.another(refuse)
        with pytest.raises(Exception, match="could not be registered"):
            await engine.start()
        await engine.stop(0)

    on_bench(one_function(fn), scenario)


def test_a_disk_that_refuses_for_a_while_delays_results_and_loses_none(
    on_bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: Counter[str] = Counter()

    async def fn(ctx: inngest.Context) -> Any:
        async def note() -> str:
            ran["step"] += 1
            return "kept"

        return await ctx.step.run("a", note)

    async def scenario(bench: Any) -> None:
        await bench.send()
        store = bench.engine._store
        settle, refusals = store.settle, iter([True, True, False, True, False])

        async def refusing(*arguments: Any, **named: Any) -> Any:
            if next(refusals):
                raise StorageFullError("disk full")
            return await settle(*arguments, **named)

        monkeypatch.setattr(store, "settle", refusing)
        assert (await bench.finish()).output == "kept"
        assert next(refusals, None) is None

    on_bench(one_function(fn), scenario)
    assert ran == {"step": 1}


def versions(answer: str, **options: Any) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.wait_for_event("w", event="end", timeout=60_000)
        return answer

    return one_function(fn, **options)


def with_functions(bench: Any, functions: Any) -> EmbeddedEngine:
    wire, bench.wire = bench.wire, type(bench.wire)(functions)
    engine: EmbeddedEngine = bench.another()
    bench.wire = wire
    return engine


def test_a_run_goes_on_in_the_version_that_it_began_with_as_long_as_somebody_has_it(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        newer = with_functions(bench, versions("new", retries=1))
        await newer.prepare()
        await bench.send()
        assert await bench.engine.run_due() == 0  # what starts now is for the version that was registered last
        assert await newer.run_due() == 1
        await bench.send("end")
        assert await newer.run_due() == 1
        assert await bench.engine.run_due() == 1
        assert sorted(run.output for run in await bench.engine.runs(10)) == ["new", "old"]
        await newer.stop(0)

    on_bench(versions("old"), scenario)


@pytest.mark.parametrize("how", ["stops", "dies"])
def test_a_run_whose_version_is_gone_goes_on_in_another_one(on_bench: Any, how: str) -> None:
    async def scenario(bench: Any) -> None:
        newer = with_functions(bench, versions("new", retries=1))
        await newer.prepare()
        await bench.send()
        assert await newer.run_due() == 1
        await bench.send("end")
        assert await bench.engine.run_due() == 0
        if how == "stops":
            await newer.stop(0)
        else:
            newer._slot.free()  # what the kernel does when the process dies
        assert await bench.engine.run_due() == 1
        assert (await bench.only_run()).output == "old"
        await newer.stop(0)

    on_bench(versions("old"), scenario)


def test_when_the_last_registrant_is_gone_the_others_functions_count_again(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        newer = with_functions(bench, versions("new", idempotency="event.data.n"))
        await newer.prepare()
        await newer.stop(0)
        await bench.engine.sweep()
        for _ in range(2):
            await bench.send(n=1)
        assert await bench.engine.run_due() == 2  # no idempotency key in the version that is left

    on_bench(versions("old"), scenario)


def test_an_engine_that_drains_makes_no_call_that_has_not_had_its_turn(on_bench: Any) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def turn() -> None:
        asked.set()
        await never.wait()

    async def scenario(bench: Any) -> None:
        waiting = bench.another(turn=turn)
        await waiting.start()
        await bench.send()
        await asyncio.wait_for(asked.wait(), 60)
        stopping = asyncio.create_task(waiting.stop(60))
        await asyncio.sleep(0)
        never.set()
        await stopping
        assert bench.wire.seen == []
        assert await bench.engine.run_due() == 1

    on_bench(versions("only"), scenario)
