"""Every operation of the SDK, in async and in sync functions: which calls it takes, in order, and what each carries."""

from __future__ import annotations

import datetime
import hashlib
from functools import partial
from typing import Any

import inngest
import pytest

TRIGGER = inngest.TriggerEvent(event="go")
MINUTE_MS = 60_000
SOON = datetime.datetime(2026, 1, 1, 0, 0, 5, tzinfo=datetime.UTC)  # five seconds by the bench's clock
DATA = {"data": 7}
ERROR = {"error": {"name", "message", "stack"}}
EVENT = {"name", "id", "ts", "user", "data"}


def hashed(step_id: str) -> str:
    return hashlib.sha1(step_id.encode(), usedforsecurity=False).hexdigest()


def seven() -> int:
    return 7


def bad() -> int:
    raise ValueError("no")


async def async_fn(ctx: inngest.Context) -> Any:
    step = ctx.step
    match ctx.event.data["op"]:
        case "run":
            return await step.run("s", give_seven)
        case "again":
            return [await step.run("s", give_seven), await step.run("s", give_seven)]
        case "error":
            try:
                return await step.run("s", give_bad)
            except inngest.StepError as error:
                return error.message
        case "sleep":
            return await step.sleep_until("s", SOON)
        case "wait":
            event = await step.wait_for_event("s", event="news", timeout=MINUTE_MS)
            return event and event.name
        case "timeout":
            return await step.wait_for_event("s", event="never", timeout=MINUTE_MS)
        case "invoke":
            return await step.invoke_by_id("s", function_id="child")
        case "parallel":
            branches = tuple(partial(step.run, name, give_seven) for name in "ab")
            return list(await ctx.group.parallel(branches))
        case "race":
            branches = tuple(partial(step.run, name, give_seven) for name in "ab")
            return list(await ctx.group.parallel(branches, parallel_mode=inngest.ParallelMode.RACE))


async def give_seven() -> int:
    return seven()


async def give_bad() -> int:
    return bad()


def sync_fn(ctx: inngest.ContextSync) -> Any:
    step = ctx.step
    match ctx.event.data["op"]:
        case "run":
            return step.run("s", seven)
        case "again":
            return [step.run("s", seven), step.run("s", seven)]
        case "error":
            try:
                return step.run("s", bad)
            except inngest.StepError as error:
                return error.message
        case "sleep":
            return step.sleep_until("s", SOON)
        case "wait":
            event = step.wait_for_event("s", event="news", timeout=MINUTE_MS)
            return event and event.name
        case "timeout":
            return step.wait_for_event("s", event="never", timeout=MINUTE_MS)
        case "invoke":
            return step.invoke_by_id("s", function_id="child")
        case "parallel":
            branches = tuple(partial(step.run, name, seven) for name in "ab")
            return list(ctx.group.parallel(branches))
        case "race":
            branches = tuple(partial(step.run, name, seven) for name in "ab")
            return list(ctx.group.parallel(branches, parallel_mode=inngest.ParallelMode.RACE))


def child(ctx: inngest.ContextSync) -> int:
    return 7


TRANSCRIPTS: dict[str, tuple[Any, list[tuple[str | None, int, list[str]]], dict[str, Any]]] = {
    # op: what the function returns; its calls as (targeted step, attempt, stack); the memos of the last call
    "run": (7, [(None, 0, []), (None, 0, ["s"])], {"s": DATA}),
    "again": ([7, 7], [(None, 0, []), (None, 0, ["s"]), (None, 0, ["s", "s:1"])], {"s": DATA, "s:1": DATA}),
    "error": ("no", [(None, 0, []), (None, 1, []), (None, 0, ["s"])], {"s": ERROR}),
    "sleep": (None, [(None, 0, []), (None, 0, ["s"])], {"s": None}),
    "wait": ("news", [(None, 0, []), (None, 0, ["s"])], {"s": EVENT}),
    "timeout": (None, [(None, 0, []), (None, 0, ["s"])], {"s": None}),
    "invoke": (7, [(None, 0, []), (None, 0, ["s"])], {"s": DATA}),
    "parallel": ([7, 7], [(None, 0, []), ("a", 0, []), ("b", 0, []), (None, 0, ["a", "b"])], {"a": DATA, "b": DATA}),
}


def shape(memo: Any) -> Any:
    """A memo without what differs from run to run."""
    if isinstance(memo, dict) and set(memo) == {"error"}:
        return {"error": set(memo["error"])}
    return set(memo) if isinstance(memo, dict) and "name" in memo else memo


@pytest.mark.parametrize("op", TRANSCRIPTS)
@pytest.mark.parametrize("fn", [async_fn, sync_fn])
def test_an_operation_takes_the_calls_of_the_protocol_and_no_others(on_bench: Any, fn: Any, op: str) -> None:
    output, calls, memos = TRANSCRIPTS[op]

    def functions(client: inngest.Inngest) -> Any:
        never = inngest.TriggerEvent(event="call")
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER, retries=1)(fn),
            client.create_function(fn_id="child", trigger=never)(child),
        ]

    async def scenario(bench: Any) -> None:
        await bench.send(op=op)
        await bench.engine.run_due()
        if op == "wait":
            await bench.send("news")
        while await bench.engine.pending_count():
            await bench.engine.run_due()
            bench.clock.advance(5_000)
        (run,) = [run for run in await bench.engine.runs(10) if run.fn_id == "app-fn"]
        assert run.output == output

    bench = on_bench(functions, scenario)
    bodies = [body for seen, body in zip(bench.wire.seen, bench.wire.bodies, strict=True) if seen.function == "fn"]
    made = [(seen.step_id, seen.attempt) for seen in bench.wire.seen if seen.function == "fn"]
    assert made == [(step and hashed(step), attempt) for step, attempt, _ in calls]
    assert [body["ctx"]["stack"]["stack"] for body in bodies] == [[hashed(s) for s in stack] for _, _, stack in calls]
    assert {step_id: shape(memo) for step_id, memo in bodies[-1]["steps"].items()} == {
        hashed(step): memo for step, memo in memos.items()
    }
    for body in bodies:
        ctx = body["ctx"]
        assert set(ctx["stack"]["stack"]) == set(body["steps"])
        assert (ctx["max_attempts"], ctx["use_api"], body["use_api"]) == (2, False, False)
        assert ctx["disable_immediate_execution"] == (op == "parallel" and 0 < bodies.index(body) < 3)
        assert body["events"] == [body["event"]]
        assert set(body["event"]) == EVENT


@pytest.mark.parametrize("fn", [async_fn, sync_fn])
def test_a_race_takes_a_discovery_after_each_of_its_steps(on_bench: Any, fn: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.send(op="race")
        assert (await bench.finish()).output == [7, 7]

    functions = on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)
    assert sorted(seen.step_id or "" for seen in functions.wire.seen) == ["", "", "", *sorted(map(hashed, "ab"))]
