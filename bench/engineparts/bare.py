"""The least that is durable: the SDK's handler called directly, one call after the other, two commits for each.

What any engine of this protocol has to do: the RFC 8785 form of the body and its signature, the SDK, the answer, a
commit that the call begins and one for what came of it (WAL, synchronous=FULL). There are no events, waits, timers,
limits, leases or other processes, and nobody verifies the answer.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import apsw
import jcs

from bench.engineparts.functions import EVENT, KEY, ORIGIN, Trivial
from rawr.execution import signing
from rawr.execution.ports import Ingress, IngressRequest

_TABLES = """
PRAGMA journal_mode=wal;
PRAGMA synchronous=FULL;
CREATE TABLE runs (run_id TEXT PRIMARY KEY, event TEXT NOT NULL, status TEXT NOT NULL, output TEXT);
CREATE TABLE steps (run_id TEXT, step_id TEXT, seq INTEGER, memo TEXT, PRIMARY KEY (run_id, step_id));
CREATE TABLE queue (job_id INTEGER PRIMARY KEY, run_id TEXT NOT NULL, leased_until INTEGER NOT NULL);
"""


async def many_runs(folder: Path, *, runs: int, steps: int) -> dict[str, float]:
    """Seconds from the first run to the end of the last one; the CPU seconds of the process meanwhile."""
    database = apsw.Connection(str(folder / "bare.sqlite"))
    list(database.execute(_TABLES))
    ingress = Trivial(steps).ingress()
    await _finish(database, ingress, [f"{number:026d}" for number in range(5)])
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    await _finish(database, ingress, [f"{number:026d}" for number in range(100, 100 + runs)])
    took = {"wallS": time.perf_counter() - began_s, "cpuS": time.process_time() - began_cpu_s}
    [(ended,)] = database.execute("SELECT count(*) FROM runs WHERE status = 'completed'")
    assert ended == runs + 5, "a run of the benchmark failed"
    return took


async def _finish(database: apsw.Connection, ingress: Ingress, run_ids: list[str]) -> None:
    for run_id in run_ids:
        event = {"name": EVENT, "data": {"n": 1}, "id": run_id, "ts": time.time_ns() // 1_000_000, "user": {}}
        with database:
            database.execute("INSERT INTO runs VALUES (?, ?, 'queued', NULL)", (run_id, json.dumps(event)))
            database.execute("INSERT INTO queue (run_id, leased_until) VALUES (?, 0)", (run_id,))
    while (job := _claimed(database)) is not None:
        job_id, run_id = job
        await _call(database, ingress, job_id, run_id)


def _claimed(database: apsw.Connection) -> tuple[int, str] | None:
    claim = "UPDATE queue SET leased_until = ? WHERE job_id = (SELECT min(job_id) FROM queue) RETURNING job_id, run_id"
    with database:
        found = list(database.execute(claim, (int(time.time()) + 30,)))
    return found[0] if found else None


async def _call(database: apsw.Connection, ingress: Ingress, job_id: int, run_id: str) -> None:
    [(event,)] = database.execute("SELECT event FROM runs WHERE run_id = ?", (run_id,))
    done = list(database.execute("SELECT step_id, memo FROM steps WHERE run_id = ? ORDER BY seq", (run_id,)))
    answer = await ingress.handle(_request(run_id, json.loads(event), {step: json.loads(memo) for step, memo in done}))
    body = json.loads(answer.body)
    with database:
        database.execute("DELETE FROM queue WHERE job_id = ?", (job_id,))
        if answer.status == 200:
            database.execute(
                "UPDATE runs SET status = 'completed', output = ? WHERE run_id = ?", (answer.body.decode(), run_id)
            )
            return
        memo = json.dumps({"data": body[0]["data"]})
        database.execute("INSERT INTO steps VALUES (?, ?, ?, ?)", (run_id, body[0]["id"], len(done) + 1, memo))
        database.execute("INSERT INTO queue (run_id, leased_until) VALUES (?, 0)", (run_id,))


def _request(run_id: str, event: dict[str, Any], memos: dict[str, Any]) -> IngressRequest:
    ctx = {
        "attempt": 0,
        "disable_immediate_execution": False,
        "env": "",
        "fn_id": "trivial",
        "max_attempts": 5,
        "run_id": run_id,
        "stack": {"current": len(memos), "stack": list(memos)},
        "step_id": "step",
        "use_api": False,
    }
    body = jcs.canonicalize(
        {"ctx": ctx, "event": event, "events": [event], "steps": memos, "use_api": False, "version": 2}
    )
    signature = signing.sign_canonical(body, KEY, int(time.time()))
    return IngressRequest(
        method="POST",
        url=f"{ORIGIN}/api/inngest",
        query={"fnId": "rawr-coordination-trivial", "stepId": "step"},
        headers={"content-type": "application/json", signing.HEADER: signature},
        body=body,
    )
