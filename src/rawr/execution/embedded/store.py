"""`engine.sqlite`: leases on the queue, registered functions and questions about runs. Decides no run's fate.

A job is held by one engine at a time. The claim raises the job's generation, and a result counts only while
owner and generation are those of the claim: whoever lost a lease cannot write any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rawr.clock import Clock, UlidSource
from rawr.execution.embedded import runs
from rawr.execution.embedded.model import (
    Claim,
    EngineRun,
    EngineRunStatus,
    JobKind,
    Lease,
    NewEvent,
    RegisteredFunction,
)
from rawr.execution.embedded.protocol import Backoff, Call, Failure, Outcome
from rawr.execution.embedded.runs import Job, Transition
from rawr.execution.embedded.schema import MIGRATIONS
from rawr.storage.sqlite import Connection, Database, one, rows, run
from rawr.wire import encode_canonical

CRASHES_MAX: Final = 5
CRASHES_SUSPECT: Final = 2
"""A job under which the host died this often is a suspect, and an engine works on one suspect at a time: what kills
the host then takes no other job with it to the limit."""
TIMERS_PER_CLAIM: Final = 256

_ANY: Final = 2**31
_JOB: Final = "job_id, run_id, fn_id, kind, step_id, name, attempt, generation, crashes"
# Constant texts; nothing from outside is ever put into SQL.
_OVER: Final = f"SELECT {_JOB} FROM queue WHERE lease_owner IS NULL AND kind = ? AND due_at <= ? LIMIT ?"  # noqa: S608
_HELD: Final = f"SELECT {_JOB} FROM queue WHERE job_id = ? AND lease_owner = ? AND generation = ?"  # noqa: S608
_TAKE: Final = (
    "UPDATE queue SET lease_owner = ?, lease_until = ?, generation = generation + 1"  # noqa: S608
    f" WHERE job_id = ? RETURNING {_JOB}"
)
_TAKE_BACK: Final = (
    "UPDATE queue SET lease_owner = NULL, lease_until = NULL, crashes = crashes + 1 WHERE lease_owner IS NOT NULL"  # noqa: S608
    " AND (lease_owner IN (SELECT value FROM json_each(?))"
    " OR (lease_until < ? AND lease_owner NOT IN (SELECT value FROM json_each(?))))"
    f" RETURNING {_JOB}"
)
_DUE: Final = "SELECT 1 FROM queue WHERE lease_owner IS NULL AND kind = 'call' AND due_at <= ? LIMIT 1"


class Settled(msgspec.Struct, frozen=True, kw_only=True):
    stale: bool
    """The job was no longer ours: the result was dropped."""
    next_claim: Claim | None
    """The run's next call, already held under the lease that was given."""
    more_due: bool
    """There are calls that somebody could claim now."""


