"""DBOS on SQLite, doing the same work: workflows of trivial steps, from a cold queue.

It is given the durability that the engine has, in the form that suits it best: a write-ahead log and
`synchronous=FULL`, set for every connection that its pool opens and asserted. (By itself it would use a rollback
journal, which costs more fsyncs per commit.) Its queue polls as often as it may be told to.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WARM_UP_RUNS = 5
POLL_S = 0.05


def many_runs(folder: Path, *, runs: int, steps: int, form: str) -> dict[str, float]:
    """Seconds from the first workflow to the end of the last one; the CPU seconds of the process meanwhile.

    `form`: `queue` puts all of them in a queue; `call` calls one after the other, which costs it least.
    """
    from dbos import DBOS
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    modes: set[tuple[Any, Any]] = set()

    def make_durable(raw: Any, _: object) -> None:
        [mode] = raw.execute("PRAGMA journal_mode=wal").fetchone()
        raw.execute("PRAGMA synchronous=FULL")
        [level] = raw.execute("PRAGMA synchronous").fetchone()
        modes.add((mode, level))

    def do_nothing(number: int) -> int:
        return number

    event.listen(Engine, "connect", make_durable)
    DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{folder / 'dbos.sqlite'}", "log_level": "ERROR"})
    step = DBOS.step()(do_nothing)

    def all_steps() -> list[int]:
        return [step(number) for number in range(steps)]

    workflow = DBOS.workflow()(all_steps)
    DBOS.launch()
    queue = DBOS.register_queue("bench", polling_interval_sec=POLL_S)
    forms: dict[str, Callable[[int], list[Any]]] = {
        "queue": lambda count: [done.get_result() for done in [queue.enqueue(workflow) for _ in range(count)]],
        "call": lambda count: [workflow() for _ in range(count)],
    }
    forms[form](WARM_UP_RUNS)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    results = forms[form](runs)
    took = {"wallS": time.perf_counter() - began_s, "cpuS": time.process_time() - began_cpu_s}
    assert results == [list(range(steps))] * runs
    assert modes == {("wal", 2)}, f"not as durable as the engine: {modes}"
    DBOS.destroy()
    return took
