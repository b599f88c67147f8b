"""What the embedded engine makes of each answer of the real SDK: how often it calls, in which order, with what end."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from functools import partial
from typing import Any

import inngest
import msgspec
import pytest
from inngest.experimental.ai import openai

from rawr.execution.embedded.ingestion import EventRefusedError
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.protocol import SyncRefusedError
from rawr.execution.embedded.registration import UnsupportedFunctionError
from rawr.execution.ports import IngressResponse, OutgoingEvent
from rawr.execution.signing import NotCanonicalError

TRIGGER = inngest.TriggerEvent(event="go")
RACE = inngest.ParallelMode.RACE


async def give(value: Any) -> Any:
    return value


def one_function(handler: Any, **options: Any) -> Any:
    """`Functions` with one function `fn` on event `go`."""
    return lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, **options)(handler)]


async def until_done(bench: Any) -> None:
    while await bench.engine.pending_count():  # noqa: ASYNC110 - the engine is the thing under test
        await asyncio.sleep(0.005)


def moment(now_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(now_ms / 1000, tz=datetime.UTC)


def test_n_sequential_steps_take_n_plus_one_calls_and_each_body_runs_once(on_bench: Any) -> None:
    ran: list[str] = []

    async def note(name: str) -> str:
        ran.append(name)
        return name

    async def fn(ctx: inngest.Context) -> list[str]:
        return [await ctx.step.run(name, note, name) for name in "abc"]

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.output == ["a", "b", "c"]
        assert run.status is EngineRunStatus.COMPLETED
        assert run.steps == 3

    bench = on_bench(one_function(fn), scenario)
    assert ran == ["a", "b", "c"]
    assert [seen.step_id for seen in bench.wire.seen] == [None] * 4
    stacks = [len(body["ctx"]["stack"]["stack"]) for body in bench.wire.bodies]
    assert stacks == [0, 1, 2, 3]
    assert all(set(body["ctx"]["stack"]["stack"]) == set(body["steps"]) for body in bench.wire.bodies)


def test_a_function_without_steps_takes_one_call(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return dict(ctx.event.data)

    async def scenario(bench: Any) -> None:
        await bench.send(x=1.5, big=2**60, text="é\u2028\U0001f600", nested=[{"b": None, "a": True}])
        run = await bench.finish()
        assert run.output == {"x": 1.5, "big": 2**60, "text": "é\u2028\U0001f600", "nested": [{"b": None, "a": True}]}

    assert len(on_bench(one_function(fn), scenario).wire.seen) == 1


@pytest.mark.parametrize("value", [None, 0, "", [], False, {}, {"data": 1}, {"error": {"name": "x", "message": "y"}}])
def test_step_and_function_results_come_back_as_they_were(on_bench: Any, value: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return await ctx.step.run("a", give, value)

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == value

    on_bench(one_function(fn), scenario)


def test_parallel_steps_are_planned_called_one_by_one_and_followed_by_one_discovery(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        pair = await ctx.group.parallel(tuple(partial(ctx.step.run, n, give, n) for n in "abc"))
        return [*pair, await ctx.step.run("after", give, "after")]

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == ["a", "b", "c", "after"]

    bench = on_bench(one_function(fn), scenario)
    targets = [seen.step_id is not None for seen in bench.wire.seen]
    assert targets == [False, True, True, True, False, False]  # the step after the group runs on sight again
    plans = [body["ctx"]["disable_immediate_execution"] for body in bench.wire.bodies]
    assert plans == [False, True, True, True, False, False]


def test_a_race_of_two_branches_of_two_steps_takes_nine_calls(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        async def branch(name: str) -> str:
            first = await ctx.step.run(f"{name}1", give, name)
            return await ctx.step.run(f"{name}2", give, first + "2")

        return await ctx.group.parallel((lambda: branch("a"), lambda: branch("b")), parallel_mode=RACE)

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.output == ["a2", "b2"]
        assert run.steps == 4

    assert len(on_bench(one_function(fn), scenario).wire.seen) == 9


def test_in_a_race_a_branch_goes_on_while_another_one_is_still_at_its_first_step(on_bench: Any) -> None:
    order: list[str] = []

    async def fn(ctx: inngest.Context) -> Any:
        slow_may_end = gate["slow"]

        async def slow() -> str:
            await slow_may_end.wait()
            order.append("slow")
            return "slow"

        async def quick(name: str) -> str:
            order.append(name)
            if name == "quick2":
                slow_may_end.set()
            return name

        async def branch() -> str:
            await ctx.step.run("quick1", quick, "quick1")
            return await ctx.step.run("quick2", quick, "quick2")

        return await ctx.group.parallel((lambda: ctx.step.run("slow", slow), branch), parallel_mode=RACE)

    gate: dict[str, asyncio.Event] = {}

    async def scenario(bench: Any) -> None:
        gate["slow"] = asyncio.Event()
        await bench.send()
        await bench.engine.stop(0)
        bench.engine = bench.another()  # working in the background: this needs two calls at the same time
        await bench.engine.start()
        await until_done(bench)
        assert (await bench.only_run()).output == ["slow", "quick2"]

    on_bench(one_function(fn), scenario)
    assert order == ["quick1", "quick2", "slow"]


def test_a_discovery_that_is_answered_late_does_not_run_a_finished_step_again(on_bench: Any) -> None:
    """The answer was made before `b` had finished, so it still plans `b`; it arrives when `b` is remembered."""
    ran: list[str] = []
    a, b, c = (hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest() for name in "abc")

    async def note(name: str) -> str:
        ran.append(name)
        return name

    async def fn(ctx: inngest.Context) -> Any:
        branches = tuple(partial(ctx.step.run, name, note, name) for name in "abc")
        return await ctx.group.parallel(branches, parallel_mode=RACE)

    async def scenario(bench: Any) -> None:
        asked, remembered, answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def call(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
            steps = set(msgspec.json.decode(body)["steps"]) if method == "POST" else set()
            if query.get("stepId") == b:
                await asked.wait()
            elif query.get("stepId") == c:
                await answered.wait()
                for _ in range(40):  # long enough for an engine that takes the late answer at its word
                    await asyncio.sleep(0.005)
            elif b in steps:
                remembered.set()
            answer: IngressResponse = await bench.wire(method, query, headers, body)
            if query.get("stepId") == "step" and steps == {a}:
                asked.set()
                await remembered.wait()
                answered.set()
            return answer

        await bench.send()
        await bench.engine.stop(0)
        bench.engine = bench.another(call)
        await bench.engine.start()
        await until_done(bench)
        assert (await bench.only_run()).output == ["a", "b", "c"]

    on_bench(one_function(fn), scenario)
    assert ran == ["a", "b", "c"]


def test_a_step_after_a_race_runs_once(on_bench: Any) -> None:
    ran: list[str] = []

    async def note(name: str) -> str:
        ran.append(name)
        return name

    async def fn(ctx: inngest.Context) -> Any:
        names = [f"s{number}" for number in range(8)]
        branches = tuple(partial(ctx.step.run, name, note, name) for name in names)
        await ctx.group.parallel(branches, parallel_mode=RACE)
        return await ctx.step.run("after", note, "after")

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == "after"

    on_bench(one_function(fn), scenario)
    assert sorted(ran) == ["after", *[f"s{number}" for number in range(8)]]


def test_a_failing_step_is_tried_again_with_backoff_and_earlier_steps_are_not(on_bench: Any) -> None:
    ran: list[str] = []

    async def note(name: str) -> None:
        ran.append(name)

    async def third_time() -> int:
        ran.append("b")
        if ran.count("b") < 3:
            raise ValueError("not yet")
        return 7

    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.run("a", note, "a")
        return await ctx.step.run("b", third_time)

    async def scenario(bench: Any) -> None:
        await bench.send()
        await bench.engine.run_due()
        assert ran == ["a", "b"]
        bench.clock.advance(9_999)
        assert await bench.engine.run_due() == 0
        assert await bench.engine.is_idle()
        assert await bench.engine.pending_count() == 1
        bench.clock.advance(1)
        await bench.engine.run_due()
        assert ran == ["a", "b", "b"]
        assert (await bench.finish()).output == 7

    bench = on_bench(one_function(fn), scenario)
    assert ran == ["a", "b", "b", "b"]
    assert bench.wire.attempts == [0, 0, 1, 2, 0]


def test_a_step_that_uses_up_its_attempts_can_be_caught_by_the_function(on_bench: Any) -> None:
    async def bad() -> None:
        raise ValueError("broken")

    async def fn(ctx: inngest.Context) -> Any:
        try:
            await ctx.step.run("bad", bad)
        except inngest.StepError as error:
            return [error.name, error.message, await ctx.step.run("rescue", give, "rescued")]

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == ["ValueError", "broken", "rescued"]

    assert on_bench(one_function(fn, retries=2), scenario).wire.attempts == [0, 1, 2, 0, 0]


def test_a_step_failure_that_nobody_catches_fails_the_run_and_calls_the_failure_handler(on_bench: Any) -> None:
    told: list[Any] = []

    async def bad() -> None:
        raise ValueError("broken")

    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.run("bad", bad)

    async def on_failure(ctx: inngest.Context) -> None:
        told.append(ctx.event.data)

    async def scenario(bench: Any) -> None:
        await bench.send(x=1)
        run = await bench.finish()
        assert run.status is EngineRunStatus.FAILED
        assert run.error is not None
        assert (run.error.name, run.error.message) == ("ValueError", "broken")
        assert told[0]["function_id"] == "app-fn"
        assert told[0]["run_id"] == run.run_id
        assert told[0]["event"]["data"] == {"x": 1}
        assert told[0]["error"]["error"] == "invalid status code: 500"
        assert told[0]["error"]["message"] == "broken"

    on_bench(one_function(fn, retries=0, on_failure=on_failure), scenario)
    assert len(told) == 1


def test_an_error_outside_of_steps_runs_the_whole_function_again(on_bench: Any) -> None:
    ran: list[str] = []

    async def note() -> None:
        ran.append("step")

    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.run("a", note)
        ran.append("body")
        if ctx.attempt < 2:
            raise RuntimeError("again")
        return "done"

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == "done"

    assert on_bench(one_function(fn), scenario).wire.attempts == [0, 0, 1, 2]
    assert ran == ["step", "body", "body", "body"]


def test_a_function_is_given_up_after_its_retries(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        raise RuntimeError("always")

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.status is EngineRunStatus.FAILED
        assert run.error is not None
        assert run.error.message == "always"

    assert on_bench(one_function(fn, retries=3), scenario).wire.attempts == [0, 1, 2, 3]


@pytest.mark.parametrize("in_step", [True, False])
def test_a_non_retriable_error_fails_the_run_at_once(on_bench: Any, in_step: bool) -> None:
    async def refuse() -> None:
        raise inngest.NonRetriableError("never")

    async def fn(ctx: inngest.Context) -> Any:
        await (ctx.step.run("a", refuse) if in_step else refuse())

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.status is EngineRunStatus.FAILED
        assert run.error is not None
        assert run.error.message == "never"

    assert bench_calls(on_bench(one_function(fn), scenario)) == 1


def bench_calls(bench: Any) -> int:
    return len(bench.wire.seen)


@pytest.mark.parametrize(("asked_s", "given_s"), [(60, 60), (0, 1), (48 * 3600, 24 * 3600)])
def test_retry_after_is_honoured_between_a_second_and_a_day(on_bench: Any, asked_s: int, given_s: int) -> None:
    async def scenario(bench: Any) -> None:
        clock["ms"] = bench.clock.now_ms()
        await bench.send()
        await bench.engine.run_due()
        bench.clock.advance(given_s * 1000 - 1)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1
        assert (await bench.only_run()).output == "ok"

    async def fn(ctx: inngest.Context) -> Any:
        if ctx.attempt == 0:
            raise inngest.RetryAfterError("later", moment(clock["ms"] + asked_s * 1000))
        return "ok"

    clock: dict[str, int] = {}
    on_bench(one_function(fn), scenario)


def test_a_sleep_ends_at_its_time_and_survives_a_restart(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.sleep_until("nap", until["at"])
        return "awake"

    until: dict[str, datetime.datetime] = {}

    async def scenario(bench: Any) -> None:
        until["at"] = moment(bench.clock.now_ms() + 3_600_000)
        await bench.send()
        await bench.engine.run_due()
        await bench.engine.stop(0)
        bench.clock.advance(3_599_999)
        bench.engine = bench.another()
        await bench.engine.prepare()
        assert await bench.engine.run_due() == 0
        bench.clock.advance(1)
        assert (await bench.finish()).output == "awake"

    assert bench_calls(on_bench(one_function(fn), scenario)) == 2


def test_sleeps_in_parallel_end_on_their_own(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        async def nap(name: str, seconds: int) -> str:
            await ctx.step.sleep_until(name, moment(start["ms"] + seconds * 1000))
            return await ctx.step.run(f"after {name}", give, name)

        return await ctx.group.parallel((lambda: nap("long", 100), lambda: nap("short", 10)), parallel_mode=RACE)

    start: dict[str, int] = {}

    async def scenario(bench: Any) -> None:
        start["ms"] = bench.clock.now_ms()
        await bench.send()
        await bench.engine.run_due()
        bench.clock.advance(10_000)
        await bench.engine.run_due()
        assert (await bench.only_run()).steps == 2  # the short sleep and the step after it
        bench.clock.advance(90_000)
        assert (await bench.finish()).output == ["long", "short"]

    on_bench(one_function(fn), scenario)


def test_the_same_event_id_starts_a_function_once_within_24_hours(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.event.id

    async def scenario(bench: Any) -> None:
        first = await bench.send(event_id="run-1")
        second = await bench.send(event_id="run-1")
        assert first != second
        assert (await bench.finish()).output == "run-1"
        bench.clock.advance(24 * 3600 * 1000)
        await bench.send(event_id="run-1")
        await bench.engine.run_due()
        assert len(await bench.engine.runs(10)) == 2

    on_bench(one_function(fn), scenario)


def test_events_that_come_before_the_engine_starts_wait_for_it(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return "late"

    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        bench.engine = bench.another()
        await bench.send()
        assert await bench.engine.runs(10) == []
        assert await bench.engine.pending_count() == 1
        await bench.engine.prepare()
        assert (await bench.finish()).output == "late"

    on_bench(one_function(fn), scenario)


def test_a_run_that_needs_an_unsupported_step_fails_naming_it(on_bench: Any) -> None:
    adapter = openai.Adapter(auth_key="none", model="none")

    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.ai.infer("ask", adapter=adapter, body={})

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.status is EngineRunStatus.FAILED
        assert run.error is not None
        assert "AIGateway" in run.error.message

    on_bench(one_function(fn), scenario)


def test_nested_steps_fail_without_retries(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        async def outer() -> Any:
            return await ctx.step.run("inner", give, 1)

        await ctx.step.run("outer", outer)

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.error is not None
        assert "Nested steps" in run.error.message

    assert 0 not in on_bench(one_function(fn), scenario).wire.attempts[2:]


def test_a_step_output_over_four_mebibytes_is_a_clear_failure(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.run("big", give, "x" * (4 * 1024 * 1024))

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.error is not None
        assert run.error.message == "step 'big' gave 4194315 bytes; the limit is 4194304"

    on_bench(one_function(fn), scenario)


def test_a_step_output_that_json_cannot_hold_fails_the_run_at_once(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        await ctx.step.run("nan", give, float("nan"))

    async def scenario(bench: Any) -> None:
        await bench.send()
        run = await bench.finish()
        assert run.error is not None
        assert run.error.name == "AnswerInvalid"

    assert bench_calls(on_bench(one_function(fn), scenario)) == 1


def without(header: str) -> Any:
    def alter(answer: IngressResponse) -> IngressResponse:
        kept = {name: value for name, value in answer.headers.items() if name != header}
        return msgspec.structs.replace(answer, headers=kept)

    return alter


def forged(answer: IngressResponse) -> IngressResponse:
    return msgspec.structs.replace(answer, body=b'"forged"')


@pytest.mark.parametrize("alter", [without("x-inngest-sdk"), without("x-inngest-signature"), forged])
def test_an_answer_that_is_not_provably_ours_never_completes_a_run(on_bench: Any, alter: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return "true"

    async def scenario(bench: Any) -> None:
        bench.wire.alter = alter
        await bench.send()
        await bench.engine.run_due()
        assert (await bench.only_run()).status is EngineRunStatus.RUNNING
        bench.wire.alter = None
        assert (await bench.finish()).output == "true"

    assert on_bench(one_function(fn), scenario).wire.attempts == [0, 1]


def test_a_call_that_does_not_get_through_is_tried_again(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.attempt

    def broken(_answer: IngressResponse) -> IngressResponse:
        raise ConnectionError("refused")

    async def scenario(bench: Any) -> None:
        bench.wire.alter = broken
        await bench.send()
        await bench.engine.run_due()
        bench.wire.alter = None
        assert (await bench.finish()).output == 1

    on_bench(one_function(fn), scenario)


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (OutgoingEvent(name="", data={}), EventRefusedError),
        (OutgoingEvent(name="inngest/function.failed", data={}), EventRefusedError),
        (OutgoingEvent(name="x" * 513, data={}), EventRefusedError),
        (OutgoingEvent(name="go", data={"x": "y" * 600_000}), EventRefusedError),
        (OutgoingEvent(name="go", data={"x": float("inf")}), NotCanonicalError),
        (OutgoingEvent(name="go", data={"x": "\ud800"}), NotCanonicalError),
        (OutgoingEvent(name="go", data={"x": 10**400}), NotCanonicalError),
    ],
)
def test_an_event_that_could_never_be_delivered_is_refused_and_nothing_of_its_batch_is_kept(
    on_bench: Any, event: OutgoingEvent, error: type[Exception]
) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return None

    async def scenario(bench: Any) -> None:
        with pytest.raises(error):
            await bench.engine.send([OutgoingEvent(name="go", data={}), event])
        assert await bench.engine.pending_count() == 0

    on_bench(one_function(fn), scenario)


@pytest.mark.parametrize(
    ("options", "setting"),
    [
        ({"trigger": inngest.TriggerCron(cron="* * * *")}, "five fields are needed"),
        ({"trigger": inngest.TriggerEvent(event="x", expression="evnt.a > 1")}, "undeclared reference to 'evnt.a'"),
        ({"trigger": TRIGGER, "cancel": [inngest.Cancel(event="x", if_exp="'a'")]}, "a condition is needed"),
        ({"trigger": TRIGGER, "concurrency": [inngest.Concurrency(limit=1)] * 3}, "at most 2 limits"),
        ({"trigger": TRIGGER, "concurrency": [inngest.Concurrency(limit=1, scope="env")]}, "scope env needs a key"),
        (
            {"trigger": TRIGGER, "batch_events": inngest.Batch(max_size=2), "priority": inngest.Priority(run="1")},
            "batchEvents cannot be together with priority",
        ),
        ({"trigger": TRIGGER, "batch_events": inngest.Batch(max_size=101)}, "maxSize is 1 to 100"),
        ({"trigger": TRIGGER, "debounce": inngest.Debounce(period=8 * 24 * 3_600_000)}, "1 s to 7 days"),
        ({"trigger": TRIGGER, "throttle": inngest.Throttle(limit=0, period=1000)}, "at least 1"),
        ({"trigger": TRIGGER, "rate_limit": inngest.RateLimit(limit=0, period=60_000)}, "the limit is at least 1"),
    ],
)
def test_a_function_that_asks_for_what_the_engine_lacks_is_refused_at_start(
    on_bench: Any, options: Any, setting: str
) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return None

    async def scenario(_bench: Any) -> None:
        raise AssertionError("it must not start")

    with pytest.raises(UnsupportedFunctionError, match=setting):
        on_bench(lambda client: [client.create_function(fn_id="fn", **options)(fn)], scenario)


def test_a_function_with_another_key_is_refused_at_start(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return None

    async def scenario(bench: Any) -> None:
        bench.wire.handler._signing_key = "signkey-test-" + "aa" * 32
        other = bench.another()
        try:
            with pytest.raises(SyncRefusedError, match="not from the Inngest SDK"):
                await other.prepare()
        finally:
            await other.stop(0)

    on_bench(one_function(fn), scenario)