class EngineStore:
    """All writes are durable when their coroutine returns."""

    def __init__(self, path: Path, *, clock: Clock, backoff: Backoff, crashes_max: int = CRASHES_MAX) -> None:
        self._database = Database(path, MIGRATIONS)
        self._clock = clock
        self._backoff = backoff
        self._crashes_max = crashes_max
        self._ulids = UlidSource(clock)

    def close(self) -> None:
        self._database.close()

    def data_version(self) -> int:
        return self._database.data_version()

    def new_ulid(self) -> str:
        return self._ulids.next()

    async def register(self, app_id: str, functions: Sequence[RegisteredFunction]) -> None:
        """Make these the functions of the app; others that it had start no new runs."""
        checksum = hashlib.sha256(encode_canonical(list(functions))).hexdigest()
        await self._database.write(lambda c: _register(self._at(c), app_id, checksum, functions))

    async def accept(self, events: Sequence[NewEvent], *, route_now: bool) -> None:
        await self._database.write(lambda c: runs.accept(self._at(c), events, route_now=route_now))

    async def route_waiting(self) -> int:
        """Start the runs of events that were accepted while no engine was up."""
        if await self._database.read(lambda c: one(c, "SELECT 1 FROM events WHERE routed = 0 LIMIT 1")) is None:
            return 0
        return await self._database.write(lambda c: runs.route_waiting(self._at(c)))

    async def claim(self, lease: Lease, fn_ids: Sequence[str], limit: int) -> list[Claim]:
        """End the sleeps that are over, then take up to `limit` due calls of these functions, longest due first."""
        return await self._database.write(lambda c: _claim(self._at(c), lease, fn_ids, limit))

    async def settle(self, claim: Claim, outcome: Outcome, *, next_lease: Lease | None) -> Settled:
        """Apply the outcome of a claimed call, and take the run's next call under `next_lease` if there is one."""

        def unit(connection: Connection) -> Settled:
            return _settle(self._at(connection), claim, outcome, self._backoff, next_lease)

        return await self._database.write(unit)

    async def renew(self, lease: Lease) -> None:
        sql = "UPDATE queue SET lease_until = ? WHERE lease_owner = ?"
        await self._database.write(lambda c: run(c, sql, (lease.until_ms, lease.owner)))

    async def release(self, owner: str) -> None:
        """Give all leases of `owner` back, as if they had never been taken."""
        sql = "UPDATE queue SET lease_owner = NULL, lease_until = NULL WHERE lease_owner = ?"
        await self._database.write(lambda c: run(c, sql, (owner,)))

    async def leases(self) -> list[tuple[str, int]]:
        """The owners of leases, each with the earliest end of its leases."""
        sql = "SELECT lease_owner, min(lease_until) FROM queue WHERE lease_owner IS NOT NULL GROUP BY lease_owner"
        return [(owner, until_ms) for owner, until_ms in await self._database.read(lambda c: rows(c, sql))]

    async def reclaim(self, *, dead: Sequence[str], alive: Sequence[str]) -> int:
        """Free the leases of dead owners, and expired ones of all but `alive`; how many there were.

        The same attempt is delivered again. A job that was lost `crashes_max` times is given up.
        """
        return await self._database.write(lambda c: _reclaim(self._at(c), dead, alive, self._crashes_max))

    async def take_slot(self, slot: int, owner: str) -> None:
        """`owner` now holds the lock of `slot`; who had it before is dead."""
        sql = "INSERT OR REPLACE INTO owners VALUES (?, ?)"
        await self._database.write(lambda c: run(c, sql, (slot, owner)))

    async def slots(self) -> dict[str, int]:
        """Slot of each owner that was the last to take one."""
        found = await self._database.read(lambda c: rows(c, "SELECT owner, slot FROM owners"))
        return dict(found)

    async def next_due_ms(self) -> int | None:
        """When the next unclaimed job is due."""
        return await self._database.read(_next_due)

    async def pending_count(self) -> int:
        """Jobs that are waiting, sleeping or under way, and events that no engine has looked at."""
        sql = "SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM events WHERE routed = 0)"
        return await self._count(sql)

    async def busy_count(self, now_ms: int) -> int:
        """As `pending_count`, without what is not due yet."""
        sql = (
            "SELECT (SELECT count(*) FROM queue WHERE lease_owner IS NOT NULL OR due_at <= ?)"
            " + (SELECT count(*) FROM events WHERE routed = 0)"
        )
        return await self._count(sql, now_ms)

    async def run(self, run_id: str) -> EngineRun | None:
        found = await self._database.read(lambda c: rows(c, f"{_RUNS} WHERE r.run_id = ?", (run_id,)))
        return _engine_run(found[0]) if found else None

    async def runs(self, limit: int) -> list[EngineRun]:
        """Newest first."""
        sql = f"{_RUNS} ORDER BY r.run_id DESC LIMIT ?"
        return [_engine_run(row) for row in await self._database.read(lambda c: rows(c, sql, (limit,)))]

    async def _count(self, sql: str, *parameters: int) -> int:
        row = await self._database.read(lambda c: one(c, sql, parameters))
        assert row is not None
        return int(row[0])

    def _at(self, connection: Connection) -> Transition:
        return Transition(connection=connection, now_ms=self._clock.now_ms(), new_ulid=self._ulids.next)


