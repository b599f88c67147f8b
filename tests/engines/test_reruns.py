"""Runs that are run again, runs that are forgotten, and the trace that the calls of a run make."""

from __future__ import annotations

from functools import partial
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRun, EngineRunStatus, Forgotten
from rawr.execution.embedded.reruns import Rerun, RerunRefusedError

TRIGGER = inngest.TriggerEvent(event="go")
DAY_MS = 24 * 3600 * 1000


class Story:
    """A function of three steps, of which the second fails for as long as it is told to."""

    def __init__(self, **options: Any) -> None:
        self.ran: list[str] = []
        self.broken = False
        self.options = options

    def functions(self, client: inngest.Inngest) -> Any:
        async def note(name: str) -> str:
            self.ran.append(name)
            if self.broken and name == "b":
                raise inngest.NonRetriableError("broken")
            return f"{name}{len(self.ran)}"

        async def fn(ctx: inngest.Context) -> Any:
            return [await ctx.step.run(name, note, name) for name in "abc"] + [ctx.event.data.get("x")]

        return [client.create_function(fn_id="fn", trigger=TRIGGER, **self.options)(fn)]


async def the_run(bench: Any, run_id: str) -> EngineRun:
    await bench.engine.run_due()
    run = await bench.engine.run(run_id)
    assert run is not None
    return run  # type: ignore[no-any-return]  # the bench is Any here


def test_a_failed_run_is_run_again_as_a_new_run(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        story.broken = True
        await bench.send(x=1)
        failed = await bench.finish()
        assert failed.status is EngineRunStatus.FAILED
        story.broken = False
        again = await the_run(bench, await bench.engine.rerun(Rerun(run_id=failed.run_id)))
        assert again.output == ["a3", "b4", "c5", 1]
        assert again.rerun_of == failed.run_id
        assert await bench.engine.run(failed.run_id) == failed

    on_bench(story.functions, scenario)


@pytest.mark.parametrize(
    ("step", "ran", "output"),
    [("a", "abc", ["a4", "b5", "c6", 1]), ("b", "bc", ["a1", "b4", "c5", 1]), ("c", "c", ["a1", "b2", "c4", 1])],
)
def test_a_run_is_run_again_from_a_step_and_keeps_what_finished_before(
    on_bench: Any, step: str, ran: str, output: list[Any]
) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        await bench.send(x=1)
        first = await bench.finish()
        again = await the_run(bench, await bench.engine.rerun(Rerun(run_id=first.run_id, from_step=step)))
        assert (again.output, again.steps) == (output, 3)

    on_bench(story.functions, scenario)
    assert story.ran == [*"abc", *ran]


def test_a_run_is_run_again_with_other_data_that_triggers_nothing_else(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        await bench.send(x=1)
        first = await bench.finish()
        asked = Rerun(run_id=first.run_id, from_step="b", data={"x": 2})
        again = await the_run(bench, await bench.engine.rerun(asked))
        assert again.output == ["a1", "b4", "c5", 2]
        assert len(await bench.engine.runs(10)) == 2

    on_bench(story.functions, scenario)


def test_a_batch_is_run_again_with_all_of_its_events(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return [event.data["n"] for event in ctx.events]

    async def scenario(bench: Any) -> None:
        for n in range(2):
            await bench.send(n=n)
        first = await bench.finish()
        again = await the_run(bench, await bench.engine.rerun(Rerun(run_id=first.run_id)))
        assert again.output == [0, 1]
        with pytest.raises(RerunRefusedError, match="a batch of 2 events"):
            await bench.engine.rerun(Rerun(run_id=first.run_id, data={}))

    batch = inngest.Batch(max_size=2)
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, batch_events=batch)(fn)], scenario)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"run_id": "nobody"}, "there is no run nobody"),
        ({"from_step": "z"}, "has no finished step 'z'"),
        ({"data": {"x": "y" * 600_000}}, "the limit is 524288"),
    ],
)
def test_what_cannot_be_run_again_is_refused_and_changes_nothing(on_bench: Any, asked: Any, reason: str) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        await bench.send()
        first = await bench.finish()
        with pytest.raises(RerunRefusedError, match=reason):
            await bench.engine.rerun(Rerun(**{"run_id": first.run_id, **asked}))
        assert await bench.engine.runs(10) == [first]

    on_bench(story.functions, scenario)


def test_a_singleton_that_is_under_way_is_not_run_again_beside_itself(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> None:
        await ctx.step.wait_for_event("w", event="end", timeout=DAY_MS)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        (run,) = await bench.engine.runs(10)
        with pytest.raises(RerunRefusedError, match="one at a time"):
            await bench.engine.rerun(Rerun(run_id=run.run_id))

    single = inngest.Singleton(mode="skip")
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, singleton=single)(fn)], scenario)


def test_a_run_that_is_under_way_can_be_ended_by_the_one_that_repeats_it(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> None:
        await ctx.step.wait_for_event("w", event="end", timeout=DAY_MS)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        (old,) = await bench.engine.runs(10)
        with pytest.raises(RerunRefusedError):
            await bench.engine.rerun(Rerun(run_id=old.run_id, from_step="nowhere", end_old=True))
        assert await bench.engine.run(old.run_id) == old
        new_id = await bench.engine.rerun(Rerun(run_id=old.run_id, end_old=True))
        ended = await bench.engine.run(old.run_id)
        assert ended.status is EngineRunStatus.CANCELLED
        assert ended.error.message == f"it is run again as {new_id}"
        assert (await bench.engine.run(new_id)).status is EngineRunStatus.QUEUED

    single = inngest.Singleton(mode="skip")
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, singleton=single)(fn)], scenario)


def test_what_ended_long_ago_is_forgotten_and_what_is_needed_is_kept(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> str:
        if ctx.event.data.get("wait"):
            await ctx.step.wait_for_event("w", event="end", timeout=100 * DAY_MS)
        return await ctx.step.run("a", partial(give, "done"))

    async def give(value: str) -> str:
        return value

    async def scenario(bench: Any) -> None:
        for n in range(250):
            await bench.send(n=n)
        await bench.send(wait=True)
        await bench.send("unheard")
        await bench.engine.run_due()
        bench.clock.advance(10 * DAY_MS)
        await bench.send(n=-1)
        await bench.engine.run_due()
        forgotten = await bench.engine.forget(bench.clock.now_ms() - DAY_MS)
        assert forgotten == Forgotten(runs=250, events=250 + 1 + 250)  # each end of a run is an event too
        assert [run.status for run in await bench.engine.runs(10)] == [
            EngineRunStatus.COMPLETED,
            EngineRunStatus.RUNNING,
        ]
        await bench.send("end")
        await bench.engine.run_due()
        assert {run.status for run in await bench.engine.runs(10)} == {EngineRunStatus.COMPLETED}
        assert await bench.engine.forget(0) == Forgotten(runs=0, events=0)

    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)


def test_the_calls_of_a_run_are_one_trace_and_those_of_two_runs_are_two(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        for _ in range(2):
            await bench.send()
        await bench.engine.run_due()

    bench = on_bench(story.functions, scenario)
    traces: dict[str, set[str]] = {}
    for headers in bench.wire.headers:
        version, trace_id, span_id, flags = headers["traceparent"].split("-")
        assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "01")
        traces.setdefault(trace_id, set()).add(headers["x-run-id"])
    assert len(traces) == 2
    assert all(len(runs) == 1 for runs in traces.values())
    assert len({headers["traceparent"] for headers in bench.wire.headers}) == 8
