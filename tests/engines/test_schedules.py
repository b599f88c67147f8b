"""Crons of real functions, and a wall clock that is set forwards and backwards."""

from __future__ import annotations

import asyncio
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRunStatus
from rawr.testing.clock import FakeClock

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def by_cron(cron: str, jitter: str | None = None, **options: Any) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        return [ctx.event.name, ctx.event.data["cron"], ctx.event.data["scheduledAt"]]

    trigger = inngest.TriggerCron(cron=cron, jitter=jitter)
    return lambda client: [client.create_function(fn_id="fn", trigger=trigger, **options)(fn)]


async def outputs(bench: Any) -> list[Any]:
    return [run.output for run in reversed(await bench.engine.runs(1000))]


def test_a_cron_starts_a_run_at_each_of_its_ticks(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        assert await bench.engine.pending_count() == 0
        bench.clock.advance(5 * MINUTE_MS - 1)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1
        assert await bench.engine.run_due() == 0
        bench.clock.advance(5 * MINUTE_MS)
        assert await bench.engine.run_due() == 1
        name = "inngest/scheduled.timer"
        ticks = ["2026-01-01T00:05:00.000Z", "2026-01-01T00:10:00.000Z"]
        assert await outputs(bench) == [[name, "*/5 * * * *", tick] for tick in ticks]

    on_bench(by_cron("*/5 * * * *"), scenario)


def test_all_ticks_that_were_missed_are_one_run_and_the_next_comes_at_its_time(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        bench.clock.advance(61 * MINUTE_MS)
        bench.engine = bench.another()
        await bench.engine.prepare()
        assert await bench.engine.run_due() == 1
        bench.clock.advance(3 * MINUTE_MS)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(MINUTE_MS)
        assert await bench.engine.run_due() == 1

    on_bench(by_cron("*/5 * * * *"), scenario)


def test_a_tick_that_was_missed_counts_although_the_function_has_changed_in_something_else(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        bench.clock.advance(6 * MINUTE_MS)
        bench.wire = type(bench.wire)(by_cron("*/5 * * * *", retries=1))
        bench.engine = bench.another()
        await bench.engine.prepare()
        assert await bench.engine.run_due() == 1

    on_bench(by_cron("*/5 * * * *"), scenario)


def test_two_engines_start_one_run_for_a_tick(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        other = bench.another()
        await other.prepare()
        for _ in range(5):
            bench.clock.advance(MINUTE_MS)
            await asyncio.gather(bench.engine.run_due(), other.run_due())
        assert len(await outputs(bench)) == 5
        await other.stop(0)

    on_bench(by_cron("* * * * *"), scenario)


def test_jitter_delays_each_tick_within_its_bound_and_loses_none(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        late: list[int] = []
        for minute in range(1, 20):
            calls = [await step(bench) for _ in range(6)]
            late += [index for index, made in enumerate(calls) if made]
            assert len(await outputs(bench)) in (minute - 1, minute)
        assert len(set(late)) > 1

    async def step(bench: Any) -> int:
        bench.clock.advance(10_000)
        made: int = await bench.engine.run_due()
        return made

    on_bench(by_cron("* * * * *", jitter="50s"), scenario)


def test_a_cron_that_is_no_longer_registered_starts_nothing(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        bench.wire = type(bench.wire)(by_cron("0 * * * *"))
        other = bench.another()
        await other.prepare()
        bench.clock.advance(59 * MINUTE_MS)
        assert await other.run_due() == 0
        bench.clock.advance(MINUTE_MS)
        assert await other.run_due() == 1
        await other.stop(0)

    on_bench(by_cron("*/5 * * * *"), scenario)


def test_a_clock_that_is_set_back_delays_neither_crons_nor_work_that_is_due(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> str:
        if ctx.event.name == "go" and ctx.attempt == 0:
            raise ValueError("again")
        return ctx.event.name

    def functions(client: inngest.Inngest) -> Any:
        triggers: list[inngest.TriggerCron | inngest.TriggerEvent] = [
            inngest.TriggerEvent(event="go"),
            inngest.TriggerCron(cron="* * * * *"),
        ]
        return [client.create_function(fn_id="fn", trigger=triggers)(fn)]

    async def scenario(bench: Any) -> None:
        steady = FakeClock()
        engine = bench.another(steady=steady)
        await engine.prepare()
        await bench.send()
        await engine.run_due()  # it is tried again in 10 s
        await bench.send()
        bench.clock.advance(-DAY_MS)
        assert await engine.run_due() == 1  # the second event's first try
        bench.clock.advance(10_000)
        steady.advance(10_000)
        assert await engine.run_due() == 2
        bench.clock.advance(50_000)
        steady.advance(50_000)
        assert await engine.run_due() == 1
        assert sorted(await outputs(bench)) == ["go", "go", "inngest/scheduled.timer"]
        await engine.stop(0)

    on_bench(functions, scenario)


@pytest.mark.parametrize("jump_ms", [-DAY_MS, DAY_MS])
def test_a_clock_that_is_set_does_not_take_a_job_from_a_live_engine(on_bench: Any, jump_ms: int) -> None:
    calls: list[str] = []

    async def fn(ctx: inngest.Context) -> str:
        calls.append(ctx.run_id)
        begun.set()
        await may_end.wait()
        return "once"

    begun, may_end = asyncio.Event(), asyncio.Event()

    async def scenario(bench: Any) -> None:
        steady = FakeClock()
        slow, other = bench.another(steady=steady), bench.another(steady=steady)
        await slow.prepare()
        await other.prepare()
        await bench.send()
        working = asyncio.create_task(slow.run_due())
        await begun.wait()
        bench.clock.advance(jump_ms)
        assert await other.run_due() == 0
        steady.advance(1000)
        bench.clock.advance(1000)
        assert await other.run_due() == 0
        may_end.set()
        assert await working == 1
        assert (await bench.only_run()).output == "once"
        await slow.stop(0)
        await other.stop(0)

    on_bench(
        lambda client: [client.create_function(fn_id="fn", trigger=inngest.TriggerEvent(event="go"))(fn)], scenario
    )
    assert len(calls) == 1


def test_a_run_that_a_cron_starts_is_cancelled_like_any_other(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> None:
        await ctx.step.wait_for_event("w", event="never", timeout=DAY_MS)

    def functions(client: inngest.Inngest) -> Any:
        trigger = inngest.TriggerCron(cron="* * * * *")
        cancel = [inngest.Cancel(event="stop")]
        return [client.create_function(fn_id="fn", trigger=trigger, cancel=cancel)(fn)]

    async def scenario(bench: Any) -> None:
        bench.clock.advance(MINUTE_MS)
        await bench.engine.run_due()
        await bench.send("stop")
        assert (await bench.only_run()).status is EngineRunStatus.CANCELLED

    on_bench(functions, scenario)