_RUNS: Final = (
    "SELECT r.run_id, r.fn_id, e.event_id, r.status, r.queued_at, r.ended_at, r.steps, r.output, r.error"
    " FROM runs r JOIN events e ON e.ulid = r.event_ulid"
)


def _engine_run(row: Sequence[Any]) -> EngineRun:
    run_id, fn_id, event_id, status, queued_at, ended_at, steps, output, error = row
    return EngineRun(
        run_id=run_id,
        fn_id=fn_id,
        event_id=event_id,
        status=EngineRunStatus(status),
        queued_at_ms=queued_at,
        ended_at_ms=ended_at,
        steps=steps,
        output=None if output is None else msgspec.json.decode(output),
        error=None if error is None else msgspec.json.decode(error, type=Failure),
    )


def _register(at: Transition, app_id: str, checksum: str, functions: Sequence[RegisteredFunction]) -> None:
    same = one(at.connection, "SELECT 1 FROM apps WHERE app_id = ? AND checksum = ?", (app_id, checksum))
    if same is not None:
        return
    run(
        at.connection,
        "INSERT INTO apps VALUES (?, ?, ?) ON CONFLICT (app_id) DO UPDATE"
        " SET checksum = excluded.checksum, synced_at = excluded.synced_at",
        (app_id, checksum, at.now_ms),
    )
    run(at.connection, "UPDATE functions SET archived = 1 WHERE app_id = ?", (app_id,))
    run(
        at.connection,
        "DELETE FROM triggers WHERE fn_id IN (SELECT fn_id FROM functions WHERE app_id = ?)",
        (app_id,),
    )
    for function in functions:
        run(
            at.connection,
            "INSERT INTO functions VALUES (?, ?, ?, ?, 0) ON CONFLICT (fn_id) DO UPDATE SET"
            " app_id = excluded.app_id, name = excluded.name, max_attempts = excluded.max_attempts, archived = 0",
            (function.fn_id, app_id, function.name, function.max_attempts),
        )
        for trigger in function.triggers:
            values = (trigger.event_name, function.fn_id, trigger.of_function)
            run(at.connection, "INSERT INTO triggers VALUES (?, ?, ?)", values)


def _claim(at: Transition, lease: Lease, fn_ids: Sequence[str], limit: int) -> list[Claim]:
    over = rows(
        at.connection,
        _OVER,
        (JobKind.SLEEP.value, at.now_ms, TIMERS_PER_CLAIM),
    )
    for row in over:
        runs.end_sleep(at, _job(row))
    due = rows(
        at.connection,
        "SELECT job_id, crashes FROM queue WHERE lease_owner IS NULL AND kind = ? AND due_at <= ?"
        " AND fn_id IN (SELECT value FROM json_each(?)) AND crashes < ? ORDER BY due_at, rowid LIMIT ?",
        (
            JobKind.CALL.value,
            at.now_ms,
            encode_canonical(list(fn_ids)).decode(),
            CRASHES_SUSPECT if _has_suspect(at, lease.owner) else _ANY,
            limit,
        ),
    )
    suspects = [job_id for job_id, crashes in due if crashes >= CRASHES_SUSPECT]
    return [_take(at, lease, job_id) for job_id, _ in due if job_id not in suspects[1:]]


def _has_suspect(at: Transition, owner: str) -> bool:
    held = one(
        at.connection,
        "SELECT 1 FROM queue WHERE lease_owner = ? AND crashes >= ? LIMIT 1",
        (owner, CRASHES_SUSPECT),
    )
    return held is not None


