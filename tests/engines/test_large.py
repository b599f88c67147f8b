"""Runs that are too large to be part of a call: the SDK fetches what they remember."""

from __future__ import annotations

from functools import partial
from typing import Any

import inngest

TRIGGER = inngest.TriggerEvent(event="go")
MIB = 1024 * 1024


async def large(number: int) -> str:
    return str(number) * MIB


def test_what_a_run_remembers_beyond_four_mebibytes_is_fetched(on_bench: Any) -> None:
    ran: list[int] = []

    async def noted(number: int) -> str:
        ran.append(number)
        return await large(number)

    async def fn(ctx: inngest.Context) -> Any:
        return [(await ctx.step.run(str(number), noted, number))[0] for number in range(10)]

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == list("0123456789")

    bench = on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)
    assert ran == list(range(10))
    fetched = [body["use_api"] for body in bench.wire.bodies]
    assert fetched == [False] * 4 + [True] * 7
    for body in bench.wire.bodies[4:]:
        assert (body["ctx"]["use_api"], body["events"], body["steps"]) == (True, [], {})
    assert [len(body["ctx"]["stack"]["stack"]) for body in bench.wire.bodies] == list(range(11))


def test_parallel_steps_of_a_large_run_run_once_each(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        branches = tuple(partial(ctx.step.run, str(number), large, number) for number in range(6))
        return [text[0] for text in await ctx.group.parallel(branches)]

    async def scenario(bench: Any) -> None:
        await bench.send()
        assert (await bench.finish()).output == list("012345")

    bench = on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)], scenario)
    assert len(bench.wire.seen) == 1 + 6 + 1


def test_a_large_batch_is_fetched(on_bench: Any) -> None:
    async def fn(ctx: inngest.Context) -> Any:
        return [[event.data["n"], len(str(event.data["text"]))] for event in ctx.events]

    async def scenario(bench: Any) -> None:
        for n in range(10):
            await bench.send(n=n, text="x" * 500_000)
        assert (await bench.finish()).output == [[n, 500_000] for n in range(10)]

    batch = inngest.Batch(max_size=10)
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, batch_events=batch)(fn)], scenario)
