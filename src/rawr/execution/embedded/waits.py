"""Steps that wait: for an event, or for the end of a function that they invoked. Each ends once, in time or by it.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from typing import Final

from rawr.execution.embedded.durations import wait_until_ms
from rawr.execution.embedded.fragment import NULL, Fragment, fragment
from rawr.execution.embedded.interest import Interest, concerned, place_of
from rawr.execution.embedded.model import EVENT_INVOKED, Invocation, NewEvent, StepOp
from rawr.execution.embedded.outcomes import EventAwaited, Failure, FunctionInvoked
from rawr.execution.embedded.protocol import EVENT_MAX_BYTES
from rawr.execution.embedded.steps import discover_after, finish_step, trigger_of
from rawr.execution.embedded.transition import TimerKind, Transition, set_timer
from rawr.execution.expressions import ExpressionInvalidError, Wanted, check
from rawr.storage.sqlite import one, run

_WAITING: Final = Interest(table="waits", row_id="wait_id")
_OPEN: Final = (
    "INSERT OR IGNORE INTO waits (wait_id, run_id, step_id, name, event_name, condition, match_path, match_key)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING 1"
)
_CLOSE: Final = "DELETE FROM waits WHERE wait_id = ? RETURNING run_id, step_id, name, event_name"


def await_event(at: Transition, run_id: str, op: EventAwaited) -> Failure | None:
    """Wait for the event from now on; why that cannot be, or None."""
    due_ms = wait_until_ms(op.timeout, now_ms=at.now_ms)
    if due_ms is None or not op.event_name:
        message = f"wait {op.name!r} for {op.event_name!r}, {op.timeout!r}: not an event and a time within a year"
        return Failure(name="WaitInvalid", message=message)
    try:
        if op.condition is not None:
            check(op.condition, Wanted.CONDITION, "event", "async")
    except ExpressionInvalidError as error:
        return Failure(name="WaitInvalid", message=f"wait {op.name!r}: {error.message}")
    wait_id = _wait_id(run_id, op.step_id)
    place = place_of(op.condition, lambda: trigger_of(at.connection, run_id).value())
    opened = one(at.connection, _OPEN, (wait_id, run_id, op.step_id, op.name, op.event_name, op.condition, *place))
    if opened is not None:
        set_timer(at, wait_id, TimerKind.WAIT, due_ms, run_id=run_id)
    return None


def await_function(at: Transition, run_id: str, op: FunctionInvoked) -> Failure | None:
    """Invoke the function and wait for its end; why it cannot be invoked, or None."""
    due_ms = None if op.timeout is None else wait_until_ms(op.timeout, now_ms=at.now_ms)
    if op.timeout is not None and due_ms is None:
        return Failure(name="InvokeInvalid", message=f"timeout {op.timeout!r} is not a time within a year")
    if one(at.connection, "SELECT 1 FROM functions WHERE fn_id = ? AND archived = 0", (op.fn_id,)) is None:
        return Failure(name="FunctionNotFound", message=f"there is no function {op.fn_id!r} to invoke")
    wait_id = _wait_id(run_id, op.step_id)
    event = _invoked_event(at, run_id, wait_id, op)
    if event.body.size_bytes > EVENT_MAX_BYTES:
        message = f"the data for {op.fn_id} makes an event of {event.body.size_bytes} bytes; the limit is"
        return Failure(name="InvokeInvalid", message=f"{message} {EVENT_MAX_BYTES}")
    if one(at.connection, _OPEN, (wait_id, run_id, op.step_id, op.name, None, None, None, None)) is not None:
        at.emitted.append(event)
        if due_ms is not None:
            set_timer(at, wait_id, TimerKind.WAIT, due_ms, run_id=run_id)
    return None


def fulfil(at: Transition, wait_id: str, memo: Fragment) -> None:
    """End a wait with this memo, if it has not ended before, and let the function go on."""
    closed = one(at.connection, _CLOSE, (wait_id,))
    if closed is None:
        return
    run_id, step_id, name, event_name = closed
    run(at.connection, "DELETE FROM timers WHERE timer_id = ?", (wait_id,))
    op = StepOp.INVOKE if event_name is None else StepOp.WAIT
    finish_step(at, run_id, step_id, name, memo, op=op)
    discover_after(at, run_id, step_id)


def expire(at: Transition, wait_id: str) -> None:
    """The time of a wait is over: no event came, or the invoked function has not ended."""
    row = one(at.connection, "SELECT event_name, name FROM waits WHERE wait_id = ?", (wait_id,))
    if row is None:
        return
    message = f"the function that {row[1]!r} invoked did not end in time"
    fulfil(at, wait_id, NULL if row[0] is not None else Failure(name="InvokeTimeout", message=message).memo())


def match_event(at: Transition, event: NewEvent) -> None:
    """End the waits that this event fulfils. It came after they began, or it would have been routed before."""
    for wait_id in concerned(at, event, _WAITING):
        fulfil(at, wait_id, event.body)


def _wait_id(run_id: str, step_id: str) -> str:
    return f"{run_id}|wait|{step_id}"


def _invoked_event(at: Transition, run_id: str, wait_id: str, op: FunctionInvoked) -> NewEvent:
    source = {"fn_id": op.fn_id, "correlation_id": f"{run_id}.{op.step_id}"}
    ulid = at.new_ulid()
    parts = {
        "name": EVENT_INVOKED,
        "id": ulid,
        "ts": at.now_ms,
        "user": {},
        "data": {**(op.data or {}), "_inngest": source},
    }
    body = fragment(parts if op.version is None else {**parts, "v": op.version})
    invocation = Invocation(fn_id=op.fn_id, wait_id=wait_id)
    return NewEvent(ulid=ulid, event_id=ulid, name=EVENT_INVOKED, of_function=None, body=body, invokes=invocation)
