"""Which events start runs, when, and in which order: throttle, rate limit, debounce, batch, singleton, priority."""

from __future__ import annotations

from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRunStatus

TRIGGER = inngest.TriggerEvent(event="go")
MINUTE_MS = 60_000
CANCELLED, COMPLETED, RUNNING = EngineRunStatus.CANCELLED, EngineRunStatus.COMPLETED, EngineRunStatus.RUNNING


def numbers(**options: Any) -> Any:
    """A function that returns the `n` of all of its events."""

    async def fn(ctx: inngest.Context) -> Any:
        return [event.data.get("n") for event in ctx.events]

    return lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, **options)(fn)]


async def send_numbers(bench: Any, *values: int, **data: Any) -> None:
    for n in values:
        await bench.send(n=n, **data)


async def outputs(bench: Any) -> list[Any]:
    """What the completed runs returned, in the order in which they ended."""
    runs = await bench.engine.runs(1000)
    done = sorted((run for run in runs if run.status is COMPLETED), key=lambda run: (run.ended_at_ms, run.run_id))
    return [run.output for run in done]


def test_throttled_runs_start_evenly_and_none_is_lost(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, *range(5))
        for started in range(1, 6):
            assert await bench.engine.run_due() == 1
            assert await outputs(bench) == [[n] for n in range(started)]
            assert await bench.engine.is_idle()
            bench.clock.advance(9_999)
            assert await bench.engine.run_due() == 0
            bench.clock.advance(1)

    on_bench(numbers(throttle=inngest.Throttle(limit=6, period=MINUTE_MS)), scenario)


def test_a_throttle_with_burst_and_key_holds_for_each_value(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1, 2, 3, 4, user="a")
        await send_numbers(bench, 5, user="b")
        assert await bench.engine.run_due() == 3
        assert await outputs(bench) == [[1], [2], [5]]
        bench.clock.advance(30_000)
        assert await bench.engine.run_due() == 1
        bench.clock.advance(30_000)
        assert await bench.engine.run_due() == 1
        assert await outputs(bench) == [[1], [2], [5], [3], [4]]

    throttle = inngest.Throttle(limit=2, period=MINUTE_MS, burst=2, key="event.data.user")
    on_bench(numbers(throttle=throttle), scenario)


def test_only_the_start_of_a_run_is_throttled(on_bench: Any) -> None:
    async def give() -> int:
        return 1

    async def fn(ctx: inngest.Context) -> int:
        for name in "abc":
            await ctx.step.run(name, give)
        if ctx.attempt == 0:
            raise ValueError("again")
        return 1

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert await bench.engine.run_due() == 4
        bench.clock.advance(10_000)
        assert await bench.engine.run_due() == 1

    throttle = inngest.Throttle(limit=1, period=60 * MINUTE_MS)
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, throttle=throttle)(fn)], scenario)


def test_throttled_runs_that_are_cancelled_do_not_hold_up_the_others(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, *range(4))
        assert await bench.engine.run_due() == 1
        waiting = [run for run in reversed(await bench.engine.runs(10)) if run.status is EngineRunStatus.QUEUED]
        await bench.engine.cancel(waiting[0].run_id)
        bench.clock.advance(MINUTE_MS)
        await bench.engine.cancel(waiting[1].run_id)
        assert await bench.engine.run_due() == 1
        assert await outputs(bench) == [[0], [3]]

    on_bench(numbers(throttle=inngest.Throttle(limit=1, period=MINUTE_MS)), scenario)


def test_a_rate_limit_drops_what_is_too_much_in_any_period(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1)
        bench.clock.advance(40_000)
        await send_numbers(bench, 2, 3)
        bench.clock.advance(19_999)
        await send_numbers(bench, 4)
        bench.clock.advance(1)
        await send_numbers(bench, 5, 6)
        await bench.engine.run_due()
        assert await outputs(bench) == [[1], [2], [5]]
        assert await bench.engine.pending_count() == 0

    on_bench(numbers(rate_limit=inngest.RateLimit(limit=2, period=MINUTE_MS)), scenario)


