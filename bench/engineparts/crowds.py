"""What many runs cost an engine that has nothing to do: runs that sleep, and runs that have ended."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import psutil

from bench.engineparts.embedded import engine_on
from bench.engineparts.files import multiply
from bench.engineparts.functions import EVENT
from bench.engineparts.lengths import ReadyAnswers
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.ports import OutgoingEvent

MIB = 1024 * 1024


async def make(folder: Path, *, runs: int, sleeping: bool) -> None:
    """A file with so many runs that sleep for months, or that have ended after one step; none for `runs=0`."""
    engine = engine_on(folder, _app(sleeping=sleeping))
    await engine.start()
    if runs:
        await _one_more(engine)
    await engine.stop(0)
    if runs > 1:
        multiply(folder / "engine.sqlite", runs - 1, sleeping=sleeping)


async def idle(folder: Path, *, runs: int, seconds: float) -> dict[str, float]:
    """Put so many more runs to sleep, then do nothing: MiB of memory, and the share of a CPU."""
    engine = engine_on(folder, _app(sleeping=True))
    await engine.start()
    asleep = await engine.pending_count()
    await _many_more(engine, runs)
    assert await engine.pending_count() == asleep + runs, "a run does not sleep"
    await asyncio.sleep(1)
    began_cpu_s, began_s = time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    cpu_share = (time.process_time() - began_cpu_s) / (time.perf_counter() - began_s)
    resident = psutil.Process().memory_info().rss / MIB
    await engine.stop(0)
    return {"cpuPercent": cpu_share * 100, "memoryMib": resident}


async def start_up(folder: Path) -> dict[str, float]:
    """Seconds from nothing to the last call of a new run of one step: open the file, register, claim, call."""
    app = _app(sleeping=False)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    engine = engine_on(folder, app)
    await engine.start()
    started_s = time.perf_counter() - began_s
    await engine.send([OutgoingEvent(name=EVENT, data={"n": 1})])
    await app.done.wait()
    took = {"wallS": time.perf_counter() - began_s, "cpuS": time.process_time() - began_cpu_s, "startS": started_s}
    await engine.stop(0)
    return took


def _app(*, sleeping: bool) -> ReadyAnswers:
    return ReadyAnswers(1, first_sleeps=sleeping)


async def _one_more(engine: EmbeddedEngine) -> None:
    await _many_more(engine, 1)


async def _many_more(engine: EmbeddedEngine, runs: int) -> None:
    await engine.send([OutgoingEvent(name=EVENT, data={"n": number}) for number in range(runs)])
    async with asyncio.timeout(300):
        while not await engine.is_idle():  # noqa: ASYNC110 - the engine is the thing that is measured
            await asyncio.sleep(0.005)
