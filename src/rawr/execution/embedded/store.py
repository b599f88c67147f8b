"""`engine.sqlite`: each transition of the engine as one transaction, and questions about runs. Decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from rawr.clock import Clock, UlidSource
from rawr.execution.embedded import (
    claims,
    events,
    gathering,
    history,
    jobs,
    pins,
    registry,
    retention,
    runs,
    schedules,
    timers,
)
from rawr.execution.embedded.cancellation import Fitting, Page, cancel_page, fitting_page
from rawr.execution.embedded.damage import damage_said, refuse_unlike_itself
from rawr.execution.embedded.durations import Backoff
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.memory import NOTHING
from rawr.execution.embedded.model import (
    Claim,
    EngineRun,
    EngineRunStatus,
    Forgotten,
    JobKind,
    Lease,
    NewEvent,
    RunFilter,
)
from rawr.execution.embedded.outcomes import Failure, OpsAnswered, Outcome
from rawr.execution.embedded.reruns import Rerun, rerun
from rawr.execution.embedded.schema import MIGRATIONS
from rawr.execution.embedded.transition import Transition
from rawr.execution.expressions import Expressions, Wanted, check
from rawr.storage.sqlite import Connection, Database, one, rows, run
from rawr.wire import JsonValue

CRASHES_MAX: Final = 5
_log: Final = logging.getLogger(__name__)

T = TypeVar("T")


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
        with damage_said():
            refuse_unlike_itself(path)
            self._database = Database(path, MIGRATIONS)
        self._clock = clock
        self._backoff = backoff
        self._crashes_max = crashes_max
        self._ulids = UlidSource(clock)
        self._expressions = Expressions()

    def close(self) -> None:
        self._database.close()

    def data_version(self) -> int:
        with damage_said():
            return self._database.data_version()

    def new_ulid(self) -> str:
        return self._ulids.next()

    async def register(
        self,
        app_id: str,
        functions: Sequence[RegisteredFunction],
        owner: str | None = None,
        code: Collection[str] = (),
        *,
        url: str = "",
    ) -> bool:
        """Make these the functions of the app at `url`; others that it had start no new runs. `owner` serves them by
        `code`.

        Whether anything is new. Raises FunctionTakenError.
        """

        def transition(at: Transition) -> bool:
            modified = registry.register(at, app_id, functions, url)
            if owner is not None:
                registry.offer(at, owner, {function.fn_id: function.version for function in functions}, code)
            return modified

        return await self._transition(transition)

    async def registered_versions(self) -> dict[str, str]:
        """The version of every function that an app has now."""
        return await self.read(registry.registered_versions)

    async def offer_registered(self, owner: str) -> dict[str, str]:
        """`owner` serves every function that is registered, whoever registered it; the version of each."""

        def transition(at: Transition) -> dict[str, str]:
            versions = registry.registered_versions(at.connection)
            registry.offer(at, owner, versions)
            return versions

        return await self._transition(transition)

    async def register_if_unserved(self, app_id: str, functions: Sequence[RegisteredFunction]) -> None:
        """Make these the functions of the app again, when whoever registered others since is gone."""
        if await self.read(lambda c: registry.is_represented(c, app_id)):
            return

        def transition(at: Transition) -> None:
            if not registry.is_represented(at.connection, app_id):
                registry.register(at, app_id, functions, None)

        await self._transition(transition)

    async def mend_clock(self) -> None:
        """Bring back what a clock that was ahead has sent into the future. Harmless when it was not."""
        await self._transition(_mend_clock)

    async def accept(self, new: Sequence[NewEvent], *, route_now: bool) -> None:
        await self._transition(lambda at: events.accept(at, new, route_now=route_now))

    async def route_waiting(self) -> int:
        """Route the events that were accepted while no engine was up; how many there were."""
        if await self.read(lambda c: one(c, "SELECT 1 FROM events WHERE routed = 0 LIMIT 1")) is None:
            return 0
        return await self._transition(events.route_waiting)

    async def claim(
        self, lease: Lease, serves: Mapping[str, str], limit: int, has: Collection[str] = ()
    ) -> list[Claim]:
        """Do what is due by time alone, then take up to `limit` due calls of what `serves`, longest due first.

        `serves` has the version of each function that can be called, `has` the code that calls are answered by.
        """
        claims, held = await self._transition(lambda at: (_claim(at, lease, serves, limit, has), at.held))
        for one_run in held:
            _log.warning("run %s waits: %s", one_run.run_id, one_run.reason)
        return claims

    async def pin(self, claim: Claim, tokens: Collection[str]) -> bool:
        """Settle what code the run of this claim belongs to; False when the claim is not valid any more."""
        return await self._transition(lambda at: pins.pin(at, claim, tokens))

    async def held_call(self, run_id: str) -> tuple[str, list[JsonValue]]:
        """The function of a held run, and what triggered it.

        Raises:
            CodeNotAcceptedError: there is no such run, or it is not held.
        """

        def transition(at: Transition) -> tuple[str, list[JsonValue]]:
            pins.held_code(at, run_id)
            fn_id, found = runs.run_events(at.connection, run_id)
            return fn_id, [body.value() for _, body in found]

        return await self._transition(transition)

    async def accept_code(self, run_id: str, tokens: Collection[str], by: str) -> None:
        """Raises CodeNotAcceptedError."""
        await self._transition(lambda at: pins.accept_code(at, run_id, tokens, by))

    async def settle(
        self, claim: Claim, outcome: Outcome, *, next_lease: Lease | None, gives_way: bool = False
    ) -> Settled:
        """Apply the outcome of a claimed call, and take the run's next call under `next_lease` if there is one.

        Who gives way takes it only if no call of another run is due.
        """
        return await self._transition(
            lambda at: _settle(at, claim, outcome, self._backoff, next_lease, gives_way=gives_way)
        )

    async def cancel(self, run_id: str, reason: str) -> bool:
        """End a run from outside; whether it had not ended before."""
        return await self._transition(lambda at: runs.end_run(at, run_id, runs.Cancelled(reason=reason)))

    async def cancel_where(self, which: RunFilter) -> list[str]:
        """End all runs that fit, and only those queued before this began, page by page; their ids.

        Raises:
            ExpressionInvalidError: the condition can never be answered.
        """
        which = self._bounded(which)
        cancelled: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await self._cancel_page(which, after)
            cancelled += page.cancelled
            after = page.last_run_id
        return cancelled

    async def end_gatherings(self) -> None:
        """What batches and debounces have gathered starts its runs now."""
        await self._transition(gathering.end_all)

    async def matching(self, which: RunFilter) -> int:
        """How many runs `cancel_where` would end now."""
        which = self._bounded(which)
        count = 0
        after: str | None = ""
        while after is not None:
            page = await self._fitting_page(which, after)
            count += len(page.run_ids)
            after = page.last_run_id
        return count

    def _bounded(self, which: RunFilter) -> RunFilter:
        if which.condition is not None:
            check(which.condition, Wanted.CONDITION, "event")
        before_ms = min(which.queued_before_ms, self._clock.now_ms() + 1)
        return msgspec.structs.replace(which, queued_before_ms=before_ms)

    async def _cancel_page(self, which: RunFilter, after_run_id: str) -> Page:
        return await self._transition(lambda at: cancel_page(at, which, after_run_id))

    async def _fitting_page(self, which: RunFilter, after_run_id: str) -> Fitting:
        return await self._transition(lambda at: fitting_page(at, which, after_run_id))

    async def rerun(self, asked: Rerun) -> str:
        return await self._transition(lambda at: rerun(at, asked))

    async def forget(self, before_ms: int) -> Forgotten:
        """Remove what ended or came before this time and is needed for nothing, in many small transactions."""
        runs_removed, events_removed = 0, 0
        while removed := await self._transition(lambda at: retention.forget_runs(at, before_ms)):
            runs_removed += removed
        after: str | None = ""
        while after is not None:
            page = await self._forget_events(before_ms, after)
            events_removed += page.removed
            after = page.last_ulid
        await self._transition(retention.forget_keys)
        return Forgotten(runs=runs_removed, events=events_removed)

    async def _forget_events(self, before_ms: int, after_ulid: str) -> retention.EventPage:
        return await self._transition(lambda at: retention.forget_events(at, before_ms, after_ulid))

    async def renew(self, lease: Lease) -> None:
        sql = "UPDATE queue SET lease_until = ? WHERE lease_owner = ?"
        await self._write(lambda c: run(c, sql, (lease.until_ms, lease.owner)))

    async def release(self, owner: str) -> None:
        """Give all leases of `owner` back, as if they had never been taken. It serves nothing any more."""

        def transition(at: Transition) -> None:
            jobs.release(at, owner)
            registry.withdraw(at, [owner])

        await self._transition(transition)

    async def other_owners(self, owner: str) -> dict[str, int | None]:
        """All engines but `owner` that hold leases or serve functions, with the earliest end of their leases."""
        sql = (
            "SELECT owner, min(until) FROM (SELECT lease_owner AS owner, lease_until AS until FROM queue"
            " WHERE lease_owner IS NOT NULL UNION ALL SELECT owner, NULL FROM offers) WHERE owner <> ? GROUP BY owner"
        )
        return dict(await self.read(lambda c: rows(c, sql, (owner,))))

    async def reclaim(self, *, dead: Sequence[str], alive: Sequence[str]) -> int:
        """Free the leases of dead owners, and expired ones of all but `alive`; how many there were.

        The same attempt is delivered again. A job that was lost `crashes_max` times is given up.
        """

        def transition(at: Transition) -> int:
            registry.withdraw(at, dead)
            return claims.reclaim(at, dead=dead, alive=alive, crashes_max=self._crashes_max)

        return await self._transition(transition)

    async def take_slot(self, slot: int, owner: str) -> None:
        """`owner` now holds the lock of `slot`; who had it before is dead."""
        sql = "INSERT OR REPLACE INTO owners VALUES (?, ?)"
        await self._write(lambda c: run(c, sql, (slot, owner)))

    async def slots(self) -> dict[str, int]:
        """Slot of each owner that was the last to take one."""
        found = await self.read(lambda c: rows(c, "SELECT owner, slot FROM owners"))
        return dict(found)

    async def next_due_ms(self) -> int | None:
        """When the next unclaimed job is due."""
        return await self.read(_next_due)

    async def has_taken_over(self) -> bool:
        """Whether it knows what an earlier file had left. A new file does not, whatever has been sent to it since."""
        return await self.read(lambda c: one(c, "SELECT 1 FROM taken_over LIMIT 1")) is not None

    async def mark_taken_over(self) -> None:
        await self._transition(lambda at: run(at.connection, "INSERT INTO taken_over VALUES (?)", (at.now_ms,)))

    async def pending_count(self) -> int:
        """Jobs and steps that are waiting, sleeping or under way, and events that have not started their runs yet."""
        sql = (
            "SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM waits)"
            " + (SELECT count(*) FROM debounces) + (SELECT count(*) FROM batches)"
            " + (SELECT count(*) FROM events WHERE routed = 0)"
        )
        return await self._count(sql)

    async def busy_count(self, now_ms: int) -> int:
        """As `pending_count`, without what is not due yet."""
        sql = (
            "SELECT (SELECT count(*) FROM queue WHERE lease_owner IS NOT NULL)"
            " + (SELECT count(*) FROM queue WHERE lease_owner IS NULL AND parked_on IS NULL"
            " AND kind IN ('call', 'sleep') AND due_at <= ?1)"
            " + (SELECT count(*) FROM timers WHERE due_at <= ?1)"
            " + (SELECT count(*) FROM events WHERE routed = 0)"
        )
        return await self._count(sql, now_ms)

    async def run(self, run_id: str) -> EngineRun | None:
        found = await self.read(lambda c: rows(c, f"{_RUNS} WHERE r.run_id = ?", (run_id,)))
        return _engine_run(found[0]) if found else None

    async def run_of_event(self, event_id: str) -> str | None:
        """The newest run of the event with this id of its sender's."""
        return await self.read(lambda c: history.run_of_event(c, event_id))

    async def runs(self, limit: int) -> list[EngineRun]:
        """Newest first."""
        sql = f"{_RUNS} ORDER BY r.run_id DESC LIMIT ?"
        return [_engine_run(row) for row in await self.read(lambda c: rows(c, sql, (limit,)))]

    async def run_events(self, run_id: str) -> list[JsonValue] | None:
        """What triggered the run: one event, or a batch. None if there is no such run."""
        if await self.run(run_id) is None:
            return None
        _, found = await self.read(lambda c: runs.run_events(c, run_id))
        return [body.value() for _, body in found]

    async def run_memos(self, run_id: str) -> dict[str, JsonValue]:
        """The memos of the run's finished steps by step id."""
        memory = await self.read(lambda c: runs.memory_of(c, run_id, NOTHING))
        memos: dict[str, JsonValue] = memory.memos().value()
        return memos

    async def read(self, question: Callable[[Connection], T]) -> T:
        """The answer to a question about one moment."""
        with damage_said():
            return await self._database.read(question)

    async def _write(self, unit: Callable[[Connection], T]) -> T:
        with damage_said():
            return await self._database.write(unit)

    async def _count(self, sql: str, *parameters: int) -> int:
        row = await self.read(lambda c: one(c, sql, parameters))
        assert row is not None
        return int(row[0])

    async def _transition(self, transition: Callable[[Transition], T]) -> T:
        """Run it in one transaction, with everything that it gives rise to."""

        def unit(connection: Connection) -> T:
            at = Transition(
                connection=connection,
                now_ms=self._clock.now_ms(),
                new_ulid=self._ulids.next,
                expressions=self._expressions,
            )
            result = transition(at)
            events.route_emitted(at)
            return result

        return await self._write(unit)


