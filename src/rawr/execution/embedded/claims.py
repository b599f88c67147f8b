"""Who works on what: jobs are claimed, held under a lease, given back and taken from the dead.

A job is held by one engine at a time. The claim raises the job's generation, and a result counts only while
owner and generation are those of the claim: whoever lost a lease cannot write any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rawr.execution.embedded import runs
from rawr.execution.embedded.model import Claim, EngineRunStatus, JobKind, Lease
from rawr.execution.embedded.protocol import Call
from rawr.execution.embedded.transition import JOB, Job, Transition, job_of, stored_fragment
from rawr.storage.sqlite import one, rows, run
from rawr.wire import encode_canonical

CRASHES_SUSPECT: Final = 2
"""A job under which the host died this often is a suspect, and an engine works on one suspect at a time: what kills
the host then takes no other job with it to the limit."""

_ANY: Final = 2**31
# Constant texts; nothing from outside is ever put into SQL.
_HELD: Final = f"SELECT {JOB} FROM queue WHERE job_id = ? AND lease_owner = ? AND generation = ?"  # noqa: S608
_TAKE: Final = (
    "UPDATE queue SET lease_owner = ?, lease_until = ?, generation = generation + 1"  # noqa: S608
    f" WHERE job_id = ? RETURNING {JOB}"
)
_TAKE_BACK: Final = (
    "UPDATE queue SET lease_owner = NULL, lease_until = NULL, crashes = crashes + 1 WHERE lease_owner IS NOT NULL"  # noqa: S608
    " AND (lease_owner IN (SELECT value FROM json_each(?))"
    " OR (lease_until < ? AND lease_owner NOT IN (SELECT value FROM json_each(?))))"
    f" RETURNING {JOB}"
)
_DUE: Final = "SELECT 1 FROM queue WHERE lease_owner IS NULL AND kind = 'call' AND due_at <= ? LIMIT 1"


def claim(at: Transition, lease: Lease, fn_ids: Sequence[str], limit: int) -> list[Claim]:
    """Take up to `limit` due calls of these functions, longest due first."""
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


def claim_next_of(at: Transition, lease: Lease, run_id: str) -> Claim | None:
    """Take the next due call of one run."""
    found = one(
        at.connection,
        "SELECT job_id FROM queue WHERE run_id = ? AND lease_owner IS NULL AND kind = ? AND due_at <= ?"
        " AND crashes < ? ORDER BY due_at, rowid LIMIT 1",
        (run_id, JobKind.CALL.value, at.now_ms, CRASHES_SUSPECT),
    )
    return None if found is None else _take(at, lease, found[0])


def held_job(at: Transition, claim: Claim) -> Job | None:
    """The job of a claim, if the claim still holds it."""
    held = one(at.connection, _HELD, (claim.job_id, claim.owner, claim.generation))
    return None if held is None else job_of(held)


def is_more_due(at: Transition) -> bool:
    return one(at.connection, _DUE, (at.now_ms,)) is not None


def release(at: Transition, owner: str) -> None:
    """Give all leases of `owner` back, as if they had never been taken."""
    run(at.connection, "UPDATE queue SET lease_owner = NULL, lease_until = NULL WHERE lease_owner = ?", (owner,))


def reclaim(at: Transition, *, dead: Sequence[str], alive: Sequence[str], crashes_max: int) -> int:
    """Free the leases of dead owners, and expired ones of all but `alive`; how many there were.

    The same attempt is delivered again. A job that was lost `crashes_max` times is given up.
    """
    lost = rows(
        at.connection,
        _TAKE_BACK,
        (encode_canonical(list(dead)).decode(), at.now_ms, encode_canonical(list(alive)).decode()),
    )
    for row in lost:
        job = job_of(row)
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
        "SELECT r.plan_steps, f.max_attempts FROM runs r JOIN functions f ON f.fn_id = r.fn_id WHERE r.run_id = ?",
        (job.run_id,),
    )
    assert row is not None
    _, events = runs.run_events(at, job.run_id)
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
        events=tuple(body for _, body in events),
        memos=tuple((step_id, stored_fragment(memo, signed)) for step_id, memo, signed in memos),
    )
