"""Runs that a time starts: each cron of each function waits for one tick, and all that it missed are one.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from typing import Final

from rawr.execution.embedded.cron import jitter_ms, next_tick_ms, tick_after_ms
from rawr.execution.embedded.fragment import fragment
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.limits import key_of
from rawr.execution.embedded.model import EVENT_CRON, Invocation, NewEvent
from rawr.execution.embedded.transition import TimerKind, Transition, set_timer
from rawr.storage.sqlite import one, rows, run
from rawr.wire import iso_from_ms

_ALL: Final = "SELECT cron_id, expression, jitter, tick_at FROM crons"


def schedule(at: Transition, function: RegisteredFunction) -> None:
    """Make these the crons of the function. One that it had already keeps its tick, which may be overdue."""
    wanted = {f"cron|{function.fn_id}|{key_of(cron.expression, str(cron.jitter_ms))}": cron for cron in function.crons}
    for (cron_id,) in rows(at.connection, "SELECT cron_id FROM crons WHERE fn_id = ?", (function.fn_id,)):
        if wanted.pop(cron_id, None) is None:
            _remove(at, cron_id)
    for cron_id, cron in wanted.items():
        tick_ms = next_tick_ms(cron.expression, at.now_ms)
        values = (cron_id, function.fn_id, cron.expression, cron.jitter_ms, tick_ms)
        run(at.connection, "INSERT INTO crons VALUES (?, ?, ?, ?, ?)", values)
        _wait_for(at, cron_id, tick_ms, cron.jitter_ms)


def unschedule_archived(at: Transition) -> None:
    sql = "SELECT cron_id FROM crons JOIN functions USING (fn_id) WHERE archived = 1"
    for (cron_id,) in rows(at.connection, sql):
        _remove(at, cron_id)


def fire_cron(at: Transition, cron_id: str) -> None:
    """Start a run for the tick that has come, and wait for the next one."""
    row = one(at.connection, "SELECT fn_id, expression, jitter, tick_at FROM crons WHERE cron_id = ?", (cron_id,))
    if row is None:
        return
    fn_id, expression, most_jitter_ms, tick_ms = row
    at.emitted.append(_tick_event(at, fn_id, expression, tick_ms))
    _move_to(at, cron_id, tick_after_ms(expression, cron_id, tick_ms, most_jitter_ms, at.now_ms), most_jitter_ms)


def mend(at: Transition) -> None:
    """Bring back the crons that wait for a tick beyond their next one: the clock was ahead when they were set."""
    for cron_id, expression, most_jitter_ms, tick_ms in rows(at.connection, _ALL):
        next_ms = next_tick_ms(expression, at.now_ms)
        if tick_ms > next_ms:
            _move_to(at, cron_id, next_ms, most_jitter_ms)


def _move_to(at: Transition, cron_id: str, tick_ms: int, most_jitter_ms: int) -> None:
    run(at.connection, "UPDATE crons SET tick_at = ? WHERE cron_id = ?", (tick_ms, cron_id))
    _wait_for(at, cron_id, tick_ms, most_jitter_ms)


def _wait_for(at: Transition, cron_id: str, tick_ms: int, most_jitter_ms: int) -> None:
    set_timer(at, cron_id, TimerKind.CRON, tick_ms + jitter_ms(cron_id, tick_ms, most_jitter_ms))


def _remove(at: Transition, cron_id: str) -> None:
    run(at.connection, "DELETE FROM crons WHERE cron_id = ?", (cron_id,))
    run(at.connection, "DELETE FROM timers WHERE timer_id = ?", (cron_id,))


def _tick_event(at: Transition, fn_id: str, expression: str, tick_ms: int) -> NewEvent:
    ulid = at.new_ulid()
    data = {"cron": expression, "scheduledAt": iso_from_ms(tick_ms), "fireAt": iso_from_ms(at.now_ms)}
    body = fragment({"name": EVENT_CRON, "id": ulid, "ts": at.now_ms, "user": {}, "data": data})
    invokes = Invocation(fn_id=fn_id, wait_id=None)
    return NewEvent(ulid=ulid, event_id=ulid, name=EVENT_CRON, of_function=None, body=body, invokes=invokes)
