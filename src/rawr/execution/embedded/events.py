"""What an accepted event does: it ends waits, cancels runs and starts runs, once, in that order.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rawr.execution.embedded import waits
from rawr.execution.embedded.cancellation import cancel_by_event
from rawr.execution.embedded.gathering import start_or_gather
from rawr.execution.embedded.interest import interest_in
from rawr.execution.embedded.model import NewEvent
from rawr.execution.embedded.registry import function_from, function_of
from rawr.execution.embedded.starts import LazyScope, Start, start_if_within_rate, start_run
from rawr.execution.embedded.transition import Transition, stored_fragment, stored_texts
from rawr.storage.sqlite import rows, run

DEDUPE_MS: Final = 24 * 3600 * 1000


def accept(at: Transition, events: Sequence[NewEvent], *, route_now: bool) -> None:
    """Store events. Routed ones have their effect in the same transaction; others wait for `route_waiting`.

    An event whose ULID is stored already is the same event, sent again.
    """
    for event in events:
        run(
            at.connection,
            "INSERT INTO events (ulid, event_id, name, of_function, body, body_canonical, received_at, routed,"
            " starts_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                event.ulid,
                event.event_id,
                event.name,
                event.of_function,
                *stored_texts(event.body),
                at.now_ms,
                int(route_now),
                event.starts_at_ms,
            ),
        )
        if route_now and at.connection.changes:
            _route(at, event)


def route_emitted(at: Transition) -> None:
    """Store and route what this transition gave rise to, and what follows from that."""
    while at.emitted:
        accept(at, [at.emitted.pop(0)], route_now=True)


def route_waiting(at: Transition) -> int:
    """Route the events that came while no engine was up; how many there were."""
    waiting = rows(
        at.connection,
        "UPDATE events SET routed = 1 WHERE routed = 0"
        " RETURNING ulid, event_id, name, of_function, starts_at, body, body_canonical",
    )
    for ulid, event_id, name, of_function, starts_at_ms, *body in sorted(waiting):
        event = NewEvent(
            ulid=ulid,
            event_id=event_id,
            name=name,
            of_function=of_function,
            body=stored_fragment(*body),
            starts_at_ms=starts_at_ms,
        )
        _route(at, event)
    return len(waiting)


def _route(at: Transition, event: NewEvent) -> None:
    if event.invokes is not None:
        _invoke(at, event)
        return
    # Waits and cancellations come first, for runs that are older than the event: not for those that it starts.
    is_awaited, may_cancel = interest_in(at, event.name)
    if is_awaited:
        waits.match_event(at, event)
    if may_cancel:
        cancel_by_event(at, event)
    _start_runs(at, event)


def _invoke(at: Transition, event: NewEvent) -> None:
    assert event.invokes is not None
    function = function_of(at, event.invokes.fn_id)
    start = Start(run_id=at.new_ulid(), event_ulids=(event.ulid,), due_ms=at.now_ms, parent_wait=event.invokes.wait_id)
    if start.parent_wait is None:
        start_if_within_rate(at, function, start, LazyScope(at, event.body))
    else:  # somebody waits for it, so it is not dropped
        start_run(at, function, start, LazyScope(at, event.body))


def _start_runs(at: Transition, event: NewEvent) -> None:
    """Start a run of every function that the event triggers, unless its id did so within the last 24 hours."""
    found = rows(
        at.connection,
        "SELECT t.fn_id, t.condition, f.config FROM triggers t JOIN functions f ON f.fn_id = t.fn_id"
        " WHERE t.event_name = ? AND f.archived = 0 AND (t.of_function IS NULL OR t.of_function = ?)",
        (event.name, event.of_function),
    )
    scope = LazyScope(at, event.body)
    triggered = {fn_id: config for fn_id, condition, config in found if condition is None or scope.holds(condition)}
    for fn_id, config in triggered.items():
        run_id = at.new_ulid()
        if _is_new(at, fn_id, event.event_id, run_id):
            due_ms = max(at.now_ms, event.starts_at_ms or 0)
            start = Start(run_id=run_id, event_ulids=(event.ulid,), due_ms=due_ms)
            start_or_gather(at, function_from(config), start, scope)


def _is_new(at: Transition, fn_id: str, event_id: str, run_id: str) -> bool:
    run(
        at.connection,
        "INSERT INTO event_keys VALUES (?, ?, ?, ?) ON CONFLICT (fn_id, event_id) DO UPDATE"
        " SET run_id = excluded.run_id, seen_at = excluded.seen_at WHERE seen_at <= ?",
        (fn_id, event_id, run_id, at.now_ms, at.now_ms - DEDUPE_MS),
    )
    return at.connection.changes > 0
