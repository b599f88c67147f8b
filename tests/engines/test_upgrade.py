"""A file that an older rawr wrote: its runs go on where they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import inngest

from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.schema import MIGRATIONS
from rawr.storage.sqlite import Connection, Database, run

OLD = """
INSERT INTO apps VALUES ('app', 'some checksum', 1);
INSERT INTO functions VALUES ('app-fn', 'app', 'fn', 5, 0);
INSERT INTO triggers VALUES ('go', 'app-fn', NULL);
INSERT INTO events VALUES ('E1', 'e1', 'go', NULL, '{"data":{"n":1},"id":"e1","name":"go"}', NULL, 1, 1);
INSERT INTO events VALUES ('E2', 'e2', 'go', NULL, '{"data":{"n":2},"id":"e2","name":"go"}', NULL, 1, 0);
INSERT INTO event_keys VALUES ('app-fn', 'e1', 'R1', 1);
INSERT INTO runs (run_id, fn_id, event_ulid, status, steps, state_bytes, queued_at, started_at)
  VALUES ('R1', 'app-fn', 'E1', 'running', 1, 10, 1, 1);
INSERT INTO steps VALUES ('R1', '86f7e437faa5a7fce15d1ddcb9eaeaea377667b8', 1, 'a', '{"data":"kept"}', NULL, 0, 1);
INSERT INTO queue (job_id, run_id, fn_id, kind, step_id, name, due_at, generation, lease_owner, lease_until)
  VALUES ('R1|discover|1', 'R1', 'app-fn', 'call', 'step', 'the function', 1, 3, 'gone', 2);
"""


def written_before(root: Path) -> None:
    """A run in the middle of its steps, under a host that died, and an event that nobody has looked at."""
    database = Database(root / "engine.sqlite", MIGRATIONS[:1])

    def write(connection: Connection) -> None:
        for statement in OLD.strip().split(";\n"):
            run(connection, statement)

    database.write_sync(write)
    database.close()


def test_the_runs_and_events_of_the_first_schema_go_on(tmp_path: Path, on_bench: Any) -> None:
    ran: list[str] = []

    async def fresh() -> str:
        ran.append("a")
        return "fresh"

    async def fn(ctx: inngest.Context) -> Any:
        return [await ctx.step.run("a", fresh), ctx.event.data["n"]]

    async def scenario(bench: Any) -> None:
        await bench.engine.run_due()
        runs = await bench.engine.runs(10)
        assert {run.status for run in runs} == {EngineRunStatus.COMPLETED}
        assert sorted(run.output for run in runs) == [["fresh", 2], ["kept", 1]]
        assert await bench.engine.pending_count() == 0

    written_before(tmp_path)
    trigger = inngest.TriggerEvent(event="go")
    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=trigger)(fn)], scenario)
    assert ran == ["a"]
