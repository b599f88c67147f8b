"""What happens to a run: carried on by the outcome of a call, and ended once.

Every function here is one state transition inside the caller's transaction: the memo of a step, the end of its
job and the next job appear together or not at all. Nothing here calls anybody or looks at a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rawr.execution.embedded import jobs, waits
from rawr.execution.embedded.durations import Backoff, retry_after_ms, unreachable_pause_ms, wait_until_ms
from rawr.execution.embedded.fragment import NULL, Fragment, fragment, frame
from rawr.execution.embedded.memory import FinishedStep, Memory
from rawr.execution.embedded.model import (
    EVENT_CANCELLED,
    EVENT_FAILED,
    EVENT_FINISHED,
    EngineRunStatus,
    JobKind,
    NewEvent,
    StepOp,
)
from rawr.execution.embedded.outcomes import (
    AppUnreachable,
    CallFailed,
    DiscoveryWanted,
    EventAwaited,
    Failure,
    FunctionFinished,
    FunctionInvoked,
    FunctionReturned,
    Op,
    OpsAnswered,
    Outcome,
    Sleeping,
    StepErrored,
    StepPlanned,
    StepRan,
    UnsupportedOp,
)
from rawr.execution.embedded.protocol import ROOT_STEP, RUN_STATE_MAX_BYTES, RUN_STEPS_MAX
from rawr.execution.embedded.steps import (
    discover,
    discover_after,
    finish_step,
    has_anything_ahead,
    is_finished,
    join_group,
    keep_inputs,
    queue_step,
)
from rawr.execution.embedded.transition import Job, Transition, stored_fragment
from rawr.storage.sqlite import Connection, one, rows, run

DISCOVERY_PAUSE_MS: Final = 1000

_FINISHED: Final = (
    "SELECT step_id, json_quote(step_id), memo, memo_canonical FROM steps WHERE run_id = ? AND seq > ? ORDER BY seq"
)
_FINISHED_ORDER: Final = (
    "SELECT step_id, json_quote(step_id), '', NULL FROM steps WHERE run_id = ? AND seq > ? ORDER BY seq"
)


class Cancelled(msgspec.Struct, frozen=True, kw_only=True):
    """A run was ended from outside."""

    reason: str


Ending = Fragment | Failure | Cancelled
"""The output of a function, or why there is none."""


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
                due_ms = asked_ms or at.now_ms + backoff(job.attempt)
                jobs.retry(at, job.job_id, due_ms, _lost(job.step_id, job.name, failure))
        case AppUnreachable():
            jobs.postpone(at, job.job_id, at.now_ms + unreachable_pause_ms(job.generation))
        case OpsAnswered(ops=ops, inputs=inputs):
            keep_inputs(at, job.run_id, inputs)
            _carry_on(at, job, ops, max_attempts=max_attempts, backoff=backoff)


def end_sleep(at: Transition, job: Job) -> None:
    """A sleep is over: remember it and let the function go on."""
    jobs.end(at, job.job_id)
    finish_step(at, job.run_id, job.step_id, job.name, NULL, op=StepOp.SLEEP)
    discover_after(at, job.run_id, job.step_id)


def end_late(at: Transition, run_id: str, *, to_start: bool) -> None:
    """The time that the run had to start, or to finish, is over."""
    row = one(at.connection, "SELECT status FROM runs WHERE run_id = ?", (run_id,))
    if to_start and row != (EngineRunStatus.QUEUED.value,):
        return
    end_run(at, run_id, Cancelled(reason=f"it did not {'start' if to_start else 'finish'} in time"))


def give_up_on_host(at: Transition, job: Job) -> None:
    """The host died in this job again and again. A step fails, for its function to see; else the run fails."""
    message = f"the host process died {job.crashes} times while it ran {job.name!r}; it is not tried again"
    failure = Failure(name="HostDied", message=message)
    if job.step_id == ROOT_STEP:
        end_run(at, job.run_id, failure)
        return
    jobs.end(at, job.job_id)
    finish_step(at, job.run_id, job.step_id, job.name, failure.memo(), op=StepOp.RUN, attempt=job.attempt)
    discover_after(at, job.run_id, job.step_id)


def end_run(at: Transition, run_id: str, ending: Ending) -> bool:
    """End a run, unless it has ended: its status, its output or error, the end of all that it has ahead, its last
    events and the wait of who invoked it, together. The answer to a call that is under way will be dropped.
    """
    status, output, error = _stored_ending(ending)
    ended = one(
        at.connection,
        "UPDATE runs SET status = ?, ended_at = ?, output = ?, error = ?, held_at = NULL, held_reason = NULL"
        " WHERE run_id = ? AND ended_at IS NULL RETURNING parent_wait, singleton",
        (status.value, at.now_ms, output, error, run_id),
    )
    if ended is None:
        return False
    _note_unfinished(at, run_id)
    jobs.end_all_of(at, run_id)
    for table in ("pending", "waits", "timers", "cancels"):
        run(at.connection, f"DELETE FROM {table} WHERE run_id = ?", (run_id,))  # noqa: S608 - a constant name
    parent_wait, singleton = ended
    if singleton is not None:
        run(at.connection, "DELETE FROM singletons WHERE key = ?", (singleton,))
    at.emitted.extend(_end_events(at, run_id, ending))
    if parent_wait is not None:
        waits.fulfil(at, parent_wait, _memo_for_parent(ending))
    return True


def _note_unfinished(at: Transition, run_id: str) -> None:
    """Steps that the run asked for and ends without: its history is complete only with them."""
    run(
        at.connection,
        "INSERT OR IGNORE INTO unfinished SELECT run_id, step_id, name, CASE kind WHEN 'sleep' THEN 'sleep' ELSE 'run'"
        " END FROM queue WHERE run_id = ?1 AND step_id <> ?2 UNION ALL SELECT run_id, step_id, name,"
        " CASE WHEN event_name IS NULL THEN 'invoke' ELSE 'wait' END FROM waits WHERE run_id = ?1",
        (run_id, ROOT_STEP),
    )


def _stored_ending(ending: Ending) -> tuple[EngineRunStatus, str | None, str | None]:
    match ending:
        case Fragment():
            return EngineRunStatus.COMPLETED, ending.text.decode(), None
        case Failure():
            return EngineRunStatus.FAILED, None, fragment(ending.as_json()).text.decode()
        case Cancelled():
            return EngineRunStatus.CANCELLED, None, fragment(_cancellation(ending).as_json()).text.decode()


def _memo_for_parent(ending: Ending) -> Fragment:
    match ending:
        case Fragment():
            return frame({"data": ending})
        case Failure():
            return ending.memo()
        case Cancelled():
            return _cancellation(ending).memo()


def _cancellation(ending: Cancelled) -> Failure:
    return Failure(name="FunctionCancelled", message=ending.reason)


def _carry_on(at: Transition, job: Job, ops: Sequence[Op], *, max_attempts: int, backoff: Backoff) -> None:
    retry = [op for op in ops if isinstance(op, StepErrored) and not op.final and job.attempt + 1 < max_attempts]
    if retry:
        lost = _lost(retry[0].step_id, retry[0].name, retry[0].failure)
        jobs.retry(at, job.job_id, at.now_ms + backoff(job.attempt), lost)
    else:
        jobs.end(at, job.job_id)
    if len([op for op in ops if not isinstance(op, StepRan)]) > 1:
        run(at.connection, "UPDATE runs SET plan_steps = 1 WHERE run_id = ?", (job.run_id,))
    finished: list[str] = []
    for op in ops:
        if op in retry:
            continue
        refusal = _apply(at, job, op, finished=finished, among_others=len(ops) > 1)
        if refusal is not None:
            end_run(at, job.run_id, refusal)
            return
        if isinstance(op, FunctionReturned):
            return
    _go_on_after(at, job, finished)


def _lost(step_id: str, name: str, failure: Failure) -> Fragment:
    """What a job keeps of its last attempt, for who looks at the run."""
    return fragment({"step_id": step_id, "name": name, "error": failure.as_json()})


def _apply(at: Transition, job: Job, op: Op, *, finished: list[str], among_others: bool) -> Failure | None:
    """Do what one operation asks; why the run cannot go on with it, or None. Steps that ended go to `finished`."""
    match op:
        case StepRan():
            finish_step(at, job.run_id, op.step_id, op.name, op.memo, op=StepOp.RUN, attempt=job.attempt)
            finished.append(op.step_id)
        case StepErrored():
            memo = op.failure.memo()
            finish_step(at, job.run_id, op.step_id, op.name, memo, op=StepOp.RUN, attempt=job.attempt)
            finished.append(op.step_id)
        case StepPlanned() | Sleeping() | EventAwaited() | FunctionInvoked():
            if is_finished(at, job.run_id, op.step_id):
                return None
            if among_others:
                join_group(at, job.run_id, op.step_id, race=op.race)
            return _begin(at, job, op, finished=finished)
        case FunctionReturned():
            end_run(at, job.run_id, op.output)
        case DiscoveryWanted():
            row = one(at.connection, "SELECT steps FROM runs WHERE run_id = ?", (job.run_id,))
            assert row is not None
            # At once only if there is something new to go on from, so that nobody can ask in a circle.
            due_ms = at.now_ms if finished else at.now_ms + DISCOVERY_PAUSE_MS
            discover(at, job.run_id, after_steps=row[0], due_ms=due_ms)
        case UnsupportedOp():
            message = f"step {op.name!r} needs {op.op}, which the embedded engine does not do"
            return Failure(name="UnsupportedStep", message=message)
    return None


def _begin(
    at: Transition,
    job: Job,
    op: StepPlanned | Sleeping | EventAwaited | FunctionInvoked,
    *,
    finished: list[str],
) -> Failure | None:
    match op:
        case StepPlanned():
            queue_step(at, job.run_id, op.step_id, op.name, kind=JobKind.CALL, due_ms=at.now_ms)
        case Sleeping():
            due_ms = wait_until_ms(op.until, now_ms=at.now_ms)
            if due_ms is None:
                message = f"sleep {op.name!r} until {op.until!r}: not a time or duration within a year"
                return Failure(name="SleepInvalid", message=message)
            queue_step(at, job.run_id, op.step_id, op.name, kind=JobKind.SLEEP, due_ms=due_ms)
        case EventAwaited():
            return waits.await_event(at, job.run_id, op)
        case FunctionInvoked():
            failure = waits.await_function(at, job.run_id, op)
            if failure is not None:  # like a function that failed: the caller may handle it
                finish_step(at, job.run_id, op.step_id, op.name, failure.memo(), op=StepOp.INVOKE)
                finished.append(op.step_id)
    return None


def _go_on_after(at: Transition, job: Job, finished: Sequence[str]) -> None:
    excess = _excess(at, job.run_id)
    if excess is not None:
        end_run(at, job.run_id, excess)
        return
    asked = [step_id for step_id in finished if discover_after(at, job.run_id, step_id)]
    if not asked and not has_anything_ahead(at, job.run_id):
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


def _end_events(at: Transition, run_id: str, ending: Ending) -> list[NewEvent]:
    """`inngest/function.finished`, with `.failed` for a failure; only `.cancelled` for a run that was cancelled.

    Runs that such events started send none.
    """
    fn_id, triggers = run_events(at.connection, run_id)
    if triggers[0][0] in (EVENT_FINISHED, EVENT_FAILED, EVENT_CANCELLED):
        return []
    events = [body for _, body in triggers]
    data: dict[str, Any] = {"function_id": fn_id, "run_id": run_id, "event": events[0], "events": events}
    match ending:
        case Fragment():
            data = {**data, "result": ending, "_inngest": {"status": "Completed"}}
            return [_internal_event(at, EVENT_FINISHED, f"{run_id}.finished", fn_id, data)]
        case Failure():
            error = fragment({"error": "invalid status code: 500", **ending.as_json()})
            data = {**data, "error": error, "_inngest": {"status": "Failed"}}
            return [
                _internal_event(at, EVENT_FINISHED, f"{run_id}.finished", fn_id, data),
                _internal_event(at, EVENT_FAILED, run_id, fn_id, data),
            ]
        case Cancelled():
            error = fragment({"error": "function cancelled", **_cancellation(ending).as_json()})
            data = {**data, "error": error, "_inngest": {"status": "Cancelled"}}
            return [_internal_event(at, EVENT_CANCELLED, f"{run_id}.cancelled", fn_id, data)]


def run_events(connection: Connection, run_id: str) -> tuple[str, list[tuple[str, Fragment]]]:
    """The function of a run, and name and body of what triggered it."""
    ((fn_id, is_batch, *first),) = rows(
        connection,
        "SELECT r.fn_id, r.is_batch, e.name, e.body, e.body_canonical FROM runs r"
        " JOIN events e ON e.ulid = r.event_ulid WHERE r.run_id = ?",
        (run_id,),
    )
    events: list[Sequence[Any]] = [first]
    if is_batch:
        events[:] = rows(
            connection,
            "SELECT e.name, e.body, e.body_canonical FROM run_events r JOIN events e ON e.ulid = r.event_ulid"
            " WHERE r.run_id = ? ORDER BY r.seq",
            (run_id,),
        )
    return fn_id, [(name, stored_fragment(*body)) for name, *body in events]


def memory_of(connection: Connection, run_id: str, known: Memory) -> Memory:
    """What the run remembers: what is known of it from an earlier call, and what has finished since."""
    found = rows(connection, _FINISHED if known.has_memos else _FINISHED_ORDER, (run_id, known.steps))
    return known.with_steps([FinishedStep(*row) for row in found])


def _internal_event(at: Transition, name: str, event_id: str, fn_id: str, data: dict[str, Any]) -> NewEvent:
    body = frame({"name": name, "id": event_id, "ts": at.now_ms, "user": {}, "data": data})
    return NewEvent(ulid=at.new_ulid(), event_id=event_id, name=name, of_function=fn_id, body=body)