def _take(at: Transition, lease: Lease, job_id: str) -> Claim:
    taken = one(
        at.connection,
        _TAKE,
        (lease.owner, lease.until_ms, job_id),
    )
    assert taken is not None
    job = _job(taken)
    run(
        at.connection,
        "UPDATE runs SET status = ?, started_at = ? WHERE run_id = ? AND status = ?",
        (EngineRunStatus.RUNNING.value, at.now_ms, job.run_id, EngineRunStatus.QUEUED.value),
    )
    return Claim(
        owner=lease.owner, job_id=job.job_id, run_id=job.run_id, generation=job.generation, call=_call(at, job)
    )


def _call(at: Transition, job: Job) -> Call:
    row = one(
        at.connection,
        "SELECT r.plan_steps, f.max_attempts, e.body, e.body_canonical FROM runs r"
        " JOIN functions f ON f.fn_id = r.fn_id JOIN events e ON e.ulid = r.event_ulid WHERE r.run_id = ?",
        (job.run_id,),
    )
    assert row is not None
    memos = rows(
        at.connection, "SELECT step_id, memo, memo_canonical FROM steps WHERE run_id = ? ORDER BY seq", (job.run_id,)
    )
    return Call(
        fn_id=job.fn_id,
        run_id=job.run_id,
        job_id=job.job_id,
        request_id=at.new_ulid(),
        step_id=job.step_id,
        attempt=job.attempt,
        max_attempts=row[1],
        generation=job.generation,
        plan_steps=bool(row[0]),
        event=runs.stored_fragment(row[2], row[3]),
        memos=tuple((step_id, runs.stored_fragment(memo, signed)) for step_id, memo, signed in memos),
    )


def _settle(at: Transition, claim: Claim, outcome: Outcome, backoff: Backoff, next_lease: Lease | None) -> Settled:
    held = one(
        at.connection,
        _HELD,
        (claim.job_id, claim.owner, claim.generation),
    )
    if held is None:
        return Settled(stale=True, next_claim=None, more_due=False)
    runs.settle(at, _job(held), outcome, max_attempts=claim.call.max_attempts, backoff=backoff)
    taken = None if next_lease is None else _take_next(at, next_lease, claim.run_id)
    more_due = one(at.connection, _DUE, (at.now_ms,)) is not None
    return Settled(stale=False, next_claim=taken, more_due=more_due)


def _take_next(at: Transition, lease: Lease, run_id: str) -> Claim | None:
    found = one(
        at.connection,
        "SELECT job_id FROM queue WHERE run_id = ? AND lease_owner IS NULL AND kind = ? AND due_at <= ?"
        " AND crashes < ? ORDER BY due_at, rowid LIMIT 1",
        (run_id, JobKind.CALL.value, at.now_ms, CRASHES_SUSPECT),
    )
    return None if found is None else _take(at, lease, found[0])


def _reclaim(at: Transition, dead: Sequence[str], alive: Sequence[str], crashes_max: int) -> int:
    lost = rows(
        at.connection,
        _TAKE_BACK,
        (encode_canonical(list(dead)).decode(), at.now_ms, encode_canonical(list(alive)).decode()),
    )
    for row in lost:
        job = _job(row)
        if job.crashes >= crashes_max:
            runs.give_up_on_host(at, job)
    return len(lost)


def _job(row: Sequence[Any]) -> Job:
    job_id, run_id, fn_id, kind, step_id, name, attempt, generation, crashes = row
    return Job(
        job_id=job_id,
        run_id=run_id,
        fn_id=fn_id,
        kind=JobKind(kind),
        step_id=step_id,
        name=name,
        attempt=attempt,
        generation=generation,
        crashes=crashes,
    )


def _next_due(connection: Connection) -> int | None:
    sql = "SELECT min(due_at) FROM queue WHERE lease_owner IS NULL AND kind = ?"  # by kind: so it is one index step
    dues = [row[0] for kind in JobKind for row in rows(connection, sql, (kind.value,)) if row[0] is not None]
    return min(dues, default=None)
