"""What happens to a run: started by an event, carried on by the outcome of a call, ended once.

Every function here is one state transition inside the caller's transaction: the memo of a step, the end of its
job and the next job appear together or not at all. Nothing here calls anybody or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rawr.execution.embedded.fragment import NULL, Fragment, fragment, frame
from rawr.execution.embedded.model import EVENT_FAILED, EVENT_FINISHED, EngineRunStatus, JobKind, NewEvent
from rawr.execution.embedded.protocol import (
    ROOT_STEP,
    RUN_STATE_MAX_BYTES,
    RUN_STEPS_MAX,
    Backoff,
    CallFailed,
    Failure,
    FunctionFinished,
    Op,
    OpsAnswered,
    Outcome,
    Sleeping,
    StepErrored,
    StepPlanned,
    StepRan,
    UnsupportedOp,
    retry_after_ms,
    sleep_until_ms,
)
from rawr.storage.sqlite import Connection, one, rows, run

DEDUPE_MS: Final = 24 * 3600 * 1000


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the queue."""

    job_id: str
    run_id: str
    fn_id: str
    kind: JobKind
    step_id: str
    name: str
    attempt: int
    generation: int
    crashes: int


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """The surroundings of a transition: the transaction, and what time it is."""

    connection: Connection
    now_ms: int
    new_ulid: Any
    """`new_ulid() -> str`"""


def accept(at: Transition, events: Sequence[NewEvent], *, route_now: bool) -> None:
    """Store events. Routed ones start their runs in the same transaction; others wait for `route_waiting`."""
    for event in events:
        run(
            at.connection,
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.ulid,
                event.event_id,
                event.name,
                event.of_function,
                event.body.text.decode(),
                _text(event.body.canonical),
                at.now_ms,
                int(route_now),
            ),
        )
        if route_now:
            _route(at, event.ulid, event.event_id, event.name, event.of_function)


def route_waiting(at: Transition) -> int:
    """Start the runs of events that came while no engine was up; how many events there were."""
    waiting = rows(at.connection, "SELECT ulid, event_id, name, of_function FROM events WHERE routed = 0 ORDER BY ulid")
    for ulid, event_id, name, of_function in waiting:
        run(at.connection, "UPDATE events SET routed = 1 WHERE ulid = ?", (ulid,))
        _route(at, ulid, event_id, name, of_function)
    return len(waiting)


def settle(at: Transition, job: Job, outcome: Outcome, *, max_attempts: int, backoff: Backoff) -> None:
    """Apply the outcome of a call to its run. The caller has checked that it still holds the job."""
    match outcome:
        case FunctionFinished(output=output):
            end_run(at, job.run_id, output)
        case CallFailed(failure=failure, retriable=retriable, retry_after=retry_after):
            if not retriable or job.attempt + 1 >= max_attempts:
                end_run(at, job.run_id, failure)
            else:
                asked_ms = retry_after_ms(retry_after, now_ms=at.now_ms) if retry_after else None
                _try_again(at, job, asked_ms or at.now_ms + backoff(job.attempt))
        case OpsAnswered(ops=ops):
            _carry_on(at, job, ops, max_attempts=max_attempts, backoff=backoff)


def end_sleep(at: Transition, job: Job) -> None:
    """A sleep is over: remember it and let the function go on."""
    run(at.connection, "DELETE FROM queue WHERE job_id = ?", (job.job_id,))
    _finish_step(at, job, job.step_id, job.name, NULL)
    _discover_after(at, job.run_id, job.fn_id, job.step_id)


def give_up_on_host(at: Transition, job: Job) -> None:
    """The host died in this job again and again. A step fails, for its function to see; else the run fails."""
    message = f"the host process died {job.crashes} times while it ran {job.name!r}; it is not tried again"
    failure = Failure(name="HostDied", message=message)
    if job.step_id == ROOT_STEP:
        end_run(at, job.run_id, failure)
        return
    run(at.connection, "DELETE FROM queue WHERE job_id = ?", (job.job_id,))
    _finish_step(at, job, job.step_id, job.name, failure.memo())
    _discover_after(at, job.run_id, job.fn_id, job.step_id)


def end_run(at: Transition, run_id: str, result: Fragment | Failure) -> None:
    """End a run: its status, its output or error, the end of all its jobs and its last event, together."""
    failed = isinstance(result, Failure)
    status = EngineRunStatus.FAILED if failed else EngineRunStatus.COMPLETED
    output = None if isinstance(result, Failure) else result.text.decode()
    error = fragment(result.as_json()).text.decode() if isinstance(result, Failure) else None
    run(
        at.connection,
        "UPDATE runs SET status = ?, ended_at = ?, output = ?, error = ? WHERE run_id = ?",
        (status.value, at.now_ms, output, error, run_id),
    )
    run(at.connection, "DELETE FROM queue WHERE run_id = ?", (run_id,))
    run(at.connection, "DELETE FROM pending WHERE run_id = ?", (run_id,))
    accept(at, _end_events(at, run_id, result), route_now=True)


