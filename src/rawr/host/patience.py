"""Giving up what takes too long, for many tasks with one timer. For one event loop.

`asyncio.timeout` sets and cancels a timer for each request, which costs more than everything else the guard does.
"""

from __future__ import annotations

import asyncio


class Patience:
    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._since: dict[asyncio.Task[object], float] = {}
        """In the order in which they began."""
        self._given_up: set[asyncio.Task[object]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> asyncio.Task[object]:
        """The running task, which has begun something that it must `end`. When it takes too long it is cancelled."""
        task = asyncio.current_task()
        assert task is not None, "this is called from a task"
        loop = task.get_loop()
        self._since[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._most_s, self._look, loop)
        return task

    def has_given_up(self, task: asyncio.Task[object]) -> bool:
        """Whether it was cancelled by us."""
        return task in self._given_up

    def end(self, task: asyncio.Task[object]) -> None:
        del self._since[task]
        self._given_up.discard(task)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up the tasks whose time is over, and come back when that of the next one is."""
        self._timer = None
        for task, since_s in self._since.items():
            left_s = since_s + self._most_s - loop.time()
            if left_s > 0:
                self._timer = loop.call_later(left_s, self._look, loop)
                return
            if task not in self._given_up:
                self._given_up.add(task)
                task.cancel()
