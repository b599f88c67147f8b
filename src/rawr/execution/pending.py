"""What the embedded engine of an instance has not finished, asked from outside and without opening it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.execution.embedded.damage import damage_said, refuse_unlike_itself
from rawr.storage.snapshots import look_into, snapshot
from rawr.storage.sqlite import one, rows

_PENDING: Final = """
SELECT (SELECT count(*) FROM runs WHERE status NOT IN ('completed', 'failed', 'cancelled'))
  + (SELECT count(*) FROM events WHERE routed = 0)
  + (SELECT count(*) FROM debounces)
  + (SELECT count(*) FROM batches)
"""
_HELD: Final = (
    "SELECT r.run_id, e.event_id, r.held_reason, r.held_at FROM runs r JOIN events e ON e.ulid = r.event_ulid"
    " WHERE r.held_at IS NOT NULL ORDER BY r.held_at, r.run_id"
)


class EngineNotDrainedError(RawrError):
    """The embedded engine has work that another engine would never see."""

    code = "ENGINE_NOT_DRAINED"


def pending_count(database: Path) -> int:
    """Runs that have not ended or are being gathered, and events that no function has seen. 0 without an engine file.

    Raises:
        RawrError: the file cannot be read as the queue of an engine.
    """
    if not database.exists():
        return 0
    with damage_said():
        refuse_unlike_itself(database)
        [(count,)] = look_into(database, _PENDING)
    return int(count)


class HeldRun(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    name: str
    """By what people know it: the id of the event that started it, which is that of a coordination run."""
    reason: str
    held_at_ms: int


def held_runs(database: Path) -> list[HeldRun]:
    """Runs that wait for code that no process has, oldest first. None when there never was an engine.

    Raises:
        RawrError: the file cannot be read as the queue of an engine.
    """
    if not database.exists():
        return []
    with snapshot(database) as connection:
        if one(connection, "SELECT 1 FROM pragma_table_info('runs') WHERE name = 'held_at'") is None:
            return []  # written by an older rawr, which held no runs
        found = rows(connection, _HELD)
    return [
        HeldRun(run_id=run_id, name=name, reason=reason, held_at_ms=held_at) for run_id, name, reason, held_at in found
    ]


def check_drained(database: Path) -> None:
    """Refuse to leave the embedded engine while it has work: its runs would wait for ever, and nobody would say so.

    Raises:
        EngineNotDrainedError, and what `pending_count` raises.
    """
    count = pending_count(database)
    if count:
        raise EngineNotDrainedError(
            f"the embedded engine still has {count} unfinished runs, which an Inngest server would never see",
            details={"pending": count, "path": str(database)},
            fix="rawr engine drain",
        )
