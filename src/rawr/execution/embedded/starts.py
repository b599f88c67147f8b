"""Starting runs: which limits a run falls under, and whether it starts at all.

Every function here is part of one transition inside the caller's transaction; the decisions are in `limits`.
"""

from __future__ import annotations

import msgspec

from rawr.execution.embedded import waits
from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.functions import RateLimit, RegisteredFunction, SingletonMode
from rawr.execution.embedded.interest import place_of
from rawr.execution.embedded.limits import concurrency_key, key_of, priority_ms
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.outcomes import Failure
from rawr.execution.embedded.runs import Cancelled, end_run
from rawr.execution.embedded.steps import discover
from rawr.execution.embedded.transition import TimerKind, Transition, set_timer
from rawr.execution.expressions import Scope
from rawr.storage.sqlite import one, run
from rawr.wire import JsonValue


class LazyScope:
    """An event as expressions see it, read from its JSON only if there is an expression."""

    def __init__(self, at: Transition, body: Fragment) -> None:
        self._expressions = at.expressions
        self._body = body
        self._scope: Scope | None = None

    @property
    def size_bytes(self) -> int:
        return self._body.size_bytes

    def event(self) -> JsonValue:
        return self._body.value()

    def holds(self, condition: str) -> bool:
        return self._expressions.is_true(condition, self._read())

    def key(self, expression: str | None) -> str | None:
        return None if expression is None else self._expressions.key(expression, self._read())

    def number(self, expression: str | None) -> float | None:
        return None if expression is None else self._expressions.number(expression, self._read())

    def _read(self) -> Scope:
        if self._scope is None:
            self._scope = Scope(self.event())
        return self._scope


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is started with."""

    run_id: str
    event_ulids: tuple[str, ...]
    """One event, or a batch."""
    due_ms: int
    parent_wait: str | None = None
    """The wait of the step that invoked it."""
    rerun_of: str | None = None
    """The run that it repeats."""


def start_if_within_rate(at: Transition, function: RegisteredFunction, start: Start, scope: LazyScope) -> None:
    """Start the run, or drop it: the function may not begin so many."""
    if function.rate_limit is None or _is_within_rate(at, function.fn_id, function.rate_limit, scope):
        start_run(at, function, start, scope)


def start_run(at: Transition, function: RegisteredFunction, start: Start, scope: LazyScope) -> bool:
    """Start the run, unless it is one too many of a singleton; whether it started."""
    singleton = _singleton_key(function, scope)
    if singleton is not None and not _takes_singleton(at, function, singleton, start.run_id):
        if start.parent_wait is not None:
            message = f"a run of {function.fn_id} is under way, and it allows one at a time"
            waits.fulfil(at, start.parent_wait, Failure(name="FunctionSkipped", message=message).memo())
        return False
    _insert_run(at, function, start, scope, singleton)
    for cancel in function.cancels:
        until_ms = None if cancel.timeout_ms is None else at.now_ms + cancel.timeout_ms
        place = place_of(cancel.condition, scope.event)
        values = (start.run_id, cancel.event_name, cancel.condition, until_ms, *place)
        run(at.connection, "INSERT INTO cancels VALUES (?, ?, ?, ?, ?, ?)", values)
    if function.start_timeout_ms is not None:
        due_ms = start.due_ms + function.start_timeout_ms
        set_timer(at, f"{start.run_id}|start", TimerKind.START, due_ms, run_id=start.run_id)
    is_due = start.due_ms <= at.now_ms
    due_ms = at.now_ms - priority_ms(scope.number(function.priority)) if is_due else start.due_ms
    discover(at, start.run_id, after_steps=0, due_ms=due_ms, throttle=_throttle_key(function, scope))
    return True


def _insert_run(
    at: Transition, function: RegisteredFunction, start: Start, scope: LazyScope, singleton: str | None
) -> None:
    keys = [concurrency_key(function.fn_id, limit, scope.key(limit.key)) for limit in function.concurrency]
    run(
        at.connection,
        "INSERT INTO runs (run_id, fn_id, event_ulid, status, queued_at, parent_wait, key1, key2, finish_timeout,"
        " singleton, is_batch, version, rerun_of) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            start.run_id,
            function.fn_id,
            start.event_ulids[0],
            EngineRunStatus.QUEUED.value,
            at.now_ms,
            start.parent_wait,
            *[*keys, None, None][:2],
            function.finish_timeout_ms,
            singleton,
            int(len(start.event_ulids) > 1),
            function.version,
            start.rerun_of,
        ),
    )
    if len(start.event_ulids) > 1:
        batch = [(start.run_id, seq, ulid) for seq, ulid in enumerate(start.event_ulids)]
        at.connection.execute_many("INSERT INTO run_events VALUES (?, ?, ?)", batch)


def _is_within_rate(at: Transition, fn_id: str, limit: RateLimit, scope: LazyScope) -> bool:
    """Count this start, if it may be. Starts are counted one by one: so no period ever has more than the limit."""
    value = scope.key(limit.key)
    if value is None and limit.only_with_key:
        return True
    key = key_of("rate", fn_id, limit.key, value)
    run(at.connection, "DELETE FROM rate_starts WHERE key = ? AND started_at <= ?", (key, at.now_ms - limit.period_ms))
    counted = one(at.connection, "SELECT count(*) FROM rate_starts WHERE key = ?", (key,))
    if counted is not None and counted[0] >= limit.limit:
        return False
    run(at.connection, "INSERT INTO rate_starts VALUES (?, ?, ?)", (key, at.now_ms, at.now_ms + limit.period_ms))
    return True


def _singleton_key(function: RegisteredFunction, scope: LazyScope) -> str | None:
    singleton = function.singleton
    return None if singleton is None else key_of("singleton", function.fn_id, singleton.key, scope.key(singleton.key))


def _takes_singleton(at: Transition, function: RegisteredFunction, key: str, run_id: str) -> bool:
    """Whether this is the one run of the key now; the one before is cancelled for it, or it is skipped."""
    assert function.singleton is not None
    holder = one(at.connection, "SELECT run_id FROM singletons WHERE key = ?", (key,))
    if holder is not None:
        if function.singleton.mode is SingletonMode.SKIP:
            return False
        end_run(at, holder[0], Cancelled(reason=f"another run of {function.fn_id} took its place"))
    run(at.connection, "INSERT INTO singletons VALUES (?, ?)", (key, run_id))
    return True


def _throttle_key(function: RegisteredFunction, scope: LazyScope) -> str | None:
    throttle = function.throttle
    return None if throttle is None else key_of("throttle", function.fn_id, throttle.key, scope.key(throttle.key))
