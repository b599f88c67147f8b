"""Steps that wait for an event or for another function, as functions of the real SDK see them."""

from __future__ import annotations

from functools import partial
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRunStatus

TRIGGER = inngest.TriggerEvent(event="go")
RACE = inngest.ParallelMode.RACE
MINUTE_MS = 60_000


async def give(value: Any) -> Any:
    return value


def waiting_function(**wait: Any) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        event = await ctx.step.wait_for_event("w", event="news", timeout=MINUTE_MS, **wait)
        return None if event is None else [event.name, dict(event.data)]

    return lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)]


def test_a_wait_ends_with_the_first_event_of_its_name(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send("news", n=0)  # before the wait began
        await bench.send()
        await bench.engine.run_due()
        assert await bench.engine.pending_count() == 1
        await bench.send("olds", n=1)
        await bench.send("news", n=2)
        await bench.send("news", n=3)
        assert (await bench.finish()).output == ["news", {"n": 2}]

    bench = on_bench(waiting_function(), scenario)
    assert len(bench.wire.seen) == 2
    (memo,) = bench.wire.bodies[-1]["steps"].values()
    assert set(memo) == {"name", "id", "ts", "user", "data"}  # the event itself, not wrapped


def test_a_wait_ends_with_none_at_its_time_and_not_before(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        bench.clock.advance(MINUTE_MS - 1)
        assert await bench.engine.run_due() == 0
        assert await bench.engine.is_idle()
        bench.clock.advance(1)
        assert not await bench.engine.is_idle()
        assert await bench.engine.run_due() == 1
        await bench.send("news", n=1)
        run = await bench.finish()
        assert (run.status, run.output) == (EngineRunStatus.COMPLETED, None)

    on_bench(waiting_function(), scenario)


def test_a_wait_with_a_condition_takes_only_the_event_that_fits_its_run(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send(of="a")
        await bench.send(of="b")
        await bench.engine.run_due()
        await bench.send("news", about="c")
        await bench.send("news")  # has no such field
        await bench.send("news", about="b")
        await bench.engine.run_due()
        done = [run for run in await bench.engine.runs(10) if run.status is EngineRunStatus.COMPLETED]
        assert [run.output for run in done] == [["news", {"about": "b"}]]
        bench.clock.advance(MINUTE_MS)
        await bench.engine.run_due()
        assert {run.status for run in await bench.engine.runs(10)} == {EngineRunStatus.COMPLETED}

    on_bench(waiting_function(if_exp="event.data.of == async.data.about"), scenario)


def test_a_wait_with_a_condition_that_makes_no_sense_fails_the_run_with_the_reason(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.error is not None
        assert run.error.name == "WaitInvalid"
        assert "undeclared reference to 'evnt.x'" in run.error.message

    on_bench(waiting_function(if_exp="evnt.x == 1"), scenario)


def test_a_wait_survives_a_restart_and_an_event_that_came_meanwhile_ends_it(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        await bench.engine.stop(0)
        bench.engine = bench.another()
        await bench.send("news", n=1)  # accepted before the engine is started
        await bench.engine.prepare()
        assert (await bench.finish()).output == ["news", {"n": 1}]

    on_bench(waiting_function(), scenario)


def test_an_event_that_a_parallel_step_sends_is_not_missed(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        async def tell() -> str:
            await bench.send("news", n=1)
            return "told"

        steps["tell"] = tell
        await bench.send()
        assert (await bench.finish()).output == ["told", {"n": 1}]

    async def fn(ctx: inngest.Context) -> Any:
        wait = partial(ctx.step.wait_for_event, "w", event="news", timeout=MINUTE_MS)
        told, event = await ctx.group.parallel((lambda: ctx.step.run("tell", steps["tell"]), wait))
        return [told, dict(event.data)]

    steps: dict[str, Any] = {}
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)


def test_waits_in_a_group_are_followed_by_one_discovery(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        names = ("a", "b", "c")
        waits = tuple(partial(ctx.step.wait_for_event, n, event=n, timeout=MINUTE_MS) for n in names)
        return [event and event.name for event in await ctx.group.parallel(waits)]

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        for name in "ba":
            await bench.send(name)
            assert await bench.engine.run_due() == 0
        assert (await bench.finish()).output == ["a", "b", None]

    bench = on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)
    assert len(bench.wire.seen) == 2


def test_in_a_race_with_a_wait_a_step_after_the_winner_runs_once(on_bench: Any) -> None:
    ran: list[str] = []

    async def note(name: str) -> str:
        ran.append(name)
        return name

    async def fn(ctx: inngest.Context) -> Any:
        async def branch() -> str:
            await ctx.step.run("first", note, "first")
            return await ctx.step.run("second", note, "second")

        wait = partial(ctx.step.wait_for_event, "w", event="news", timeout=MINUTE_MS)
        await ctx.group.parallel((wait, branch), parallel_mode=RACE)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.finish()

    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)
    assert ran == ["first", "second"]


def parent_and_child(child: Any, *, timeout: int | None = None, function_id: str = "child", **options: Any) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        try:
            return await ctx.step.invoke_by_id("call", function_id=function_id, data={"x": 1}, timeout=timeout)
        except inngest.StepError as error:
            return [error.name, error.message, await ctx.step.run("rescue", give, "rescued")]

    def functions(client: inngest.Inngest) -> Any:
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER)(fn),
            client.create_function(fn_id="child", trigger=inngest.TriggerEvent(event="never"), **options)(child),
        ]

    return functions


async def parent(bench: Any) -> Any:
    (run,) = [run for run in await bench.engine.runs(10) if run.fn_id == "app-fn"]
    return run


async def finish_all(bench: Any) -> Any:
    while await bench.engine.pending_count():
        await bench.engine.run_due()
        bench.clock.advance(10_000)
    return await parent(bench)


@pytest.mark.parametrize("value", [None, 0, "", {"deep": [1]}])
def test_an_invoked_function_gets_the_data_and_its_result_comes_back(on_bench: Any, value: Any) -> None:
    async def child(ctx: inngest.Context) -> Any:
        data: Any = dict(ctx.event.data)
        seen.append((ctx.event.name, data["x"], data["_inngest"]["fn_id"]))
        return await ctx.step.run("a", give, value)

    seen: list[Any] = []

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await finish_all(bench)).output == value

    bench = on_bench(parent_and_child(child), scenario)
    assert seen[0] == ("inngest/function.invoked", 1, "app-child")
    assert [call.function for call in bench.wire.seen] == ["fn", "child", "child", "fn"]


def test_the_failure_of_an_invoked_function_is_an_error_that_its_caller_can_catch(on_bench: Any) -> None:
    async def child(ctx: inngest.Context) -> Any:
        raise ValueError("no way")

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await finish_all(bench)).output == ["ValueError", "no way", "rescued"]

    on_bench(parent_and_child(child, retries=1), scenario)


