"""Who goes first when both want the same core: starting a run takes a millisecond, and the work of runs many of them.

People and agents wait for the answer to a start, and nobody minds whether a desk begins a moment later. So what was
asked to start is durable before the work of runs goes on; that still gets a turn now and then, or it would never go on
where starts keep coming.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

TURN_S: Final = 0.025
"""Of a core, a call of a run with its share of reading and writing takes two to three milliseconds: a tenth of this."""


class Precedence:
    """Starts before work, within one event loop. While starts are under way, one call of a run begins each `turn_s`."""

    def __init__(self, turn_s: float = TURN_S) -> None:
        self._turn_s = turn_s
        self._under_way = 0
        self._is_free = asyncio.Event()
        self._is_free.set()
        self._line = asyncio.Lock()

    @contextmanager
    def starting(self) -> Iterator[None]:
        """A start is under way within this."""
        self._under_way += 1
        self._is_free.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._is_free.set()

    async def turn(self) -> None:
        """Wait until no start is under way, or until it is one's turn all the same. First come, first served."""
        if self._under_way == 0 and not self._line.locked():
            return
        async with self._line:
            try:
                async with asyncio.timeout(self._turn_s):
                    await self._is_free.wait()
            except TimeoutError:
                return