_RUNS: Final = (
    "SELECT r.run_id, r.fn_id, e.event_id, r.status, r.queued_at, r.ended_at, r.steps, r.output, r.error,"
    " r.rerun_of, r.held_reason"
    " FROM runs r JOIN events e ON e.ulid = r.event_ulid"
)


def _engine_run(row: Sequence[Any]) -> EngineRun:
    run_id, fn_id, event_id, status, queued_at, ended_at, steps, output, error, rerun_of, held = row
    return EngineRun(
        run_id=run_id,
        fn_id=fn_id,
        event_id=event_id,
        status=EngineRunStatus(status) if held is None else EngineRunStatus.WAITING,
        queued_at_ms=queued_at,
        ended_at_ms=ended_at,
        steps=steps,
        output=None if output is None else msgspec.json.decode(output),
        error=None if error is None else msgspec.json.decode(error, type=Failure),
        rerun_of=rerun_of,
        held_reason=held,
    )


def _settle(
    at: Transition, claim: Claim, outcome: Outcome, backoff: Backoff, next_lease: Lease | None, *, gives_way: bool
) -> Settled:
    job = claims.held_job(at, claim)
    if job is None:
        return Settled(stale=True, next_claim=None, more_due=False)
    if isinstance(outcome, OpsAnswered) and outcome.request_version not in (None, claim.call.request_version):
        sql = "UPDATE runs SET request_version = ? WHERE run_id = ?"
        run(at.connection, sql, (outcome.request_version, claim.run_id))
    runs.settle(at, job, outcome, max_attempts=claim.call.max_attempts, backoff=backoff)
    events.route_emitted(at)
    taken = None
    if next_lease is not None and not (gives_way and claims.is_more_due(at, besides=claim.run_id)):
        taken = claims.claim_next_of(at, next_lease, claim)
    return Settled(stale=False, next_claim=taken, more_due=claims.is_more_due(at))


def _claim(at: Transition, lease: Lease, serves: Mapping[str, str], limit: int, has: Collection[str]) -> list[Claim]:
    timers.fire_due(at)
    events.route_emitted(at)
    return claims.claim(at, lease, serves, limit, has)


def _mend_clock(at: Transition) -> None:
    jobs.mend(at)
    schedules.mend(at)


def _next_due(connection: Connection) -> int | None:
    # By kind: so it is one index step.
    queued = "SELECT min(due_at) FROM queue WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = ?"
    dues = [rows(connection, queued, (kind.value,)) for kind in JobKind]
    found = [row[0] for [row] in [*dues, rows(connection, "SELECT min(due_at) FROM timers")] if row[0] is not None]
    return min(found, default=None)
