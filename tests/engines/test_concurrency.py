"""How many calls are made at once, how often a key may begin, and how long a run may take."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRunStatus

TRIGGER = inngest.TriggerEvent(event="go")
MINUTE_MS = 60_000


class Gauge:
    """How many calls are inside at once, by name."""

    def __init__(self) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def pass_through(self, *names: str) -> None:
        self.now.update(names)
        for name in names:
            self.most[name] = max(self.most[name], self.now[name])
        await asyncio.sleep(0.002)
        self.now.subtract(names)


def measured(gauge: Gauge, fn_ids: tuple[str, ...] = ("fn",), steps: int = 2, **options: Any) -> Any:
    async def fn(ctx: inngest.Context) -> None:
        user = str(ctx.event.data.get("user"))
        names = ("all", user, f"{ctx.event.name}", f"{ctx.event.name} {user}")
        for number in range(steps):
            await ctx.step.run(str(number), gauge.pass_through, *names)

    return lambda client: [
        client.create_function(fn_id=fn_id, trigger=inngest.TriggerEvent(event=fn_id), **options)(fn)
        for fn_id in fn_ids
    ]


async def all_completed(bench: Any, count: int) -> None:
    await bench.engine.run_due()
    runs = await bench.engine.runs(1000)
    assert [run.status for run in runs] == [EngineRunStatus.COMPLETED] * count


def test_a_function_makes_no_more_calls_at_once_than_its_limit(on_bench: Any) -> None:
    gauge = Gauge()

    async def scenario(bench: Any) -> None:
        for _ in range(10):
            await bench.send("fn")
        await all_completed(bench, 10)

    on_bench(measured(gauge, concurrency=[inngest.Concurrency(limit=3)]), scenario)
    assert gauge.most["all"] == 3


def test_without_a_limit_calls_are_made_together(on_bench: Any) -> None:
    gauge = Gauge()

    async def scenario(bench: Any) -> None:
        for _ in range(10):
            await bench.send("fn")
        await all_completed(bench, 10)

    on_bench(measured(gauge), scenario)
    assert gauge.most["all"] == 10


def test_a_limit_with_a_key_holds_for_each_of_its_values(on_bench: Any) -> None:
    gauge = Gauge()

    async def scenario(bench: Any) -> None:
        for number in range(12):
            await bench.send("fn", user="abc"[number % 3])
        await all_completed(bench, 12)

    on_bench(measured(gauge, concurrency=[inngest.Concurrency(limit=1, key="event.data.user")]), scenario)
    assert [gauge.most[user] for user in "abc"] == [1, 1, 1]
    assert gauge.most["all"] == 3


def test_two_limits_hold_together(on_bench: Any) -> None:
    gauge = Gauge()
    limits = [inngest.Concurrency(limit=3), inngest.Concurrency(limit=2, key="event.data.user")]

    async def scenario(bench: Any) -> None:
        for number in range(16):
            await bench.send("fn", user="abcd"[number % 4])
        await all_completed(bench, 16)

    on_bench(measured(gauge, concurrency=limits), scenario)
    assert gauge.most["all"] == 3
    assert max(gauge.most[user] for user in "abcd") <= 2


@pytest.mark.parametrize(("scope", "together"), [("env", 2), ("account", 2), ("fn", 4)])
def test_a_limit_in_a_wider_scope_is_shared_by_functions(on_bench: Any, scope: Any, together: int) -> None:
    gauge = Gauge()
    limit = inngest.Concurrency(limit=2, key="event.data.user", scope=scope)

    async def scenario(bench: Any) -> None:
        for _ in range(5):
            await bench.send("one", user="a")
            await bench.send("two", user="a")
        await all_completed(bench, 10)

    on_bench(measured(gauge, ("one", "two"), concurrency=[limit]), scenario)
    assert gauge.most["a"] == together


def test_three_engines_together_keep_a_limit(on_bench: Any) -> None:
    gauge = Gauge()

    async def scenario(bench: Any) -> None:
        others = [bench.another() for _ in range(2)]
        for engine in others:
            await engine.start()
        for _ in range(20):
            await bench.send("fn")
        async with asyncio.timeout(30):
            while await bench.engine.pending_count():
                await bench.engine.run_due()
                await asyncio.sleep(0.005)
        await all_completed(bench, 20)
        for engine in others:
            await engine.stop(1)

    on_bench(measured(gauge, concurrency=[inngest.Concurrency(limit=2)]), scenario)
    assert gauge.most["all"] == 2


def test_sleeping_runs_take_no_room(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> str:
        await ctx.step.wait_for_event("w", event="news", timeout=MINUTE_MS)
        return "done"

    async def scenario(bench: Any) -> None:
        for _ in range(3):
            await bench.send()
        assert await bench.engine.run_due() == 3
        await bench.send("news")
        await all_completed(bench, 3)

    limit = [inngest.Concurrency(limit=1)]
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, concurrency=limit)(fn)], scenario)


@pytest.mark.parametrize("how", ["cancel", "die", "stop"])
def test_room_is_made_however_a_call_ends(on_bench: Any, how: str) -> None:
    async def fn(ctx: inngest.Context) -> None:
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(60)

    begun = asyncio.Event()

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.send()
        working = bench.another()
        await working.start()
        await begun.wait()
        assert await bench.engine.run_due() == 0  # the second is parked
        if how == "cancel":
            (first, *_) = reversed(await bench.engine.runs(10))
            await bench.engine.cancel(first.run_id)
        elif how == "die":
            for task in [*working._worker._loops, *working._worker._calls]:
                task.cancel()
            working._slot.free()
        else:
            await working.stop(0.01)
        async with asyncio.timeout(30):
            while EngineRunStatus.COMPLETED not in {run.status for run in await bench.engine.runs(10)}:
                await bench.engine.run_due()
                await asyncio.sleep(0.005)
        await working.stop(0)

    limit = [inngest.Concurrency(limit=1)]
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, concurrency=limit)(fn)], scenario)


def test_a_limit_that_is_raised_lets_those_go_that_wait(on_bench: Any) -> None:
    gauge = Gauge()

    async def scenario(bench: Any) -> None:
        for _ in range(6):
            await bench.send("fn")
        worker = bench.engine._worker
        await bench.engine._store.claim(worker.lease(), worker._serves, 10)  # one is taken, five are parked
        bench.wire = type(bench.wire)(measured(gauge, concurrency=[inngest.Concurrency(limit=5)]))
        raised = bench.another()
        await raised.prepare()
        assert await bench.engine.run_due() == 5 * 3
        assert gauge.most["all"] == 4  # and the one that was taken
        await raised.stop(0)

    on_bench(measured(gauge, concurrency=[inngest.Concurrency(limit=1)]), scenario)


def test_an_idempotency_key_starts_one_run_in_24_hours_for_each_value(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.event.data.get("order")

    async def scenario(bench: Any) -> None:
        for order in (1, 1, 2, 1):
            await bench.send(order=order)
        await bench.send()
        await bench.send()  # without the field there is nothing to be told apart by
        await bench.engine.run_due()
        assert [run.output for run in reversed(await bench.engine.runs(10))] == [1, 2, None, None]
        bench.clock.advance(24 * 60 * MINUTE_MS - 1)
        await bench.send(order=1)
        await bench.engine.run_due()
        assert len(await bench.engine.runs(10)) == 4
        bench.clock.advance(1)
        await bench.send(order=1)
        await bench.engine.run_due()
        assert len(await bench.engine.runs(10)) == 5

    key = "event.data.order"
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, idempotency=key)(fn)], scenario)


def test_a_run_that_does_not_start_in_time_is_cancelled(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> str:
        return "started"

    async def scenario(bench: Any) -> None:
        await bench.send()
        bench.clock.advance(MINUTE_MS - 1)
        assert await bench.engine.run_due() == 1
        await bench.send()
        bench.clock.advance(MINUTE_MS)
        assert await bench.engine.run_due() == 0
        late, in_time = await bench.engine.runs(10)
        assert (in_time.status, in_time.output) == (EngineRunStatus.COMPLETED, "started")
        assert late.status is EngineRunStatus.CANCELLED
        assert late.error.message == "it did not start in time"

    timeouts = inngest.Timeouts(start=MINUTE_MS)
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, timeouts=timeouts)(fn)], scenario)


def test_a_run_that_does_not_finish_in_time_is_cancelled(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> str:
        await ctx.step.wait_for_event("w", event="news", timeout=10 * MINUTE_MS)
        return "finished"

    async def scenario(bench: Any) -> None:
        await bench.send()
        bench.clock.advance(5 * MINUTE_MS)  # waiting to start does not count
        await bench.engine.run_due()
        bench.clock.advance(MINUTE_MS - 1)
        await bench.engine.run_due()
        assert (await bench.only_run()).status is EngineRunStatus.RUNNING
        bench.clock.advance(1)
        await bench.engine.run_due()
        run = await bench.only_run()
        assert run.status is EngineRunStatus.CANCELLED
        assert run.error.message == "it did not finish in time"
        assert await bench.engine.pending_count() == 0

    timeouts = inngest.Timeouts(finish=MINUTE_MS)
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, timeouts=timeouts)(fn)], scenario)


def test_parallel_steps_of_one_run_keep_the_limit_too(on_bench: Any) -> None:
    gauge = Gauge()

    async def fn(ctx: inngest.Context) -> None:
        branches = tuple(partial(ctx.step.run, str(n), gauge.pass_through, "all") for n in range(6))
        await ctx.group.parallel(branches)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await all_completed(bench, 1)

    limit = [inngest.Concurrency(limit=2)]
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, concurrency=limit)(fn)], scenario)
    assert gauge.most["all"] == 2
