"""What the coordination store writes in one transaction: each function here is a unit, or a part of one.

A run and the event that changed it are written together. The run's row carries the number of its last event, so that
appending costs the same however long the timeline is.
"""

from __future__ import annotations

import msgspec

from rawr.coordination import store_rules
from rawr.coordination.forks import Fork
from rawr.coordination.lifecycle import Fact, advance, event_id, event_of, finished, links_when_dispatched
from rawr.coordination.model import Finalization, FinishedHookState, MemoryRecord, Run, TraceLink, Workflow
from rawr.coordination.ports import CreatedRun, FinishedEffect
from rawr.coordination.store_rows import SELECT_RUN, json_or_null, memory_key, run_of, text_or_null
from rawr.coordination.store_rules import Save, to_json
from rawr.ids import RunId, WorkflowId
from rawr.storage.sqlite import Connection


def save_workflow(connection: Connection, workflow: Workflow, document: str) -> None:
    newest = workflow_of(connection, workflow.workflow_id, None)
    is_used = newest is not None and connection.one(
        "SELECT 1 FROM run WHERE workflow_id = ? AND workflow_version = ? LIMIT 1",
        (newest.workflow_id, newest.version),
    )
    if store_rules.save_decision(workflow, newest, newest_is_used=bool(is_used)) is Save.KEEP:
        return
    connection.execute(
        "INSERT INTO workflow (workflow_id, version, document) VALUES (?, ?, ?) "
        "ON CONFLICT (workflow_id, version) DO UPDATE SET document = excluded.document",
        (workflow.workflow_id, workflow.version, document),
    )


def workflow_of(connection: Connection, workflow_id: WorkflowId, version: int | None) -> Workflow | None:
    row = connection.one(
        "SELECT document FROM workflow WHERE workflow_id = ? AND version = coalesce(?, version) "
        "ORDER BY version DESC LIMIT 1",
        (workflow_id, version),
    )
    return None if row is None else msgspec.json.decode(row[0], type=Workflow)


def create_run(connection: Connection, run: Run, fact: Fact, fork: Fork | None, newest: Workflow | None) -> CreatedRun:
    number = _insert_run(connection, run, newest)
    if number is None:
        existing = connection.one(SELECT_RUN + "WHERE run_id = ?", (run.run_id,))
        if existing is not None:
            store_rules.check_same_workflow(run_of(existing), run.workflow_id)
            return CreatedRun(run=run_of(existing), created=False)
        if newest is not None and workflow_of(connection, newest.workflow_id, None) != newest:
            raise store_rules.workflow_moved(newest)
        # It says the same and is written in another way: another rawr has stored it.
        return create_run(connection, run, fact, fork, None)
    if run.input is not msgspec.UNSET:
        connection.execute("INSERT INTO run_input (run_number, input) VALUES (?, ?)", (number, to_json(run.input)))
    if run.finalization is not msgspec.UNSET:
        connection.execute(
            "INSERT INTO run_finalization (run_number, contract, finished_hook) VALUES (?, ?, ?)",
            (number, to_json(run.finalization.contract), json_or_null(run.finalization.finished_hook)),
        )
    if fork is not None:
        connection.execute("INSERT INTO run_fork (run_number, fork) VALUES (?, ?)", (number, to_json(fork)))
    _insert_event(connection, number, run, fact, seq=1)
    return CreatedRun(run=run, created=True)


def _insert_run(connection: Connection, run: Run, newest: Workflow | None) -> int | None:
    """The number of the new row; None when its id is taken, or `newest` is not stored in these words as the newest."""
    connection.execute(
        "INSERT INTO run (run_id, workflow_id, workflow_version, status, last_seq, started_at, finished_at, output, "
        "error, trace_links) SELECT ?, ?, ?, ?, 1, ?, ?, ?, ?, ? WHERE ? IS NULL "
        "OR (SELECT document FROM workflow WHERE workflow_id = ? ORDER BY version DESC LIMIT 1) = ? "
        "ON CONFLICT (run_id) DO NOTHING",
        (
            run.run_id,
            run.workflow_id,
            run.workflow_version,
            run.status.value,
            run.started_at,
            text_or_null(run.finished_at),
            json_or_null(run.output),
            text_or_null(run.error),
            to_json(run.trace_links),
            document := None if newest is None else to_json(newest),
            run.workflow_id,
            document,
        ),
    )
    return connection.last_row_id if connection.changes else None


