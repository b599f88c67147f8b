"""What an engine has to do, and who works for it.

Questions only, each inside one snapshot. None gets slower with the number of runs that have ended: what is counted is
what is ahead.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.storage.sqlite import Connection, one, rows

DAY_MS: Final = 24 * 3600 * 1000


class Served(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A function that an engine offers."""

    fn_id: str
    version: str


class Worker(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An engine that works on the file, or has."""

    owner: str
    slot: int | None
    leases: int
    serves: tuple[Served, ...]
    is_alive: bool = True
    pids: tuple[int, ...] = ()
    """Of its process, where the system tells."""


class CronTick(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    fn_id: str
    expression: str
    next_at_ms: int


class Ahead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What there is to do, in calls and sleeps. Each is in one of the first five."""

    due: int = 0
    under_way: int = 0
    parked: int = 0
    """Without room under a concurrency limit, or held."""
    held_runs: int = 0
    """Runs whose code nobody has any more."""
    later: int = 0
    """Retries, and runs of events that are still to come."""
    sleeping: int = 0
    waiting: int = 0
    """Steps that wait for an event or for another function."""
    gathering: int = 0
    """Batches and debounces that are not full or quiet yet."""
    unrouted: int = 0
    """Events that were accepted while no engine worked."""
    oldest_due_ms: int | None = None
    next_at_ms: int | None = None
    """When the next thing happens by itself, of what is not due."""

    @property
    def is_busy(self) -> bool:
        """Whether an engine that works has something to do right now."""
        return bool(self.due or self.under_way or self.unrouted)


class Overview(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    now_ms: int
    open_runs: dict[str, int]
    """Runs that have not ended, by status."""
    ended_last_day: dict[str, int]
    ahead: Ahead
    workers: tuple[Worker, ...]
    crons: tuple[CronTick, ...]


def overview(connection: Connection, now_ms: int) -> Overview:
    ended = "SELECT status, count(*) FROM runs WHERE ended_at IS NOT NULL AND ended_at >= ? GROUP BY status"
    return Overview(
        now_ms=now_ms,
        open_runs=dict(rows(connection, "SELECT status, count(*) FROM runs WHERE ended_at IS NULL GROUP BY status")),
        ended_last_day=dict(rows(connection, ended, (now_ms - DAY_MS,))),
        ahead=ahead(connection, now_ms),
        workers=_workers(connection),
        crons=tuple(
            CronTick(fn_id=fn_id, expression=expression, next_at_ms=tick_at)
            for fn_id, expression, tick_at in rows(
                connection, "SELECT fn_id, expression, tick_at FROM crons ORDER BY tick_at, fn_id"
            )
        ),
    )


def ahead(connection: Connection, now_ms: int) -> Ahead:
    queue = one(connection, _QUEUE, (now_ms,))
    others = one(connection, _OTHERS)
    assert queue is not None
    assert others is not None
    due, under_way, parked, later, sleeping, oldest_due, next_job = queue
    waiting, gathering, unrouted, next_timer, held_runs = others
    return Ahead(
        due=due or 0,
        under_way=under_way or 0,
        parked=parked or 0,
        held_runs=held_runs,
        later=later or 0,
        sleeping=sleeping or 0,
        waiting=waiting,
        gathering=gathering,
        unrouted=unrouted,
        oldest_due_ms=oldest_due,
        next_at_ms=min((at for at in (next_job, next_timer) if at is not None), default=None),
    )


# The queue holds what is ahead and nothing else, so one pass over it costs what there is to say.
_QUEUE: Final = """
SELECT
  sum(lease_owner IS NULL AND parked_on IS NULL AND due_at <= ?1),
  sum(lease_owner IS NOT NULL),
  sum(lease_owner IS NULL AND parked_on IS NOT NULL),
  sum(lease_owner IS NULL AND parked_on IS NULL AND due_at > ?1 AND kind = 'call'),
  sum(lease_owner IS NULL AND parked_on IS NULL AND due_at > ?1 AND kind = 'sleep'),
  min(CASE WHEN lease_owner IS NULL AND parked_on IS NULL AND due_at <= ?1 THEN due_at END),
  min(CASE WHEN lease_owner IS NULL AND parked_on IS NULL AND due_at > ?1 THEN due_at END)
FROM queue
"""
_OTHERS: Final = """
SELECT (SELECT count(*) FROM waits),
  (SELECT count(*) FROM debounces) + (SELECT count(*) FROM batches),
  (SELECT count(*) FROM events WHERE routed = 0),
  (SELECT min(due_at) FROM timers WHERE kind <> 'cron'),
  (SELECT count(*) FROM runs WHERE held_at IS NOT NULL)
"""


def _workers(connection: Connection) -> tuple[Worker, ...]:
    slots: dict[str, int] = dict(rows(connection, "SELECT owner, slot FROM owners"))
    leases: dict[str, int] = dict(
        rows(connection, "SELECT lease_owner, count(*) FROM queue WHERE lease_owner IS NOT NULL GROUP BY lease_owner")
    )
    serves: dict[str, list[Served]] = {}
    for owner, fn_id, version in rows(connection, "SELECT owner, fn_id, version FROM offers ORDER BY fn_id"):
        serves.setdefault(owner, []).append(Served(fn_id=fn_id, version=version))
    return tuple(
        Worker(owner=owner, slot=slots.get(owner), leases=leases.get(owner, 0), serves=tuple(serves.get(owner, ())))
        for owner in sorted({*serves, *leases}, key=lambda owner: (slots.get(owner, 999), owner))
    )