def stored_fragment(text: str, canonical: str | None) -> Fragment:
    return Fragment(text.encode(), None if canonical is None else canonical.encode())


def _text(raw: bytes | None) -> str | None:
    return None if raw is None else raw.decode()


def _route(at: Transition, ulid: str, event_id: str, name: str, of_function: str | None) -> None:
    """Start a run of every function that the event triggers, unless its id did so within the last 24 hours."""
    found = rows(
        at.connection,
        "SELECT DISTINCT t.fn_id FROM triggers t JOIN functions f ON f.fn_id = t.fn_id"
        " WHERE t.event_name = ? AND f.archived = 0 AND (t.of_function IS NULL OR t.of_function = ?)",
        (name, of_function),
    )
    for (fn_id,) in found:
        run_id = at.new_ulid()
        fresh = one(
            at.connection,
            "INSERT INTO event_keys VALUES (?, ?, ?, ?) ON CONFLICT (fn_id, event_id) DO UPDATE"
            " SET run_id = excluded.run_id, seen_at = excluded.seen_at WHERE seen_at <= ? RETURNING 1",
            (fn_id, event_id, run_id, at.now_ms, at.now_ms - DEDUPE_MS),
        )
        if fresh is None:
            continue
        run(
            at.connection,
            "INSERT INTO runs (run_id, fn_id, event_ulid, status, queued_at) VALUES (?, ?, ?, ?, ?)",
            (run_id, fn_id, ulid, EngineRunStatus.QUEUED.value, at.now_ms),
        )
        _discover(at, run_id, fn_id, 0)


def _carry_on(at: Transition, job: Job, ops: Sequence[Op], *, max_attempts: int, backoff: Backoff) -> None:
    retry = [op for op in ops if isinstance(op, StepErrored) and not op.final and job.attempt + 1 < max_attempts]
    if retry:
        _try_again(at, job, at.now_ms + backoff(job.attempt))
    else:
        run(at.connection, "DELETE FROM queue WHERE job_id = ?", (job.job_id,))
    if len(ops) > 1:
        run(at.connection, "UPDATE runs SET plan_steps = 1 WHERE run_id = ?", (job.run_id,))
    finished: list[str] = []
    for op in ops:
        match op:
            case StepRan():
                _finish_step(at, job, op.step_id, op.name, op.memo)
                finished.append(op.step_id)
            case StepErrored():
                if op not in retry:
                    _finish_step(at, job, op.step_id, op.name, op.failure.memo())
                    finished.append(op.step_id)
            case StepPlanned():
                _plan(at, job, op, kind=JobKind.CALL, due_ms=at.now_ms, among_others=len(ops) > 1)
            case Sleeping():
                due_ms = sleep_until_ms(op.until, now_ms=at.now_ms)
                if due_ms is None:
                    message = f"sleep {op.name!r} until {op.until!r}: not a time or duration within a year"
                    end_run(at, job.run_id, Failure(name="SleepInvalid", message=message))
                    return
                _plan(at, job, op, kind=JobKind.SLEEP, due_ms=due_ms, among_others=len(ops) > 1)
            case UnsupportedOp():
                message = f"step {op.name!r} needs {op.op}, which the embedded engine does not do"
                end_run(at, job.run_id, Failure(name="UnsupportedStep", message=message))
                return
    _go_on_after(at, job, finished)


def _go_on_after(at: Transition, job: Job, finished: Sequence[str]) -> None:
    excess = _excess(at, job.run_id)
    if excess is not None:
        end_run(at, job.run_id, excess)
        return
    for step_id in finished:
        _discover_after(at, job.run_id, job.fn_id, step_id)
    if one(at.connection, "SELECT 1 FROM queue WHERE run_id = ? LIMIT 1", (job.run_id,)) is None:
        message = "the function answered without a step and without a result; is it deterministic?"
        end_run(at, job.run_id, Failure(name="NothingToDo", message=message))


def _excess(at: Transition, run_id: str) -> Failure | None:
    row = one(at.connection, "SELECT steps, state_bytes FROM runs WHERE run_id = ?", (run_id,))
    assert row is not None
    if row[0] > RUN_STEPS_MAX:
        return Failure(name="TooManySteps", message=f"the run has more than {RUN_STEPS_MAX} steps")
    if row[1] > RUN_STATE_MAX_BYTES:
        message = f"the run's step results have {row[1]} bytes; the limit is {RUN_STATE_MAX_BYTES}"
        return Failure(name="RunStateTooLarge", message=message)
    return None


def _try_again(at: Transition, job: Job, due_ms: int) -> None:
    run(
        at.connection,
        "UPDATE queue SET attempt = attempt + 1, due_at = ?, crashes = 0, lease_owner = NULL, lease_until = NULL"
        " WHERE job_id = ?",
        (due_ms, job.job_id),
    )


