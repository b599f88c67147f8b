"""Engine files with many runs in them, made in seconds: rows that an engine wrote, copied by SQLite.

What is copied is a real run in the state that is wanted, with all that belongs to it. No durability is needed here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

_COPY: Final = {
    "events": ("ulid", "event_id"),
    "event_keys": ("event_id", "run_id"),
    "runs": ("run_id", "event_ulid"),
    "steps": ("run_id",),
    "queue": ("job_id", "run_id"),
}
"""The tables that belong to a run, and the columns in which its copies differ."""


def multiply(database: Path, runs: int, *, sleeping: bool) -> None:
    """Make `runs` more of the only run of the function, in the order of their age."""
    connection = apsw.Connection(str(database))
    list(
        connection.execute("PRAGMA synchronous=OFF; PRAGMA foreign_keys=0; PRAGMA cache_size=-200000; BEGIN IMMEDIATE")
    )
    [(run_id, event_ulid)] = connection.execute("SELECT run_id, event_ulid FROM runs")
    for table, changing in _COPY.items():
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        values = ", ".join(f"{_numbered(column)}" if column in changing else column for column in columns)
        whose = "ulid = :event" if table == "events" else "run_id = :run"
        list(
            connection.execute(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :runs)"
                f" INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM n, {table} WHERE {whose}",
                {"event": event_ulid, "run": run_id, "runs": runs},
            )
        )
    list(connection.execute("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)"))
    [(total,)] = connection.execute("SELECT count(*) FROM runs WHERE (ended_at IS NULL) = ?", (sleeping,))
    [(asleep,)] = connection.execute("SELECT count(*) FROM queue WHERE kind = 'sleep'")
    connection.close()
    assert total == runs + 1, "the run that was copied is in another state"
    assert asleep == (runs + 1 if sleeping else 0)


def _numbered(column: str) -> str:
    """A value like the one that is there, and older: an id in front of which a number stands sorts first."""
    return f"printf('%08d', i) || substr({column}, 9)"
