"""What the embedded engine of an instance has not finished, asked from outside and without opening it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rawr.errors import RawrError
from rawr.storage.sqlite import look_into

_PENDING: Final = """
SELECT (SELECT count(*) FROM runs WHERE status NOT IN ('completed', 'failed', 'cancelled'))
  + (SELECT count(*) FROM events WHERE routed = 0)
"""


class EngineNotDrainedError(RawrError):
    """The embedded engine has work that another engine would never see."""

    code = "ENGINE_NOT_DRAINED"


def pending_count(database: Path) -> int:
    """Runs that have not ended, and events that no function has seen yet. 0 when there never was an engine.

    Raises:
        RawrError: the file cannot be read as the queue of an engine.
    """
    if not database.exists():
        return 0
    [(count,)] = look_into(database, _PENDING)
    return int(count)


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
