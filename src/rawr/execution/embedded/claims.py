"""Who works on what: jobs are claimed, held under a lease, given back and taken from the dead.

A job is held by one engine at a time. The claim raises the job's generation, and a result counts only while
owner and generation are those of the claim: whoever lost a lease cannot write any more.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Final

from rawr.execution.embedded import jobs, registry, runs
from rawr.execution.embedded.admission import Candidate, is_admitted
from rawr.execution.embedded.model import Claim, EngineRunStatus, JobKind, Lease
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
    "SELECT job_id, crashes, fn_id, throttle, key1, key2, version FROM queue"
    " WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = 'call' AND due_at <= ?2"
    " AND fn_id IN (SELECT key FROM json_each(?1)) AND crashes < ?3 AND"
    " (version IN (SELECT value FROM json_each(?1)) OR version NOT IN (SELECT version FROM offers))"
    " ORDER BY due_at, rowid LIMIT ?4"
)
_DUE: Final = (
    "SELECT 1 FROM queue WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = 'call' AND due_at <= ? LIMIT 1"
)


def claim(at: Transition, lease: Lease, serves: Mapping[str, str], limit: int) -> list[Claim]:
    """Take up to `limit` due calls that their limits admit, longest due first.

    `serves` has the version of each function that this engine can call. A run is continued by an engine that serves
    the version it began with; when none does any more, by whoever serves the function, which becomes its version.
    """
    function_of = functools.cache(functools.partial(registry.function_of, at))
    may_take_suspect = not _has_suspect(at, lease.owner)
    served = encode_canonical(serves).decode()
    claims: list[Claim] = []
    for _ in range(PAGES_MAX):
        crashes_below = _ANY if may_take_suspect else CRASHES_SUSPECT
        page = rows(at.connection, _CANDIDATES, (served, at.now_ms, crashes_below, limit - len(claims)))
        passed_over = 0
        for candidate in (Candidate(*row) for row in page):
            is_suspect = candidate.crashes >= CRASHES_SUSPECT
            if (is_suspect and not may_take_suspect) or not is_admitted(at, candidate, function_of):
                passed_over += 1
                continue
            may_take_suspect = may_take_suspect and not is_suspect
            if candidate.version != serves[candidate.fn_id]:
                _adopt(at, candidate.job_id, serves[candidate.fn_id])
            claims.append(_take(at, lease, candidate.job_id))
        if not passed_over:
            break
    return claims


def claim_next_of(at: Transition, lease: Lease, run_id: str) -> Claim | None:
    """Take the next due call of one run, unless it has limits: then it is the turn of who waits longest."""
    found = one(
        at.connection,
        "SELECT job_id FROM queue WHERE run_id = ? AND lease_owner IS NULL AND parked_on IS NULL AND kind = ?"
        " AND due_at <= ? AND crashes < ? AND key1 IS NULL AND key2 IS NULL AND throttle IS NULL"
        " ORDER BY due_at, rowid LIMIT 1",
        (run_id, JobKind.CALL.value, at.now_ms, CRASHES_SUSPECT),
    )
    return None if found is None else _take(at, lease, found[0])


def held_job(at: Transition, claim: Claim) -> Job | None:
    """The job of a claim, if the claim still holds it."""
    held = one(at.connection, _HELD, (claim.job_id, claim.owner, claim.generation))
    return None if held is None else job_of(held)


def is_more_due(at: Transition) -> bool:
    return one(at.connection, _DUE, (at.now_ms,)) is not None


def reclaim(at: Transition, *, dead: Sequence[str], alive: Sequence[str], crashes_max: int) -> int:
    """Free the leases of dead owners, and expired ones of all but `alive`; how many there were.

    The same attempt is delivered again. A job that was lost `crashes_max` times is given up.
    """
    lost = jobs.take_back(at, dead=dead, alive=alive)
    for job in lost:
        if job.crashes >= crashes_max:
            runs.give_up_on_host(at, job)
    return len(lost)


def _has_suspect(at: Transition, owner: str) -> bool:
    held = one(
        at.connection,
        "SELECT 1 FROM queue WHERE lease_owner = ? AND crashes >= ? LIMIT 1",
        (owner, CRASHES_SUSPECT),
    )
    return held is not None


def _take(at: Transition, lease: Lease, job_id: str) -> Claim:
    taken = one(at.connection, _TAKE, (lease.owner, lease.until_ms, job_id))
    assert taken is not None
    job = job_of(taken)
    _begin_run(at, job.run_id)
    return Claim(
        owner=lease.owner, job_id=job.job_id, run_id=job.run_id, generation=job.generation, call=_call(at, job)
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


def _call(at: Transition, job: Job) -> Call:
    row = one(
        at.connection,
        "SELECT r.plan_steps, r.steps, r.state_bytes, r.request_version, f.max_attempts, a.url FROM runs r"
        " JOIN functions f ON f.fn_id = r.fn_id JOIN apps a ON a.app_id = f.app_id WHERE r.run_id = ?",
        (job.run_id,),
    )
    assert row is not None
    plan_steps, steps, state_bytes, request_version, max_attempts, url = row
    _, triggers = runs.run_events(at.connection, job.run_id)
    events = tuple(body for _, body in triggers)
    use_api = state_bytes + sum(event.size_bytes for event in events) > CALL_STATE_MAX_BYTES
    finished = runs.finished_steps(at.connection, job.run_id, with_memos=not use_api)
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
        steps=steps,
        stack=finished.stack,
        memos=finished.memos,
        use_api=use_api,
        url=url,
        request_version=request_version,
    )
