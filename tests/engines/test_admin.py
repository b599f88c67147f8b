"""The engine's file as commands use it, beside an engine that works on it and without one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.admin import EngineAdmin
from rawr.execution.embedded.history import EngineRunNotFoundError
from rawr.execution.embedded.listing import RunsWanted
from rawr.execution.embedded.model import EngineRunStatus, RunFilter
from rawr.execution.expressions import ExpressionInvalidError
from rawr.execution.pending import EngineNotDrainedError, check_drained, pending_count
from rawr.execution.ports import OutgoingEvent

TRIGGER = inngest.TriggerEvent(event="go")


@contextlib.asynccontextmanager
async def admin_of(bench: Any) -> AsyncIterator[EngineAdmin]:
    admin = EngineAdmin(bench.root / "engine.sqlite", bench.root / "run", bench.clock)
    try:
        yield admin
    finally:
        admin.close()


async def number(ctx: inngest.Context) -> Any:
    return ctx.event.data.get("n")


async def long_sleep(ctx: inngest.Context) -> None:
    await ctx.step.sleep("nap", timedelta(hours=1))


async def for_answer(ctx: inngest.Context) -> None:
    await ctx.step.wait_for_event("reply", event="answer", timeout=timedelta(hours=2))


def one(handler: Any, **options: Any) -> Any:
    return lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, **options)(handler)]


async def ids(admin: EngineAdmin, wanted: RunsWanted) -> list[str]:
    return [row.run_id for row in await admin.runs(wanted)]


@pytest.mark.parametrize("waits", [{"debounce": inngest.Debounce(period=10_000)}, {"batch_events": None}])
def test_events_that_are_gathered_are_left_work_until_they_are_ended(on_bench: Any, waits: dict[str, Any]) -> None:
    options = {"batch_events": inngest.Batch(max_size=9, timeout=10_000)} if "batch_events" in waits else waits

    async def scenario(bench: Any) -> None:
        await bench.send(n=1)
        await bench.send(n=2)
        database = bench.root / "engine.sqlite"
        assert pending_count(database) == 1
        with pytest.raises(EngineNotDrainedError):
            check_drained(database)
        async with admin_of(bench) as admin:
            assert (await admin.ahead()).gathering == 1
            [run_id] = await admin.cancel_all("drained")
            found = (await admin.run(run_id)).run
            assert found.status is EngineRunStatus.CANCELLED
            assert "drained" in str(found.error)
        assert pending_count(database) == 0
        bench.clock.advance(20_000)
        await bench.engine.run_due()
        assert bench.wire.seen == []

    on_bench(one(number, **options), scenario)


def test_pages_of_runs_are_all_runs_once_newest_first(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for n in range(7):
            await bench.send(n=n)
        await bench.engine.run_due()
        async with admin_of(bench) as admin:
            everything = await ids(admin, RunsWanted(limit=100))
            paged: list[str] = []
            while page := await ids(admin, RunsWanted(limit=3, before=paged[-1] if paged else None)):
                paged += page
            assert paged == everything == sorted(everything, reverse=True)
            assert len(paged) == 7
            completed = RunsWanted(status=EngineRunStatus.COMPLETED, fn_id="app-fn")
            assert await ids(admin, completed) == everything
            assert await ids(admin, RunsWanted(fn_id="app-other")) == []
            assert await ids(admin, RunsWanted(status=EngineRunStatus.FAILED)) == []

    on_bench(one(number), scenario)


def test_a_working_engine_sees_what_was_sent_and_cancelled_beside_it(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        async with admin_of(bench) as admin:
            ulid = await admin.send(OutgoingEvent(name="go", data={"n": 5}, event_id="mine"))
            [run_id] = await admin.runs_of_event(ulid)
            await bench.engine.run_due()
            detail = await admin.run("mine")
            assert (detail.run.run_id, detail.output) == (run_id, 5)
            assert await admin.cancel("mine", "late") == (run_id, False)
            with pytest.raises(EngineRunNotFoundError):
                await admin.run("none")

    on_bench(one(number), scenario)


def test_what_a_run_waits_for_is_told_with_its_time(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        async with admin_of(bench) as admin:
            [row] = await admin.runs(RunsWanted())
            [wait] = (await admin.run(row.run_id)).waits
            assert (wait.name, wait.event_name) == ("reply", "answer")
            assert wait.until_ms == bench.clock.now_ms() + 2 * 3600 * 1000
            ahead = await admin.ahead()
            assert (ahead.waiting, ahead.is_busy, ahead.next_at_ms) == (1, False, wait.until_ms)

    on_bench(one(for_answer), scenario)


def test_a_sleep_is_ahead_and_not_busy(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        async with admin_of(bench) as admin:
            ahead = await admin.ahead()
            assert (ahead.sleeping, ahead.is_busy) == (1, False)
            [row] = await admin.runs(RunsWanted())
            [nap] = (await admin.run(row.run_id)).jobs
            assert (nap.kind, nap.name, nap.due_at_ms) == ("sleep", "nap", ahead.next_at_ms)
            [worker] = (await admin.overview()).workers
            assert worker.is_alive

    on_bench(one(long_sleep), scenario)


def test_runs_that_are_counted_are_those_that_are_cancelled(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for n in range(4):
            await bench.send(n=n)
        await bench.engine.run_due()
        async with admin_of(bench) as admin:
            which = RunFilter(fn_id="app-fn", condition="event.data.n >= 2", reason="enough")
            assert await admin.matching(which) == 2
            assert len(await admin.cancel_where(which)) == 2
            assert await admin.matching(which) == 0
            assert (await admin.overview()).open_runs == {"running": 2}
            with pytest.raises(ExpressionInvalidError):
                await admin.matching(RunFilter(fn_id="app-fn", condition="event.data.", reason=""))

    on_bench(one(long_sleep), scenario)
