"""Starting runs: which limits it falls under, and whether it starts at all.

Every function here is part of one transition inside the caller's transaction; the decisions are in `limits`.
"""

from __future__ import annotations

import msgspec

from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.functions import RateLimit, RegisteredFunction
from rawr.execution.embedded.limits import concurrency_key, key_of
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.steps import discover
from rawr.execution.embedded.transition import TimerKind, Transition, set_timer
from rawr.execution.expressions import Scope
from rawr.storage.sqlite import one, run


class LazyScope:
    """An event as expressions see it, read from its JSON only if there is an expression."""

    def __init__(self, at: Transition, body: Fragment) -> None:
        self._expressions = at.expressions
        self._body = body
        self._scope: Scope | None = None

    def holds(self, condition: str) -> bool:
        return self._expressions.is_true(condition, self._read())

    def key(self, expression: str | None) -> str | None:
        return None if expression is None else self._expressions.key(expression, self._read())

    def _read(self) -> Scope:
        if self._scope is None:
            self._scope = Scope(self._body.value())
        return self._scope


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is started with."""

    event_ulid: str
    due_ms: int
    run_id: str
    parent_wait: str | None = None


def start_if_within_rate(at: Transition, function: RegisteredFunction, start: Start, scope: LazyScope) -> None:
    """Start the run, or drop it: the function may not begin so many."""
    if function.rate_limit is None or _is_within_rate(at, function.fn_id, function.rate_limit, scope):
        start_run(at, function, start, scope)


def start_run(at: Transition, function: RegisteredFunction, start: Start, scope: LazyScope) -> None:
    keys = [concurrency_key(function.fn_id, limit, scope.key(limit.key)) for limit in function.concurrency]
    run(
        at.connection,
        "INSERT INTO runs (run_id, fn_id, event_ulid, status, queued_at, parent_wait, key1, key2, finish_timeout)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            start.run_id,
            function.fn_id,
            start.event_ulid,
            EngineRunStatus.QUEUED.value,
            at.now_ms,
            start.parent_wait,
            *[*keys, None, None][:2],
            function.finish_timeout_ms,
        ),
    )
    for cancel in function.cancels:
        until_ms = None if cancel.timeout_ms is None else at.now_ms + cancel.timeout_ms
        values = (start.run_id, cancel.event_name, cancel.condition, until_ms)
        run(at.connection, "INSERT INTO cancels VALUES (?, ?, ?, ?)", values)
    if function.start_timeout_ms is not None:
        due_ms = start.due_ms + function.start_timeout_ms
        set_timer(at, f"{start.run_id}|start", TimerKind.START, due_ms, run_id=start.run_id)
    discover(at, start.run_id, after_steps=0, due_ms=start.due_ms)


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
    run(at.connection, "INSERT INTO rate_starts VALUES (?, ?)", (key, at.now_ms))
    return True
