"""Starts go before work, and work still gets its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from rawr.execution.precedence import Precedence

NEVER_S = 3600.0


def done(waiting: Coroutine[Any, Any, None]) -> None:
    async def in_time() -> None:
        async with asyncio.timeout(60):
            await waiting

    asyncio.run(in_time())


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_work_goes_on_at_once_when_nothing_is_being_started() -> None:
    async def scene() -> None:
        await Precedence(NEVER_S).turn()

    done(scene())


def test_work_waits_until_the_last_start_is_through() -> None:
    async def scene() -> None:
        precedence = Precedence(NEVER_S)
        with precedence.starting():
            with precedence.starting():
                work = [asyncio.create_task(precedence.turn()) for _ in range(3)]
                await settled()
            await settled()
            assert not any(one.done() for one in work)
        await asyncio.gather(*work)
        await precedence.turn()

    done(scene())


def test_a_start_that_fails_is_through_as_well() -> None:
    async def scene() -> None:
        precedence = Precedence(NEVER_S)
        try:
            with precedence.starting():
                raise ZeroDivisionError
        except ZeroDivisionError:
            await precedence.turn()

    done(scene())


def test_work_gets_its_turn_though_starts_never_cease_one_after_the_other_as_it_came() -> None:
    turns: list[int] = []

    async def work(precedence: Precedence, number: int) -> None:
        await precedence.turn()
        turns.append(number)

    async def scene() -> None:
        precedence = Precedence(0.001)
        with precedence.starting():
            await asyncio.gather(*(work(precedence, number) for number in range(5)))

    done(scene())
    assert turns == [0, 1, 2, 3, 4]


def test_who_is_cancelled_while_waiting_holds_up_nobody() -> None:
    async def scene() -> None:
        precedence = Precedence(NEVER_S)
        with precedence.starting():
            first, second = (asyncio.create_task(precedence.turn()) for _ in range(2))
            await settled()
            first.cancel()
            await settled()
        await second

    done(scene())