def mark_dispatched(connection: Connection, run: Run, trace_link: TraceLink | None) -> Run:
    marked = connection.one("UPDATE run SET dispatched = 1 WHERE run_id = ? RETURNING number, last_seq", (run.run_id,))
    if marked is None:
        raise store_rules.run_not_found(run.run_id)
    if marked[1] == 1 and trace_link is None:
        return run  # nothing has happened to it since it was created
    row = connection.one(SELECT_RUN + "WHERE number = ?", (marked[0],))
    assert row is not None
    now = run_of(row)
    links = links_when_dispatched(now, trace_link)
    connection.execute("UPDATE run SET trace_links = ? WHERE number = ?", (to_json(links), marked[0]))
    return msgspec.structs.replace(now, trace_links=links)


def record(connection: Connection, run_id: RunId, fact: Fact) -> Run:
    row = connection.one(SELECT_RUN + "WHERE run_id = ?", (run_id,))
    if row is None:
        raise store_rules.run_not_found(run_id)
    number, last_seq, run = row[0], row[1], run_of(row)
    known = connection.one(
        "SELECT 1 FROM event WHERE run_number = ? AND event_id = ?", (number, event_id(run_id, fact.key))
    )
    after = None if known else advance(run, fact)
    if after is None:
        return run
    _append(connection, number, after, fact, seq=last_seq + 1)
    return after


def record_finished_hook(connection: Connection, run_id: RunId, state: FinishedHookState) -> Run:
    row = connection.one(SELECT_RUN + "WHERE run_id = ?", (run_id,))
    if row is None:
        raise store_rules.run_not_found(run_id)
    run = run_of(row)
    after = finished(run, state)
    if after is None:
        return run
    assert after.finalization is not msgspec.UNSET, "the outcome is in it"
    _keep_finished_hook(connection, row[0], after.finalization)
    return after


def _keep_finished_hook(connection: Connection, number: int, finalization: Finalization) -> None:
    connection.execute(
        "UPDATE run_finalization SET finished_hook = ? WHERE run_number = ?",
        (json_or_null(finalization.finished_hook), number),
    )


def finished_effect(connection: Connection, run_id: RunId, key: str) -> FinishedEffect | None:
    row = connection.one(
        "SELECT result FROM finished_effect JOIN run ON run.number = run_number WHERE run_id = ? AND key = ?",
        (run_id, key),
    )
    return None if row is None else FinishedEffect(result=msgspec.json.decode(row[0]))


def _append(connection: Connection, number: int, run: Run, fact: Fact, *, seq: int) -> None:
    """Store `run` as it is after `fact`, the event of `fact`, and what the desk wants remembered."""
    _insert_event(connection, number, run, fact, seq=seq)
    connection.execute(
        "UPDATE run SET status = ?, last_seq = ?, finished_at = ?, output = ?, error = ?, trace_links = ? "
        "WHERE number = ?",
        (
            run.status.value,
            seq,
            text_or_null(run.finished_at),
            json_or_null(run.output),
            text_or_null(run.error),
            to_json(run.trace_links),
            number,
        ),
    )
    if fact.finished_hook is not None and run.finalization is not msgspec.UNSET:
        _keep_finished_hook(connection, number, run.finalization)


def _insert_event(connection: Connection, number: int, run: Run, fact: Fact, *, seq: int) -> None:
    event = event_of(run, fact, seq=seq)
    connection.execute(
        "INSERT INTO event (run_number, seq, event_id, type, desk_id, document) VALUES (?, ?, ?, ?, ?, ?)",
        (number, seq, event.event_id, event.type.value, text_or_null(event.desk_id), to_json(event)),
    )
    if fact.memory is not None:
        _remember(connection, fact.memory)


def _remember(connection: Connection, record: MemoryRecord) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO memory (workflow_id, workflow_version, desk_id, namespace, key, data, updated_at, "
        "expires_at_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*memory_key(record.at), to_json(record.data), record.updated_at, record.expires_at_ms),
    )
