"""Apps that are not in this process: reached or not, of older SDKs, and what is told of their runs afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.engines.conftest import BACKOFF_MS

from rawr.execution.embedded.apps import RegisteredApps
from rawr.execution.embedded.durations import UNREACHABLE_MAX_MS, unreachable_pause_ms
from rawr.execution.embedded.engine import Engine
from rawr.execution.embedded.inspection import EventsAsked, StepStatus
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.registration import functions_of
from rawr.execution.ports import AppUnreachableError, EngineCall, IngressResponse, OutgoingEvent
from rawr.testing.clock import FakeClock

import inngest  # isort: skip


async def give(value: Any) -> Any:
    return value


def function_named(fn: Any) -> Any:
    def functions(client: inngest.Inngest) -> list[Any]:
        return [client.create_function(fn_id="fn", trigger=inngest.TriggerEvent(event="go"), retries=1)(fn)]

    return functions


def test_what_is_left_of_a_race_holds_up_no_later_step(tmp_path: Path) -> None:
    """The loser of a race is told again, together with what comes after the race, as the SDK for TypeScript does."""
    fast = {"id": "f", "op": "StepPlanned", "name": "fast", "opts": {"parallelMode": "race"}}
    slow = {"id": "s", "op": "WaitForEvent", "name": "never", "opts": {"parallelMode": "race", "timeout": "1d"}}
    after = {"id": "a", "op": "StepPlanned", "name": "after"}

    async def app(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        asked, done = query["stepId"], msgspec.json.decode(body)["ctx"]["stack"]["stack"]
        if asked != "step":
            return told(206, [{"id": asked, "op": "StepRun", "data": asked}])
        if "a" in done:
            return told(200, "over")
        return told(206, [slow, after] if "f" in done else [fast, slow])

    async def scenario() -> None:
        async with engine_of(app, tmp_path, FakeClock()) as engine:
            await engine.run_due()
            [run] = await engine.runs(10)
            assert run.output == "over"

    asyncio.run(scenario())


@asynccontextmanager
async def engine_of(app: EngineCall, root: Path, clock: FakeClock) -> AsyncIterator[Engine]:
    """An engine on a function `a-fn` of an app that is somewhere else, which the event `go` starts."""
    apps = RegisteredApps(lambda _url: app, keys=(), clock=clock)
    engine = Engine(database=root / "engine.sqlite", run_dir=root, apps=apps, clock=clock, steady_ms=clock.now_ms)
    await engine.prepare()
    config = {"id": "a-fn", "triggers": [{"event": "go"}], "steps": {"step": {}}}
    await engine.register("a", functions_of([config]), url="http://a")
    await engine.send([OutgoingEvent(name="go", data={})])
    try:
        yield engine
    finally:
        await engine.stop(0)


def told(status: int, value: Any) -> IngressResponse:
    headers = {"x-inngest-sdk": "js", "x-inngest-req-version": "2"}
    return IngressResponse(status=status, headers=headers, body=msgspec.json.encode(value))


def test_an_app_that_runs_many_steps_in_one_call_may_tell_its_end_with_them(tmp_path: Path) -> None:
    async def app(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        steps = [{"id": name, "op": "StepRun", "displayName": name, "data": name} for name in "xyz"]
        return told(206, [{"id": "end", "op": "RunComplete", "data": {"n": 3}}, *steps])

    async def scenario() -> None:
        async with engine_of(app, tmp_path, FakeClock()) as engine:
            assert await engine.run_due() == 1
            [run] = await engine.runs(10)
            assert (run.status, run.output) == (EngineRunStatus.COMPLETED, {"n": 3})
            steps = await engine.inspection.steps(run.run_id)
            assert [(step.name, step.output) for step in steps] == [("x", "x"), ("y", "y"), ("z", "z")]
            assert await engine.pending_count() == 0

    asyncio.run(scenario())


def test_an_app_may_ask_to_be_asked_again_but_not_in_a_circle(tmp_path: Path) -> None:
    clock = FakeClock()
    answers = [
        [{"id": "x", "op": "StepRun", "data": 1}, {"id": "d", "op": "DiscoveryRequest"}],
        *[[{"id": "d", "op": "DiscoveryRequest"}]] * 2,
    ]

    async def app(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        return told(206, answers.pop(0)) if answers else told(200, "over")

    async def scenario() -> None:
        async with engine_of(app, tmp_path, clock) as engine:
            assert await engine.run_due() == 2  # at once after a step, and then with pauses
            assert await engine.run_due() == 0
            for left in (1, 1):
                clock.advance(1000)
                assert await engine.run_due() == left
            assert (await engine.runs(10))[0].output == "over"

    asyncio.run(scenario())


def test_an_output_that_is_too_large_fails_its_run_however_it_is_told(tmp_path: Path) -> None:
    async def app(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        return told(206, [{"id": "end", "op": "RunComplete", "data": "x" * 5_000_000}])

    async def scenario() -> None:
        async with engine_of(app, tmp_path, FakeClock()) as engine:
            await engine.run_due()
            [run] = await engine.runs(10)
            assert run.error is not None
            assert run.error.name == "OutputTooLarge"

    asyncio.run(scenario())


def of_an_older_sdk(answer: IngressResponse) -> IngressResponse:
    return msgspec.structs.replace(answer, headers={**answer.headers, "x-inngest-req-version": "1"})


@pytest.mark.parametrize(("older", "discoveries"), [(False, 2), (True, 4)])
def test_an_sdk_that_knows_no_groups_is_asked_after_each_step(on_bench: Any, older: bool, discoveries: int) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return await ctx.group.parallel(tuple(partial(ctx.step.run, name, give, name) for name in "abc"))

    async def scenario(bench: Any) -> None:
        bench.wire.alter = of_an_older_sdk if older else None
        await bench.send()
        assert (await bench.finish()).output == ["a", "b", "c"]

    bench = on_bench(function_named(fn), scenario)
    assert sum(seen.step_id is None for seen in bench.wire.seen) == discoveries


def test_a_run_keeps_to_the_version_of_the_protocol_that_its_first_answer_told(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return await ctx.step.run("a", give, 1)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.finish()

    bench = on_bench(function_named(fn), scenario)
    assert [body["version"] for body in bench.wire.bodies] == [-1, 2]
    assert [headers["x-inngest-req-version"] for headers in bench.wire.headers] == ["-1", "2"]


def test_an_app_that_cannot_be_reached_costs_no_attempt(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.attempt

    async def scenario(bench: Any) -> None:
        tries = 0
        there: EngineCall = bench.wire

        async def call(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
            nonlocal tries
            if method == "POST" and (tries := tries + 1) < 12:
                raise AppUnreachableError("gone")
            return await there(method, query, headers, body)

        other = bench.another(call)
        await bench.engine.stop(0)
        bench.engine = other
        await other.prepare()
        await bench.send()
        waited: list[int] = []
        while (await bench.only_run()).ended_at_ms is None:
            await other.run_due()
            waited.append(unreachable_pause_ms(len(waited) + 1))
            bench.clock.advance(waited[-1])
        assert (await bench.only_run()).output == 0
        assert tries == 12
        assert waited[0] < waited[-2] == UNREACHABLE_MAX_MS

    on_bench(function_named(fn), scenario)


def test_the_history_tells_what_steps_were_asked_what_they_gave_and_why_they_failed(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        async def flaky() -> str:
            if ctx.attempt == 0:
                raise ValueError("not yet")
            return "at last"

        await ctx.step.run("flaky", flaky)
        heard = await ctx.step.wait_for_event("hear", event="word", if_exp="async.data.n == 1", timeout=3600_000)
        return None if heard is None else heard.name

    async def scenario(bench: Any) -> None:
        [event] = await bench.send(n=1)
        inspection = bench.engine.inspection
        [run] = await inspection.runs_of_event(event, 10)
        await bench.engine.run_due()
        [flaky] = await inspection.steps(run.run_id)
        assert (flaky.status, flaky.attempt, flaky.error["message"]) == (StepStatus.QUEUED, 1, "not yet")
        assert flaky.due_at_ms == bench.clock.now_ms() + BACKOFF_MS
        bench.clock.advance(BACKOFF_MS)
        await bench.engine.run_due()
        flaky, hear = await inspection.steps(run.run_id)
        assert (flaky.status, flaky.attempt, flaky.output, flaky.error) == (StepStatus.COMPLETED, 1, "at last", None)
        assert (hear.op, hear.status) == ("WaitForEvent", StepStatus.WAITING)
        assert (hear.input["event"], hear.input["if"]) == ("word", "async.data.n == 1")
        await bench.send("word", n=1)
        await bench.engine.run_due()
        told = await inspection.run(run.run_id)
        assert (told.status, told.output, told.app_id) == (EngineRunStatus.COMPLETED, "word", "app")
        assert [event.name for event in await inspection.events(EventsAsked(limit=2))][1] == "word"
        bench.clock.advance(1)
        await bench.engine.forget(bench.clock.now_ms())
        assert await inspection.run(run.run_id) is None
        assert await inspection.steps(run.run_id) == []

    on_bench(function_named(fn), scenario)


def test_each_function_is_called_where_its_app_is_and_another_engine_learns_of_it(tmp_path: Path) -> None:
    called: list[tuple[str, str]] = []
    clock = FakeClock()

    def at(url: str) -> EngineCall:
        async def call(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
            called.append((url, query["fnId"]))
            return IngressResponse(status=200, headers={"x-inngest-sdk": "x"}, body=b"1")

        return call

    def engine() -> Engine:
        apps = RegisteredApps(at, keys=(), clock=clock)
        return Engine(
            database=tmp_path / "engine.sqlite", run_dir=tmp_path, apps=apps, clock=clock, steady_ms=clock.now_ms
        )

    def functions(app: str) -> Any:
        return functions_of([{"id": f"{app}-fn", "triggers": [{"event": "go"}], "steps": {"step": {}}}])

    async def scenario() -> None:
        first, second = engine(), engine()
        await first.prepare()
        await second.prepare()
        assert await first.register("a", functions("a"), url="http://a") is True
        assert await first.register("a", functions("a"), url="http://a") is False
        await second.register("b", functions("b"), url="http://b")
        await first.send([OutgoingEvent(name="go", data={})])
        assert await second.run_due() == 2
        assert sorted(called) == [("http://a", "a-fn"), ("http://b", "b-fn")]
        assert await first.register("a", functions("a"), url="http://moved") is True
        await first.send([OutgoingEvent(name="go", data={})])
        await first.run_due()
        assert ("http://moved", "a-fn") in called
        await first.stop(0)
        await second.stop(0)

    asyncio.run(scenario())


def test_an_app_that_has_another_name_now_takes_the_place_of_the_one_at_its_address(tmp_path: Path) -> None:
    called: list[str] = []

    async def app(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        called.append(query["fnId"])
        return told(200, 1)

    async def scenario() -> None:
        async with engine_of(app, tmp_path, FakeClock()) as engine:
            await engine.run_due()
            config = {"id": "b-fn", "triggers": [{"event": "go"}], "steps": {"step": {}}}
            await engine.register("b", functions_of([config]), url="http://a")
            await engine.send([OutgoingEvent(name="go", data={})])
            await engine.run_due()
            assert called == ["a-fn", "b-fn"]
            assert {app.app_id: len(app.functions) for app in await engine.inspection.apps()} == {"a": 0, "b": 1}

    asyncio.run(scenario())


def test_the_pause_before_an_app_is_tried_again_grows_up_to_a_limit() -> None:
    pauses = [unreachable_pause_ms(tries) for tries in range(100)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[1], pauses[2], pauses[-1]) == (500, 500, 1000, UNREACHABLE_MAX_MS)
