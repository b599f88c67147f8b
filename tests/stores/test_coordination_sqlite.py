"""What only a store on disk can show: several processes, and the end of one of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import apsw
import msgspec
import pytest

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType, MemoryKey, Run, RunStatus
from rawr.coordination.store_schema import MIGRATIONS
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.errors import CorruptFileError
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.storage.sqlite import Database
from rawr.testing.clock import FakeClock

AT = "2026-01-01T00:00:00.000Z"
RUN_ID = RunId("r1")

APPENDER = """
import asyncio, sys
from pathlib import Path
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.ids import RunId

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])

async def main():
    with SqliteCoordinationStore(path) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        for number in range(count):
            fact = Fact(key=f"{name}/{number}", type=EventType.DESK_STARTED, at="2026-01-01T00:00:00.000Z")
            await store.record(RunId("r1"), fact)
            print(number, flush=True)

asyncio.run(main())
"""


def test_a_workflow_that_was_stored_in_another_way_of_writing_is_the_same_workflow(tmp_path: Path) -> None:
    path = tmp_path / "coordination.sqlite"
    document = {"workflowId": "echo", "version": 1, "name": "E", "entryDeskId": "a", "desks": [], "handoffs": []}
    run = Run(
        run_id=RUN_ID,
        workflow_id=WorkflowId("echo"),
        workflow_version=1,
        status=RunStatus.QUEUED,
        started_at=AT,
        trace_links=(),
    )
    fact = Fact(key="queued", type=EventType.RUN_STARTED, at=AT)
    with SqliteCoordinationStore(path) as store, Database(path, MIGRATIONS) as raw:
        raw.write_sync(
            lambda c: c.execute("INSERT INTO workflow VALUES ('echo', 1, ?)", (json.dumps(document, indent=2),))
        )
        read = asyncio.run(store.get_workflow(WorkflowId("echo")))
        assert asyncio.run(store.create_run(run, fact, newest=read)).created


def appender(path: Path, name: str, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", APPENDER, str(path), name, str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


async def running(store: SqliteCoordinationStore) -> None:
    run = Run(
        run_id=RUN_ID,
        workflow_id=WorkflowId("echo"),
        workflow_version=1,
        status=RunStatus.QUEUED,
        started_at=AT,
        trace_links=(),
    )
    await store.create_run(run, Fact(key="queued", type=EventType.RUN_STARTED, at=AT))
    await store.record(RUN_ID, Fact(key="running", type=EventType.RUN_STARTED, at=AT))


def test_three_processes_that_append_a_hundred_each_leave_no_gap(tmp_path: Path) -> None:
    path = tmp_path / "coordination.sqlite"
    with SqliteCoordinationStore(path, FakeClock()) as store:
        asyncio.run(running(store))
        processes = [appender(path, name, 100) for name in ("a", "b", "c")]
        for process in processes:
            go(process)
        for process in processes:
            process.communicate(timeout=60)
            assert process.returncode == 0
        timeline = asyncio.run(store.timeline(RUN_ID))
    assert [event.seq for event in timeline] == list(range(1, 303))
    assert len({event.event_id for event in timeline}) == 302


def test_every_acknowledged_event_survives_the_killing_of_its_writer(tmp_path: Path) -> None:
    path = tmp_path / "coordination.sqlite"
    with SqliteCoordinationStore(path, FakeClock()) as store:
        asyncio.run(running(store))
    acknowledged = 0
    for attempt in range(5):
        process = appender(path, f"round-{attempt}", 100_000)
        go(process)
        assert process.stdout is not None
        for _ in range(1 + 7 * attempt):
            process.stdout.readline()
        process.kill()
        rest = process.stdout.read()  # communicate() would skip what readline() has read ahead
        process.communicate()
        acknowledged += 1 + 7 * attempt + rest.count("\n")
        with SqliteCoordinationStore(path, FakeClock()) as store:
            timeline = asyncio.run(store.timeline(RUN_ID))
        assert [event.seq for event in timeline] == list(range(1, len(timeline) + 1))
        # The last write of each round may have been stored without anybody having heard of it.
        assert acknowledged <= len(timeline) - 2 <= acknowledged + attempt + 1


def test_a_damaged_store_is_an_error_and_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "coordination.sqlite"
    path.write_bytes(b"not a database, but somebody's file\n" * 100)
    before = path.read_bytes()
    with pytest.raises(CorruptFileError, match=r"coordination\.sqlite"):
        SqliteCoordinationStore(path, FakeClock())
    assert path.read_bytes() == before


def test_a_store_from_before_the_finished_hooks_is_brought_up_to_date_with_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "coordination.sqlite"
    Database(path, MIGRATIONS[:1]).close()
    connection = apsw.Connection(str(path))
    connection.execute(
        "INSERT INTO run (run_id, workflow_id, workflow_version, status, last_seq, started_at, trace_links)"
        " VALUES ('r1', 'echo', 1, 'failed', 1, ?, '[]')",
        (AT,),
    )
    connection.close()
    with SqliteCoordinationStore(path, FakeClock()) as store:
        run = asyncio.run(store.get_run(RUN_ID))
        assert run is not None
        assert (run.status, run.finalization) == (RunStatus.FAILED, msgspec.UNSET)
        assert asyncio.run(store.unheard_runs(9)) == []


def test_appending_and_looking_up_never_scan_or_sort_a_table(tmp_path: Path) -> None:
    statements: dict[str, Sequence[object]] = {}

    def remember(_: apsw.Cursor, sql: str, bindings: Sequence[object] | None) -> bool:
        if sql.lstrip().startswith("SELECT"):
            statements[sql] = bindings or ()
        return True

    def traced(connection: apsw.Connection) -> None:
        connection.exec_trace = remember  # type: ignore[assignment]  # the stub spells its bindings out

    apsw.connection_hooks.append(traced)
    try:
        with SqliteCoordinationStore(tmp_path / "coordination.sqlite", FakeClock()) as store:
            asyncio.run(running(store))
            asyncio.run(look_around(store))
    finally:
        apsw.connection_hooks.remove(traced)
    connection = apsw.Connection(str(tmp_path / "coordination.sqlite"))
    assert len(statements) >= 8
    for sql, bindings in statements.items():
        if "rawr_migration" in sql:
            continue
        plan = [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", bindings)]
        assert not [line for line in plan if line.startswith("SCAN") or "TEMP B-TREE" in line], (sql, plan)
    connection.close()


async def look_around(store: SqliteCoordinationStore) -> None:
    await store.get_run(RUN_ID)
    await store.timeline(RUN_ID)
    await store.desk_result(RUN_ID, DeskId("draft"))
    await store.list_runs(limit=3, workflow_id=WorkflowId("echo"))
    await store.get_workflow(WorkflowId("echo"))
    at = MemoryKey(
        workflow_id=WorkflowId("echo"), workflow_version=1, desk_id=DeskId("draft"), namespace="", key="last"
    )
    await store.get_memory(at, now_ms=0)
    await store.finished_effect(RUN_ID, "mail")