def test_a_debounced_run_starts_after_a_quiet_time_with_the_last_event(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for n in range(3):
            await send_numbers(bench, n)
            bench.clock.advance(9_999)
            assert await bench.engine.run_due() == 0
        assert await bench.engine.pending_count() == 1
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1
        await send_numbers(bench, 9)
        bench.clock.advance(10_000)
        await bench.engine.run_due()
        assert await outputs(bench) == [[2], [9]]

    on_bench(numbers(debounce=inngest.Debounce(period=10_000)), scenario)


def test_a_debounce_with_a_timeout_is_not_put_off_for_ever(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for n in range(7):
            await send_numbers(bench, n)
            bench.clock.advance(5_000)
            await bench.engine.run_due()
        assert await outputs(bench) == [[4]]  # 25 s after the first; what came then begins anew
        bench.clock.advance(10_000)
        await bench.engine.run_due()
        assert await outputs(bench) == [[4], [6]]

    on_bench(numbers(debounce=inngest.Debounce(period=10_000, timeout=25_000)), scenario)


def test_a_debounce_with_a_key_keeps_one_event_for_each_value_over_a_restart(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1, 2, user="a")
        await send_numbers(bench, 3, user="b")
        await bench.engine.stop(0)
        bench.clock.advance(10_000)
        bench.engine = bench.another()
        await bench.engine.prepare()
        assert await bench.engine.run_due() == 2
        assert sorted(await outputs(bench)) == [[2], [3]]

    on_bench(numbers(debounce=inngest.Debounce(period=10_000, key="event.data.user")), scenario)


def test_a_batch_starts_when_it_is_full_or_its_time_is_over(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, *range(7))
        assert await bench.engine.run_due() == 2
        assert await outputs(bench) == [[0, 1, 2], [3, 4, 5]]
        bench.clock.advance(9_999)
        assert await bench.engine.run_due() == 0
        assert await bench.engine.pending_count() == 1
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1
        assert await outputs(bench) == [[0, 1, 2], [3, 4, 5], [6]]

    bench = on_bench(numbers(batch_events=inngest.Batch(max_size=3, timeout=10_000)), scenario)
    body = bench.wire.bodies[0]
    assert [event["data"]["n"] for event in body["events"]] == [0, 1, 2]
    assert body["event"] == body["events"][0]


def test_batches_are_made_for_each_key_of_the_events_that_a_condition_picks(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1, 2, user="a")
        await send_numbers(bench, 3, user="b")
        await send_numbers(bench, 50, user="b")
        await bench.engine.run_due()
        assert sorted(await outputs(bench)) == [[1, 2], [50]]
        await send_numbers(bench, 4, user="b")
        await bench.engine.run_due()
        assert sorted(await outputs(bench)) == [[1, 2], [3, 4], [50]]

    batch = inngest.Batch(max_size=2, timeout=10_000, key="event.data.user", if_exp="event.data.n < 10")
    on_bench(numbers(batch_events=batch), scenario)


def test_a_batch_survives_a_restart(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1, 2)
        await bench.engine.stop(0)
        bench.engine = bench.another()
        await bench.engine.prepare()
        await send_numbers(bench, 3)
        await bench.engine.run_due()
        assert await outputs(bench) == [[1, 2, 3]]

    on_bench(numbers(batch_events=inngest.Batch(max_size=3, timeout=10_000)), scenario)


def waiting(mode: Any, **options: Any) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.wait_for_event("w", event="end", timeout=MINUTE_MS)
        return ctx.event.data["n"]

    singleton = inngest.Singleton(mode=mode, **options)
    return lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, singleton=singleton)(fn)]


async def statuses(bench: Any) -> list[EngineRunStatus]:
    return [run.status for run in reversed(await bench.engine.runs(100))]


