"""Instances to be measured: with workflows, a long run, and as many finished runs as wanted."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any, Final

import apsw

from bench.httpload import servers
from rawr.client.http import HqClient
from rawr.clock import SystemClock
from rawr.procedures.coordination_wire import QueueRunInput, RunInput
from rawr.procedures.operations import GET_RUN_STATUS, QUEUE_RUN, SAVE_WORKFLOW
from rawr.security.credentials import SecretsFolder, TokenStore
from rawr.security.policy import PrincipalKind
from rawr.security.rates import RATE_MAX
from rawr.state import RepoStateStore
from rawr.testing.workspace import make_instance

WORKFLOWS: Final = 50
EVENTS: Final = 200
LONG_RUN: Final = "run-of-200-events"
SHORT: Final = "workflow-00"
FIRST: Final = "first-run"


def make(root: Path, *, finished_runs: int) -> str:
    """An instance at `root`; an API key that may do everything there."""
    make_instance(root)
    with servers.rawr(root) as server:
        client = HqClient(f"http://127.0.0.1:{server.port}", SecretsFolder(root / ".rawr" / "secrets").cli_key())
        for number in range(WORKFLOWS):
            _save(client, f"workflow-{number:02}", desks=2)
        # A run of n desks has 2 n + 2 events.
        _save(client, "long", desks=(EVENTS - 2) // 2)
        _finished(client, "long", LONG_RUN)
        _finished(client, SHORT, FIRST)
    for plugin_id in ("hello-web", "mfe-demo"):
        RepoStateStore(root).enable(plugin_id)
    if finished_runs:
        _multiply(root / ".rawr", finished_runs)
    tokens = TokenStore(root / ".rawr" / "secrets" / "tokens.json", SystemClock())
    scopes = ("orpc:*", "workflows:*")
    # What is measured is the server, not how much it lets through.
    return tokens.create("bench", scopes, principal=PrincipalKind.SERVICE, rate_per_minute=RATE_MAX).token


def _save(client: HqClient, workflow_id: str, *, desks: int) -> None:
    client.call(SAVE_WORKFLOW.rpc_path, {"workflow": _workflow(workflow_id, desks)}, SAVE_WORKFLOW.output_type)


def _workflow(workflow_id: str, desks: int) -> dict[str, Any]:
    ids = [f"desk-{number}" for number in range(desks)]
    schema = {"type": "object"}
    return {
        "workflowId": workflow_id,
        "version": 1,
        "name": f"The workflow {workflow_id}",
        "description": "One desk, and others after it, that pass on what they are given.",
        "entryDeskId": ids[0],
        "desks": [
            {
                "deskId": desk_id,
                "kind": "desk:execution",
                "name": desk_id,
                "responsibility": "passes its input on",
                "domain": "bench",
                "inputSchema": schema,
                "outputSchema": schema,
                "memoryScope": {"persist": False},
            }
            for desk_id in ids
        ],
        "handoffs": [{"handoffId": f"to-{after}", "fromDeskId": ids[0], "toDeskId": after} for after in ids[1:]],
    }


def _finished(client: HqClient, workflow_id: str, run_id: str) -> None:
    client.invoke(QUEUE_RUN, QueueRunInput(workflow_id=workflow_id, run_id=run_id, input={"n": 1}))
    until_s = time.monotonic() + servers.PATIENCE_S
    while (run := client.invoke(GET_RUN_STATUS, RunInput(run_id=run_id)).run).status != "completed":
        if time.monotonic() > until_s or run.status == "failed":
            raise RuntimeError(f"run {run_id} did not end well: {run.status} {run.error}")
        time.sleep(0.02)


def _multiply(folder: Path, times: int) -> None:
    """Add `times` finished runs like the first one, to the domain and to the engine."""
    with contextlib.closing(apsw.Connection(str(folder / "coordination.sqlite"))) as db, db:
        number = db.execute("SELECT number FROM run WHERE run_id = ?", (FIRST,)).get
        last = db.execute("SELECT max(number) FROM run").get
        run = {"number": f"{last} + i", "run_id": "run_id || '-' || i"}
        _copied(db, "run", f"run_id = '{FIRST}'", run, times)
        for table in ("run_input", "event", "run_finalization"):
            _copied(db, table, f"run_number = {number}", {"run_number": f"{last} + i"}, times)
    with contextlib.closing(apsw.Connection(str(folder / "engine.sqlite"))) as db, db:
        run_id, ulid = db.execute(
            "SELECT r.run_id, e.ulid FROM runs r JOIN events e ON e.ulid = r.event_ulid WHERE e.event_id = ?", (FIRST,)
        ).get
        event = {"ulid": "ulid || '-' || i", "event_id": "event_id || '-' || i"}
        _copied(db, "events", f"ulid = '{ulid}'", event, times)
        run = {"run_id": "run_id || '-' || i", "event_ulid": "event_ulid || '-' || i"}
        _copied(db, "runs", f"run_id = '{run_id}'", run, times)
        _copied(db, "steps", f"run_id = '{run_id}'", {"run_id": "run_id || '-' || i"}, times)


def _copied(db: apsw.Connection, table: str, where: str, changed: dict[str, str], times: int) -> None:
    columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    values = ", ".join(changed.get(column, column) for column in columns)
    counting = f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {times})"
    db.execute(f"{counting} INSERT INTO {table} SELECT {values} FROM {table} CROSS JOIN n WHERE {where}")
