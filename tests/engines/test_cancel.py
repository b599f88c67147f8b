"""Runs that are ended from outside: by an event, by name, or many at once."""

from __future__ import annotations

import asyncio
import datetime
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRunStatus, RunFilter
from rawr.execution.expressions import ExpressionInvalidError

TRIGGER = inngest.TriggerEvent(event="go")
MINUTE_MS = 60_000
IN_AN_HOUR = datetime.datetime(2026, 1, 1, 1, tzinfo=datetime.UTC)  # by the bench's clock
CANCELLED, COMPLETED, RUNNING = EngineRunStatus.CANCELLED, EngineRunStatus.COMPLETED, EngineRunStatus.RUNNING


def sleeping_function(heard: list[Any] | None = None, **options: Any) -> Any:
    """A function that sleeps for an hour, its failure handler, and one that hears of cancellations."""

    async def fn(ctx: inngest.Context) -> str:
        await ctx.step.sleep_until("nap", IN_AN_HOUR)
        return "woke"

    async def hear(ctx: inngest.Context) -> None:
        if heard is not None:
            heard.append((ctx.event.name, dict(ctx.event.data)))

    def functions(client: inngest.Inngest) -> Any:
        events = ("inngest/function.cancelled", "inngest/function.failed", "inngest/function.finished")
        triggers: list[inngest.TriggerCron | inngest.TriggerEvent] = [inngest.TriggerEvent(event=n) for n in events]
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER, **options)(fn),
            client.create_function(fn_id="hear", trigger=triggers)(hear),
        ]

    return functions


async def statuses(bench: Any) -> list[EngineRunStatus]:
    """Of the runs of `fn`, oldest first."""
    return [run.status for run in reversed(await bench.engine.runs(100)) if run.fn_id == "app-fn"]


def test_an_event_cancels_the_runs_that_it_fits_and_no_others(on_bench: Any) -> None:
    heard: list[Any] = []
    cancel = inngest.Cancel(event="stop", if_exp="event.data.of == async.data.of")

    async def scenario(bench: Any) -> None:
        await bench.send("stop", of="a")  # older than the run
        await bench.send(of="a")
        await bench.send(of="b")
        await bench.engine.run_due()
        await bench.send("stop", of="a")
        await bench.engine.run_due()
        assert await statuses(bench) == [CANCELLED, RUNNING]
        ((name, data),) = heard
        assert (name, data["function_id"], data["event"]["data"]) == (
            "inngest/function.cancelled",
            "app-fn",
            {"of": "a"},
        )
        bench.clock.advance(60 * MINUTE_MS)
        await bench.engine.run_due()
        assert await statuses(bench) == [CANCELLED, COMPLETED]
        assert await bench.engine.pending_count() == 0

    on_bench(sleeping_function(heard, cancel=[cancel]), scenario)


@pytest.mark.parametrize(("after_ms", "status"), [(MINUTE_MS - 1, CANCELLED), (MINUTE_MS, RUNNING)])
def test_a_cancellation_with_a_timeout_is_heeded_only_until_then(
    on_bench: Any, after_ms: int, status: EngineRunStatus
) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        bench.clock.advance(after_ms)
        await bench.send("stop")
        await bench.engine.run_due()
        assert await statuses(bench) == [status]

    on_bench(sleeping_function(cancel=[inngest.Cancel(event="stop", timeout=MINUTE_MS)]), scenario)


def test_an_event_that_starts_a_run_does_not_cancel_it_but_the_one_before(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for _ in range(3):
            await bench.send()
            await bench.engine.run_due()
        assert await statuses(bench) == [CANCELLED, CANCELLED, RUNNING]

    on_bench(sleeping_function(cancel=[inngest.Cancel(event="go")]), scenario)


def test_a_run_that_is_cancelled_while_a_call_is_under_way_stays_cancelled(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> str:
        events["begun"].set()
        await events["may_end"].wait()
        return "too late"

    events: dict[str, asyncio.Event] = {}

    async def scenario(bench: Any) -> None:
        events.update(begun=asyncio.Event(), may_end=asyncio.Event())
        await bench.send()
        working = asyncio.create_task(bench.engine.run_due())
        await events["begun"].wait()
        (run,) = await bench.engine.runs(1)
        assert await bench.engine.cancel(run.run_id, "enough")
        assert not await bench.engine.cancel(run.run_id)
        events["may_end"].set()
        await working
        (run,) = await bench.engine.runs(1)
        assert (run.status, run.output) == (CANCELLED, None)
        assert run.error is not None
        assert run.error.message == "enough"

    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)


def test_cancelling_what_does_not_exist_says_so(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        assert not await bench.engine.cancel("nobody")

    on_bench(sleeping_function(), scenario)


def test_many_runs_are_cancelled_by_function_time_and_condition(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        begin_ms = bench.clock.now_ms()
        for n in range(450):
            await bench.send(n=n)
        bench.clock.advance(10)
        await bench.send(n=0)
        await bench.engine.run_due()
        which = RunFilter(fn_id="app-fn", queued_before_ms=begin_ms + 10, condition="event.data.n % 2 == 0")
        cancelled = await bench.engine.cancel_where(which)
        assert len(cancelled) == len(set(cancelled)) == 225
        found = [run for run in await bench.engine.runs(2000) if run.fn_id == "app-fn"]
        assert {run.run_id for run in found if run.status is CANCELLED} == set(cancelled)
        assert sum(run.status is RUNNING for run in found) == 226

    on_bench(sleeping_function(), scenario)


def test_a_condition_for_cancelling_that_makes_no_sense_is_refused_and_cancels_nothing(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        with pytest.raises(ExpressionInvalidError):
            await bench.engine.cancel_where(RunFilter(fn_id="app-fn", condition="evnt.x == 1"))
        assert await statuses(bench) == [RUNNING]

    on_bench(sleeping_function(), scenario)