def test_a_second_run_of_a_singleton_is_skipped_until_the_first_has_ended(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1, 2)
        await bench.engine.run_due()
        await send_numbers(bench, 3)
        await bench.send("end")
        await bench.engine.run_due()
        await send_numbers(bench, 4)
        await bench.engine.run_due()
        await bench.send("end")
        await bench.engine.run_due()
        assert await outputs(bench) == [1, 4]
        assert await statuses(bench) == [COMPLETED, COMPLETED]

    on_bench(waiting("skip"), scenario)


def test_a_second_run_of_a_singleton_can_cancel_the_first(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await send_numbers(bench, 1, user="a")
        await send_numbers(bench, 2, user="b")
        await bench.engine.run_due()
        await send_numbers(bench, 3, user="a")
        await bench.engine.run_due()
        assert await statuses(bench) == [CANCELLED, RUNNING, RUNNING]
        await bench.send("end")
        await bench.engine.run_due()
        assert sorted(await outputs(bench)) == [2, 3]

    on_bench(waiting("cancel", key="event.data.user"), scenario)


def test_invoking_a_singleton_that_is_under_way_is_an_error_for_the_caller(on_bench: Any) -> None:
    async def child(ctx: inngest.Context) -> None:
        await ctx.step.wait_for_event("w", event="end", timeout=10 * MINUTE_MS)

    async def fn(ctx: inngest.Context) -> str:
        try:
            await ctx.step.invoke_by_id("call", function_id="child")
        except inngest.StepError as error:
            return error.name
        return "ran"

    def functions(client: inngest.Inngest) -> Any:
        never = inngest.TriggerEvent(event="never")
        single = inngest.Singleton(mode="skip")
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER)(fn),
            client.create_function(fn_id="child", trigger=never, singleton=single)(child),
        ]

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        await bench.send()
        await bench.engine.run_due()
        assert await outputs(bench) == ["FunctionSkipped"]

    on_bench(functions, scenario)


def test_runs_with_a_higher_priority_start_first(on_bench: Any) -> None:
    order: list[int] = []

    async def fn(ctx: inngest.Context) -> None:
        n = ctx.event.data["n"]
        assert isinstance(n, int)
        order.append(n)

    def functions(client: inngest.Inngest) -> Any:
        priority = inngest.Priority(run="event.data.urgent ? 120 : 0")
        limit = [inngest.Concurrency(limit=1)]
        return [client.create_function(fn_id="fn", trigger=TRIGGER, priority=priority, concurrency=limit)(fn)]

    async def scenario(bench: Any) -> None:
        await bench.send(n=0, urgent=False)
        bench.clock.advance(121_000)  # priority is worth two minutes, not more
        await bench.send(n=1, urgent=False)
        await bench.send(n=2, urgent=True)
        await bench.send(n=3)  # says nothing of it
        await bench.send(n=4, urgent=True)
        await bench.engine.run_due()
        assert order == [0, 2, 4, 1, 3]

    on_bench(functions, scenario)


def test_a_run_with_a_negative_priority_starts_so_much_later(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send(n=1)
        bench.clock.advance(29_999)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1

    on_bench(numbers(priority=inngest.Priority(run="-30")), scenario)


@pytest.mark.parametrize("mode", ["rate", "debounce", "batch"])
def test_an_event_that_is_sent_twice_counts_once(on_bench: Any, mode: str) -> None:
    options: dict[str, Any] = {
        "rate": {"rate_limit": inngest.RateLimit(limit=2, period=MINUTE_MS)},
        "debounce": {"debounce": inngest.Debounce(period=10_000, timeout=10_000)},
        "batch": {"batch_events": inngest.Batch(max_size=2, timeout=10_000)},
    }

    async def scenario(bench: Any) -> None:
        for _ in range(3):
            await bench.send(event_id="same", n=1)
        bench.clock.advance(10_000)
        await bench.engine.run_due()
        assert await outputs(bench) == [[1]]

    on_bench(numbers(**options[mode]), scenario)
