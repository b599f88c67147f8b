"""Events that wait for others before they start a run: the last one of a burst (debounce), or many together (batch).

Every function here is part of one transition inside the caller's transaction; the decisions are in `limits`.
"""

from __future__ import annotations

from typing import Final

from rawr.execution.embedded.functions import Batch, Debounce, RegisteredFunction
from rawr.execution.embedded.limits import debounce_until_ms, is_batch_full, key_of
from rawr.execution.embedded.registry import function_of
from rawr.execution.embedded.starts import LazyScope, Start, start_if_within_rate
from rawr.execution.embedded.transition import TimerKind, Transition, set_timer, stored_fragment
from rawr.storage.sqlite import one, rows, run

_DEBOUNCE: Final = "debounce|"
_BATCH: Final = "batch|"


def start_or_gather(at: Transition, function: RegisteredFunction, start: Start, scope: LazyScope) -> None:
    """Start the run of an event, or keep the event for a run that starts later."""
    batch, debounce = function.batch, function.debounce
    if batch is not None and (batch.condition is None or scope.holds(batch.condition)):
        _collect(at, function, batch, start.event_ulids[0], scope)
    elif debounce is not None:
        _postpone(at, function, debounce, start.event_ulids[0], scope)
    else:
        start_if_within_rate(at, function, start, scope)


def end_debounce(at: Transition, timer_id: str) -> None:
    """It has been quiet for long enough: the last event starts its run."""
    found = one(
        at.connection,
        "DELETE FROM debounces WHERE key = ? RETURNING fn_id, event_ulid",
        (timer_id.removeprefix(_DEBOUNCE),),
    )
    if found is not None:
        _start(at, found[0], [found[1]])


def end_batch(at: Transition, timer_id: str) -> None:
    """The batch is full, or its time is over: all of its events start one run."""
    key = timer_id.removeprefix(_BATCH)
    found = one(at.connection, "DELETE FROM batches WHERE key = ? RETURNING fn_id", (key,))
    if found is None:
        return
    run(at.connection, "DELETE FROM timers WHERE timer_id = ?", (timer_id,))
    members = rows(at.connection, "DELETE FROM batch_events WHERE key = ? RETURNING seq, event_ulid", (key,))
    _start(at, found[0], [ulid for _, ulid in sorted(members)])


def end_all(at: Transition) -> None:
    """Everything that is gathered starts its run now, complete or not."""
    for (key,) in rows(at.connection, "SELECT key FROM debounces"):
        run(at.connection, "DELETE FROM timers WHERE timer_id = ?", (f"{_DEBOUNCE}{key}",))
        end_debounce(at, f"{_DEBOUNCE}{key}")
    for (key,) in rows(at.connection, "SELECT key FROM batches"):
        end_batch(at, f"{_BATCH}{key}")


def _postpone(at: Transition, function: RegisteredFunction, debounce: Debounce, ulid: str, scope: LazyScope) -> None:
    key = key_of("debounce", function.fn_id, debounce.key, scope.key(debounce.key))
    row = one(
        at.connection,
        "INSERT INTO debounces VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET event_ulid = excluded.event_ulid"
        " RETURNING first_at",
        (key, function.fn_id, ulid, at.now_ms),
    )
    assert row is not None
    set_timer(at, f"{_DEBOUNCE}{key}", TimerKind.DEBOUNCE, debounce_until_ms(debounce, row[0], at.now_ms))


def _collect(at: Transition, function: RegisteredFunction, batch: Batch, ulid: str, scope: LazyScope) -> None:
    key = key_of("batch", function.fn_id, batch.key, scope.key(batch.key))
    row = one(
        at.connection,
        "INSERT INTO batches VALUES (?, ?, 1, ?) ON CONFLICT (key) DO UPDATE SET events = events + 1,"
        " size_bytes = size_bytes + excluded.size_bytes RETURNING events, size_bytes",
        (key, function.fn_id, scope.size_bytes),
    )
    assert row is not None
    count, size_bytes = row
    run(at.connection, "INSERT INTO batch_events VALUES (?, ?, ?)", (key, count, ulid))
    timer_id = f"{_BATCH}{key}"
    if is_batch_full(batch, count, size_bytes):
        end_batch(at, timer_id)
    elif count == 1:
        set_timer(at, timer_id, TimerKind.BATCH, at.now_ms + batch.timeout_ms)


def _start(at: Transition, fn_id: str, event_ulids: list[str]) -> None:
    row = one(at.connection, "SELECT body, body_canonical FROM events WHERE ulid = ?", (event_ulids[0],))
    assert row is not None
    start = Start(run_id=at.new_ulid(), event_ulids=tuple(event_ulids), due_ms=at.now_ms)
    start_if_within_rate(at, function_of(at, fn_id), start, LazyScope(at, stored_fragment(*row)))
