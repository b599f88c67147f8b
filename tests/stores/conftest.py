"""The stores of coordination under one suite: each step of a test runs on a store that was opened for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from rawr.coordination.ports import CoordinationStore
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.testing.clock import FakeClock
from rawr.testing.stores import MemoryCoordinationStore

T = TypeVar("T")
Bench = Callable[[Callable[[CoordinationStore], Awaitable[T]]], T]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Bench[T]:
    """`bench(step)` runs `step(store)`; SQLite is closed and opened again around every step."""
    kept = MemoryCoordinationStore(clock)

    def on_memory(step: Callable[[CoordinationStore], Awaitable[T]]) -> T:
        return asyncio.run(_awaited(step, kept))

    def on_sqlite(step: Callable[[CoordinationStore], Awaitable[T]]) -> T:
        with SqliteCoordinationStore(tmp_path / "coordination.sqlite", clock) as store:
            return asyncio.run(_awaited(step, store))

    return on_memory if request.param == "memory" else on_sqlite


async def _awaited(step: Callable[[CoordinationStore], Awaitable[T]], store: CoordinationStore) -> T:
    return await step(store)