def test_invoking_what_does_not_exist_is_an_error_that_its_caller_can_catch(on_bench: Any) -> None:
    async def child(ctx: inngest.Context) -> Any:
        return None

    async def scenario(bench: Any) -> None:
        await bench.send()
        name, message, rescue = (await finish_all(bench)).output
        assert (name, message, rescue) == ("FunctionNotFound", "there is no function 'app-nobody' to invoke", "rescued")

    on_bench(parent_and_child(child, function_id="nobody"), scenario)


def test_an_invocation_that_takes_too_long_is_an_error_and_the_late_result_is_dropped(on_bench: Any) -> None:
    async def child(ctx: inngest.Context) -> Any:
        await ctx.step.wait_for_event("w", event="news", timeout=10 * MINUTE_MS)
        return "late"

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        bench.clock.advance(MINUTE_MS)
        await bench.engine.run_due()
        run = await parent(bench)
        assert run.output[0] == "InvokeTimeout"
        await bench.send("news")
        again = await finish_all(bench)
        assert again == run
        assert {run.status for run in await bench.engine.runs(10)} == {EngineRunStatus.COMPLETED}

    on_bench(parent_and_child(child, timeout=MINUTE_MS), scenario)


def test_an_invoked_function_that_is_cancelled_is_an_error_for_its_caller(on_bench: Any) -> None:
    async def child(ctx: inngest.Context) -> Any:
        await ctx.step.wait_for_event("w", event="news", timeout=10 * MINUTE_MS)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        (invoked,) = [run for run in await bench.engine.runs(10) if run.fn_id == "app-child"]
        assert await bench.engine.cancel(invoked.run_id, "not needed")
        assert (await finish_all(bench)).output == ["FunctionCancelled", "not needed", "rescued"]

    on_bench(parent_and_child(child), scenario)


def test_functions_invoked_in_parallel_each_run_once(on_bench: Any) -> None:
    async def child(ctx: inngest.Context) -> Any:
        return ctx.event.data["n"]

    async def fn(ctx: inngest.Context) -> Any:
        calls = tuple(partial(ctx.step.invoke_by_id, str(n), function_id="child", data={"n": n}) for n in range(4))
        return list(await ctx.group.parallel(calls))

    def functions(client: inngest.Inngest) -> Any:
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER)(fn),
            client.create_function(fn_id="child", trigger=inngest.TriggerEvent(event="never"))(child),
        ]

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await finish_all(bench)).output == [0, 1, 2, 3]

    bench = on_bench(functions, scenario)
    assert sorted(call.function for call in bench.wire.seen) == ["child"] * 4 + ["fn"] * 2


@pytest.mark.parametrize(("n", "runs"), [(1, 0), (2, 1)])
def test_a_trigger_with_a_condition_starts_a_run_only_when_it_holds(on_bench: Any, n: int, runs: int) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.event.data["n"]

    async def scenario(bench: Any) -> None:
        await bench.send(n=n)
        await bench.send()  # has no such field
        await bench.engine.run_due()
        assert [run.output for run in await bench.engine.runs(10)] == [n] * runs

    trigger = inngest.TriggerEvent(event="go", expression="event.data.n > 1")
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=trigger)(fn)], scenario)


def test_an_event_is_matched_with_the_one_run_of_many_that_looks_for_its_value(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for n in range(60):
            await bench.send(of=n)
        await bench.send()  # waits for what no event can be
        await bench.engine.run_due()
        asked: list[str] = []
        expressions = bench.engine._store._expressions
        is_true = expressions.is_true

        def noting(text: str, scope: Any) -> bool:
            asked.append(text)
            return bool(is_true(text, scope))

        expressions.is_true = noting
        await bench.send("news", about=17.0)
        await bench.send("news")
        await bench.engine.run_due()
        done = [run for run in await bench.engine.runs(100) if run.status is EngineRunStatus.COMPLETED]
        assert [run.output for run in done] == [["news", {"about": 17.0}]]
        assert len(asked) <= 2  # nobody else was asked

    on_bench(waiting_function(if_exp="event.data.of == async.data.about"), scenario)
