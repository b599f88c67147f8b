"""The embedded engine as a host runs it: calls go through the guarded app of the same process, signed and verified."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import apsw

from bench.engineparts.functions import EVENT, KEY, ORIGIN, Trivial
from rawr.clock import SystemClock
from rawr.execution import signing
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.ports import EngineCall, IngressResponse, OutgoingEvent
from rawr.host.asgi_call import PATH, asgi_call
from rawr.host.authority import Authority
from rawr.host.guard import Guard
from rawr.host.ingest import IngestFamily
from rawr.host.settings import HostSettings
from rawr.security.credentials import GivenKey
from rawr.security.policy import Caller, Unproven

WARM_UP_RUNS = 5


def engine_on(folder: Path, call: EngineCall) -> EmbeddedEngine:
    return EmbeddedEngine(
        database=folder / "engine.sqlite",
        run_dir=folder / "run",
        call=call,
        signing_key=KEY,
        clock=SystemClock(),
        serve_url=ORIGIN + PATH,
    )


async def many_runs(folder: Path, *, runs: int, steps: int) -> dict[str, float]:
    """Seconds from the first event to the end of the last run; the CPU seconds of the process meanwhile."""
    function = Trivial(steps)
    engine = engine_on(folder, guarded(function))
    await engine.start()
    await _finish(engine, WARM_UP_RUNS)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await _finish(engine, runs)
    took = {"wallS": time.perf_counter() - began_s, "cpuS": time.process_time() - began_cpu_s}
    await engine.stop(0)
    return took


async def step_gaps(folder: Path, *, steps: int) -> dict[str, float]:
    """Of one run with nothing beside it: from the moment a step is entered to when the next one is.

    Also as a multiple of what the disk needs for one small commit, at the same time.
    """
    function = Trivial(steps)
    engine = engine_on(folder, guarded(function))
    await engine.start()
    await _finish(engine, 1)
    function.entered_s.clear()
    await _finish(engine, 1)
    await engine.stop(0)
    gap_ms = statistics.median(later - earlier for earlier, later in pairwise(function.entered_s)) * 1000
    commit_ms = _commit_ms(folder / "commits.sqlite")
    return {"gapP50Ms": gap_ms, "commitP50Ms": commit_ms, "gapPerCommit": gap_ms / commit_ms}


def _commit_ms(file: Path) -> float:
    database = apsw.Connection(str(file))
    list(database.execute("PRAGMA journal_mode=wal; PRAGMA synchronous=FULL; CREATE TABLE t (n)"))
    took_s = []
    for number in range(100):
        began_s = time.perf_counter()
        list(database.execute("INSERT INTO t VALUES (?)", (number,)))
        took_s.append(time.perf_counter() - began_s)
    database.close()
    return statistics.median(took_s) * 1000


class _NobodyElse:
    """Only signatures count here."""

    def bearer(self, key: GivenKey) -> Caller | Unproven:  # noqa: ARG002 - whatever it is
        return Unproven(reason="")

    def session(self, secrets: Sequence[str]) -> Caller | Unproven:  # noqa: ARG002 - whatever they are
        return Unproven(reason="")


def guarded(function: Trivial) -> EngineCall:
    settings = HostSettings()
    ingress = IngestFamily(
        function.ingress(),
        Authority(_NobodyElse(), port=3000, rates=settings.rates, clock=SystemClock()),
        keys=(KEY,),
        mac=signing.mac,
        clock=SystemClock(),
        limits=settings.limits,
        base_url=ORIGIN,
    )
    app = Guard(ingress, settings, clock=SystemClock(), access_log=lambda _: None)

    async def call(method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> IngressResponse:
        return await asgi_call(app, method, query, headers, body)

    return call


async def _finish(engine: EmbeddedEngine, runs: int) -> None:
    """Send so many events, each for itself as its own sender would, and wait for the end of what they start."""
    await asyncio.gather(*[engine.send([OutgoingEvent(name=EVENT, data={"n": n})]) for n in range(runs)])
    async with asyncio.timeout(120):
        while await engine.pending_count() > 0:  # noqa: ASYNC110 - the engine is the thing that is measured
            await asyncio.sleep(0.005)
    assert all(run.output is not None for run in await engine.runs(runs)), "a run of the benchmark failed"
