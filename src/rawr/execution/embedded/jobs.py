"""The rows of the queue: added once, delivered again, ended, and kept waiting while a limit has no room for them.

A job that has no room is parked under the key of the limit, where no claim looks at it. Whatever makes room (a
lease that ends in any way) calls one parked job back; a job that is called and cannot go after all passes the call
on. So the room is always taken if anybody can take it, and no claim looks at everybody who waits.
Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.model import JobKind
from rawr.execution.embedded.transition import JOB, Job, Transition, job_of
from rawr.storage.sqlite import one, rows, run
from rawr.wire import encode_canonical

HELD_ON: Final = "code|"
"""What jobs are parked on whose run is held: no limit, so nothing that makes room calls them."""
_ROOM: Final = "lease_owner, key1, key2, called_by"
# Constant texts; nothing from outside is ever put into SQL.
_ADD: Final = (
    "INSERT OR IGNORE INTO queue (job_id, run_id, fn_id, kind, step_id, name, due_at, added_at, throttle,"
    " key1, key2, version, code)"
    " SELECT ?, run_id, fn_id, ?, ?, ?, ?, ?, ?, key1, key2, version, code FROM runs WHERE run_id = ?"
)
_TAKE_BACK: Final = (
    "UPDATE queue SET lease_owner = NULL, lease_until = NULL, crashes = crashes + 1 WHERE lease_owner IS NOT NULL"  # noqa: S608
    " AND (lease_owner IN (SELECT value FROM json_each(?))"
    " OR (lease_until < ? AND lease_owner NOT IN (SELECT value FROM json_each(?))))"
    f" RETURNING {JOB}, key1, key2"
)


def add(
    at: Transition,
    run_id: str,
    job_id: str,
    *,
    kind: JobKind,
    step_id: str,
    name: str,
    due_ms: int,
    throttle: str | None = None,
) -> None:
    """Queue a job of the run. A job that is there already, under way or not, stays as it is."""
    run(at.connection, _ADD, (job_id, kind.value, step_id, name, due_ms, at.now_ms, throttle, run_id))


def retry(at: Transition, job_id: str, due_ms: int, lost: Fragment) -> None:
    """The same job again later, as its next attempt. `lost` tells what failed and why."""
    freed = rows(
        at.connection,
        "UPDATE queue SET attempt = attempt + 1, due_at = ?, added_at = ?, crashes = 0, lease_owner = NULL,"
        " lease_until = NULL, last_error = ? WHERE job_id = ? RETURNING key1, key2",
        (due_ms, at.now_ms, lost.text.decode(), job_id),
    )
    _call_for_room(at, freed)


def postpone(at: Transition, job_id: str, due_ms: int) -> None:
    """The same attempt again later: it did not take place."""
    freed = rows(
        at.connection,
        "UPDATE queue SET due_at = ?, added_at = ?, lease_owner = NULL, lease_until = NULL WHERE job_id = ?"
        " RETURNING key1, key2",
        (due_ms, at.now_ms, job_id),
    )
    _call_for_room(at, freed)


def end(at: Transition, job_id: str) -> None:
    _deleted(at, rows(at.connection, f"DELETE FROM queue WHERE job_id = ? RETURNING {_ROOM}", (job_id,)))  # noqa: S608


def end_all_of(at: Transition, run_id: str) -> None:
    _deleted(at, rows(at.connection, f"DELETE FROM queue WHERE run_id = ? RETURNING {_ROOM}", (run_id,)))  # noqa: S608


def release(at: Transition, owner: str) -> None:
    """Give all leases of `owner` back, as if they had never been taken."""
    freed = rows(
        at.connection,
        "UPDATE queue SET lease_owner = NULL, lease_until = NULL WHERE lease_owner = ? RETURNING key1, key2",
        (owner,),
    )
    _call_for_room(at, freed)


def take_back(at: Transition, *, dead: Sequence[str], alive: Sequence[str]) -> list[Job]:
    """Free the leases of dead owners, and expired ones of all but `alive`: the jobs, one crash older."""
    freed = rows(
        at.connection,
        _TAKE_BACK,
        (encode_canonical(list(dead)).decode(), at.now_ms, encode_canonical(list(alive)).decode()),
    )
    _call_for_room(at, [row[-2:] for row in freed])
    return [job_of(row[:-2]) for row in freed]


def count_under_way(at: Transition, key: str) -> int:
    """How many calls under this key are made now, by any engine."""
    row = one(
        at.connection,
        "SELECT (SELECT count(*) FROM queue WHERE key1 = ?1 AND lease_owner IS NOT NULL)"
        " + (SELECT count(*) FROM queue WHERE key2 = ?1 AND lease_owner IS NOT NULL)",
        (key,),
    )
    assert row is not None
    return int(row[0])


def park(at: Transition, job_id: str, key: str) -> None:
    """Keep the job out of the way until there is room under `key`."""
    row = one(at.connection, "SELECT called_by FROM queue WHERE job_id = ?", (job_id,))
    run(at.connection, "UPDATE queue SET parked_on = ?, called_by = NULL WHERE job_id = ?", (key, job_id))
    if row is not None and row[0] not in (None, key):
        call_next(at, row[0])


def call_next(at: Transition, key: str) -> bool:
    """Call one parked job, the longest due; whether others are left."""
    run(
        at.connection,
        "UPDATE queue SET parked_on = NULL, called_by = ?1 WHERE job_id ="
        " (SELECT job_id FROM queue WHERE parked_on = ?1 ORDER BY due_at, rowid LIMIT 1)",
        (key,),
    )
    return has_parked(at, key)


def has_parked(at: Transition, key: str) -> bool:
    return one(at.connection, "SELECT 1 FROM queue WHERE parked_on = ? LIMIT 1", (key,)) is not None


def call_all(at: Transition) -> None:
    """Limits have changed: everybody who waits for one looks again."""
    run(
        at.connection,
        "UPDATE queue SET parked_on = NULL, called_by = NULL WHERE parked_on IS NOT NULL AND parked_on NOT GLOB ?",
        (f"{HELD_ON}*",),
    )


def mend(at: Transition) -> None:
    """Jobs and timers that were set later than now were set by a clock that was ahead: what is left of their delay
    begins now. Sleeps keep the time that the function named, and crons their ticks.
    """
    for table, since in (("queue", "added_at"), ("timers", "set_at")):
        run(
            at.connection,
            f"UPDATE {table} SET due_at = due_at - {since} + ?1, {since} = ?1"  # noqa: S608 - constant names
            f" WHERE {since} > ?1 AND kind NOT IN ('sleep', 'cron')",
            (at.now_ms,),
        )


def _deleted(at: Transition, found: Iterable[Sequence[Any]]) -> None:
    for lease_owner, key1, key2, called_by in found:
        if lease_owner is not None:
            _call_for_room(at, [(key1, key2)])
        elif called_by is not None:
            call_next(at, called_by)


def _call_for_room(at: Transition, freed: Iterable[Sequence[Any]]) -> None:
    for key in (key for keys in freed for key in keys if key is not None):
        call_next(at, key)