def _finish_step(at: Transition, job: Job, step_id: str, name: str, memo: Fragment) -> None:
    """Remember a step's result. What is remembered already stays: a result never changes."""
    saved = one(
        at.connection,
        "INSERT INTO steps SELECT ?, ?, steps + 1, ?, ?, ?, ?, ? FROM runs WHERE run_id = ?"
        " ON CONFLICT DO NOTHING RETURNING seq",
        (
            job.run_id,
            step_id,
            name,
            memo.text.decode(),
            _text(memo.canonical),
            job.attempt,
            at.now_ms,
            job.run_id,
        ),
    )
    if saved is not None:
        run(
            at.connection,
            "UPDATE runs SET steps = steps + 1, state_bytes = state_bytes + ? WHERE run_id = ?",
            (memo.size_bytes, job.run_id),
        )


def _plan(
    at: Transition, job: Job, op: StepPlanned | Sleeping, *, kind: JobKind, due_ms: int, among_others: bool
) -> None:
    """Queue a step once, however many calls discover it, and never again after it has finished."""
    done = one(at.connection, "SELECT 1 FROM steps WHERE run_id = ? AND step_id = ?", (job.run_id, op.step_id))
    if done is not None:
        return
    run(
        at.connection,
        "INSERT OR IGNORE INTO queue (job_id, run_id, fn_id, kind, step_id, name, due_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (f"{job.run_id}|step|{op.step_id}", job.run_id, job.fn_id, kind.value, op.step_id, op.name, due_ms),
    )
    if among_others:
        pending = (job.run_id, op.step_id, int(op.race))
        run(at.connection, "INSERT OR IGNORE INTO pending VALUES (?, ?, ?)", pending)


def _discover_after(at: Transition, run_id: str, fn_id: str, step_id: str) -> None:
    """Ask the function what comes next: after each step of a race, else once all steps of a group are done."""
    was = one(at.connection, "DELETE FROM pending WHERE run_id = ? AND step_id = ? RETURNING race", (run_id, step_id))
    waits = was == (0,) and one(at.connection, "SELECT 1 FROM pending WHERE run_id = ? LIMIT 1", (run_id,)) is not None
    if waits:
        return
    if one(at.connection, "SELECT 1 FROM queue WHERE run_id = ? LIMIT 1", (run_id,)) is None:
        # Alone again. While another call of the run is under way, a step that is run on sight could run twice.
        run(at.connection, "UPDATE runs SET plan_steps = 0 WHERE run_id = ? AND plan_steps = 1", (run_id,))
    row = one(at.connection, "SELECT steps FROM runs WHERE run_id = ?", (run_id,))
    assert row is not None
    _discover(at, run_id, fn_id, row[0])


def _discover(at: Transition, run_id: str, fn_id: str, after_steps: int) -> None:
    run(
        at.connection,
        "INSERT OR IGNORE INTO queue (job_id, run_id, fn_id, kind, step_id, name, due_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            f"{run_id}|discover|{after_steps}",
            run_id,
            fn_id,
            JobKind.CALL.value,
            ROOT_STEP,
            "the function",
            at.now_ms,
        ),
    )


def _end_events(at: Transition, run_id: str, result: Fragment | Failure) -> list[NewEvent]:
    """`inngest/function.finished`, and `.failed` for a failure. Runs that such events started send none."""
    row = one(
        at.connection,
        "SELECT r.fn_id, e.name, e.body, e.body_canonical FROM runs r JOIN events e ON e.ulid = r.event_ulid"
        " WHERE r.run_id = ?",
        (run_id,),
    )
    assert row is not None
    fn_id, event_name, *body = row
    if event_name in (EVENT_FINISHED, EVENT_FAILED):
        return []
    event = stored_fragment(*body)
    data: dict[str, Any] = {"function_id": fn_id, "run_id": run_id, "event": event, "events": [event]}
    if isinstance(result, Failure):
        error = fragment({"error": "invalid status code: 500", **result.as_json()})
        data = {**data, "error": error, "_inngest": {"status": "Failed"}}
        return [
            _internal_event(at, EVENT_FINISHED, f"{run_id}.finished", fn_id, data),
            _internal_event(at, EVENT_FAILED, run_id, fn_id, data),
        ]
    data = {**data, "result": result, "_inngest": {"status": "Completed"}}
    return [_internal_event(at, EVENT_FINISHED, f"{run_id}.finished", fn_id, data)]


def _internal_event(at: Transition, name: str, event_id: str, fn_id: str, data: dict[str, Any]) -> NewEvent:
    body = frame({"name": name, "id": event_id, "ts": at.now_ms, "user": {}, "data": data})
    return NewEvent(ulid=at.new_ulid(), event_id=event_id, name=name, of_function=fn_id, body=body)
