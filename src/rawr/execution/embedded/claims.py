"""Who works on what: jobs are claimed, held under a lease, given back and taken from the dead.

A job is held by one engine at a time. The claim raises the job's generation, and a result counts only while
owner and generation are those of the claim: whoever lost a lease cannot write any more.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from rawr.execution.embedded import jobs, registry, runs
from rawr.execution.embedded.admission import Candidate, is_admitted
from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.memory import NOTHING
from rawr.execution.embedded.model import Claim, EngineRunStatus, Lease
from rawr.execution.embedded.pins import Judge, Standing, hold
from rawr.execution.embedded.protocol import CALL_STATE_MAX_BYTES, Call
from rawr.execution.embedded.transition import JOB, Job, TimerKind, Transition, job_of, set_timer
from rawr.storage.sqlite import one, rows, run
from rawr.wire import encode_canonical

CRASHES_SUSPECT: Final = 2
"""A job under which the host died this often is a suspect, and an engine works on one suspect at a time: what kills
the host then takes no other job with it to the limit."""

PAGES_MAX: Final = 16
"""So many times a claim looks for calls that are admitted in place of those that are not; then others may write."""

_ANY: Final = 2**31
# Constant texts; nothing from outside is ever put into SQL.
_HELD: Final = f"SELECT {JOB} FROM queue WHERE job_id = ? AND lease_owner = ? AND generation = ?"  # noqa: S608
_TAKE: Final = (
    "UPDATE queue SET lease_owner = ?, lease_until = ?, generation = generation + 1, called_by = NULL,"  # noqa: S608
    f" throttle = NULL WHERE job_id = ? RETURNING {JOB}"
)
_CANDIDATES: Final = (
    "SELECT job_id, crashes, fn_id, throttle, key1, key2, version, code FROM queue"
    " WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = 'call' AND due_at <= ?2"
    " AND fn_id IN (SELECT key FROM json_each(?1)) AND crashes < ?3 AND"
    " (version IN (SELECT value FROM json_each(?1)) OR version NOT IN (SELECT version FROM offers)"
    " OR code IS NOT NULL) AND"
    " (code IS NULL OR fn_id || '|' || version || '|' || code NOT IN (SELECT value FROM json_each(?5)))"
    " ORDER BY due_at, rowid LIMIT ?4"
)
_NEXT_OF: Final = (
    # By itself SQLite would look through everything that is due, for however many runs.
    "SELECT job_id, min(due_at) FROM queue INDEXED BY queue_by_run WHERE run_id = ? AND lease_owner IS NULL"
    " AND parked_on IS NULL AND kind = 'call' AND due_at <= ? AND crashes < ?"
    " AND key1 IS NULL AND key2 IS NULL AND throttle IS NULL"
)
_DUE: Final = (
    "SELECT 1 FROM queue WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = 'call' AND due_at <= ?"
    " AND run_id <> ? LIMIT 1"
)


def claim(
    at: Transition, lease: Lease, serves: Mapping[str, str], limit: int, has: Collection[str] = ()
) -> list[Claim]:
    """Take up to `limit` due calls that their limits admit, longest due first.

    `serves` has the version of each function that this engine can call. A run is continued by an engine that serves
    the version it began with; when none does any more, by whoever serves the function, which becomes its version.
    `has` is the code of this engine; a run that is pinned to other code is never taken.
    """
    judge = Judge(at, serves, has)
    function_of = functools.cache(functools.partial(registry.function_of, at))
    may_take_suspect = not _has_suspect(at, lease.owner)
    served = encode_canonical(serves).decode()
    claims: list[Claim] = []
    for _ in range(PAGES_MAX):
        crashes_below = _ANY if may_take_suspect else CRASHES_SUSPECT
        left = encode_canonical(sorted(judge.left)).decode()
        page = rows(at.connection, _CANDIDATES, (served, at.now_ms, crashes_below, limit - len(claims), left))
        passed_over = 0
        for candidate in (Candidate(*row) for row in page):
            is_suspect = candidate.crashes >= CRASHES_SUSPECT
            may_take = may_take_suspect or not is_suspect
            if not (may_take and _is_ours(at, judge, candidate) and is_admitted(at, candidate, function_of)):
                passed_over += 1
                continue
            may_take_suspect = may_take_suspect and not is_suspect
            if candidate.version != serves[candidate.fn_id]:
                _adopt(at, candidate.job_id, serves[candidate.fn_id])
            claims.append(_take(at, lease, candidate.job_id))
        if not passed_over:
            break
    return claims


def claim_next_of(at: Transition, lease: Lease, settled: Claim) -> Claim | None:
    """Take the next due call of the run, unless it has limits: then it is the turn of who waits longest.

    It carries what the settled one carried, and what has come since: only that is read.
    """
    found = one(at.connection, _NEXT_OF, (settled.run_id, at.now_ms, CRASHES_SUSPECT))
    return None if found is None or found[0] is None else _take(at, lease, found[0], settled.call)


def held_job(at: Transition, claim: Claim) -> Job | None:
    """The job of a claim, if the claim still holds it."""
    held = one(at.connection, _HELD, (claim.job_id, claim.owner, claim.generation))
    return None if held is None else job_of(held)


def is_more_due(at: Transition, *, besides: str = "") -> bool:
    """Whether somebody could claim a call now, of any run `besides` this one."""
    return one(at.connection, _DUE, (at.now_ms, besides)) is not None


def reclaim(at: Transition, *, dead: Sequence[str], alive: Sequence[str], crashes_max: int) -> int:
    """Free the leases of dead owners, and expired ones of all but `alive`; how many there were.

    The same attempt is delivered again. A job that was lost `crashes_max` times is given up.
    """
    lost = jobs.take_back(at, dead=dead, alive=alive)
    for job in lost:
        if job.crashes >= crashes_max:
            runs.give_up_on_host(at, job)
    return len(lost)


def _is_ours(at: Transition, judge: Judge, candidate: Candidate) -> bool:
    """Whether we have the code of the run. What nobody has is held, out of the way of later claims."""
    standing = judge.standing(candidate)
    if standing is Standing.NOWHERE:
        hold(at, candidate)
    return standing is Standing.OURS


def _has_suspect(at: Transition, owner: str) -> bool:
    held = one(
        at.connection,
        "SELECT 1 FROM queue WHERE lease_owner = ? AND crashes >= ? LIMIT 1",
        (owner, CRASHES_SUSPECT),
    )
    return held is not None


def _take(at: Transition, lease: Lease, job_id: str, last: Call | None = None) -> Claim:
    """`last` is the call of the same run that this one directly follows."""
    taken = one(at.connection, _TAKE, (lease.owner, lease.until_ms, job_id))
    assert taken is not None
    job = job_of(taken)
    if last is None:
        _begin_run(at, job.run_id)
    return Claim(
        owner=lease.owner,
        job_id=job.job_id,
        run_id=job.run_id,
        generation=job.generation,
        call=_call(at, job, last),
        is_pinned=job.code is not None,
    )


def _adopt(at: Transition, job_id: str, version: str) -> None:
    """All of the run goes on in this version."""
    row = one(at.connection, "SELECT run_id FROM queue WHERE job_id = ?", (job_id,))
    assert row is not None
    run(at.connection, "UPDATE runs SET version = ? WHERE run_id = ?", (version, row[0]))
    run(at.connection, "UPDATE queue SET version = ? WHERE run_id = ?", (version, row[0]))


def _begin_run(at: Transition, run_id: str) -> None:
    begun = one(
        at.connection,
        "UPDATE runs SET status = ?, started_at = ? WHERE run_id = ? AND status = ? RETURNING finish_timeout",
        (EngineRunStatus.RUNNING.value, at.now_ms, run_id, EngineRunStatus.QUEUED.value),
    )
    if begun is not None and begun[0] is not None:
        set_timer(at, f"{run_id}|finish", TimerKind.FINISH, at.now_ms + begun[0], run_id=run_id)


def _call(at: Transition, job: Job, last: Call | None) -> Call:
    row = one(
        at.connection,
        "SELECT r.plan_steps, r.state_bytes, r.request_version, f.max_attempts, a.url FROM runs r"
        " JOIN functions f ON f.fn_id = r.fn_id JOIN apps a ON a.app_id = f.app_id WHERE r.run_id = ?",
        (job.run_id,),
    )
    assert row is not None
    plan_steps, state_bytes, request_version, max_attempts, url = row
    events = _events(at, job.run_id) if last is None else last.events
    use_api = state_bytes + sum(event.size_bytes for event in events) > CALL_STATE_MAX_BYTES
    known = NOTHING if last is None else last.memory
    assert use_api or known.has_memos, "the state of a run only grows"
    return Call(
        fn_id=job.fn_id,
        run_id=job.run_id,
        job_id=job.job_id,
        request_id=at.new_ulid(),
        step_id=job.step_id,
        attempt=job.attempt,
        max_attempts=max_attempts,
        generation=job.generation,
        plan_steps=bool(plan_steps),
        events=events,
        memory=runs.memory_of(at.connection, job.run_id, known.without_memos() if use_api else known),
        use_api=use_api,
        url=url,
        request_version=request_version,
    )


def _events(at: Transition, run_id: str) -> tuple[Fragment, ...]:
    _, triggers = runs.run_events(at.connection, run_id)
    return tuple(body for _, body in triggers)
