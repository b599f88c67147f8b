"""Whether a due call may be made now: there must be room under its concurrency keys, and its run may start.

Every function here is part of one transition inside the caller's transaction; the decisions are in `limits`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from rawr.execution.embedded import jobs
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.limits import MayStart, StartsLater, concurrency_limit, start_interval_ms, throttled
from rawr.execution.embedded.transition import TimerKind, Transition, set_timer
from rawr.storage.sqlite import one, run

_THROTTLE: Final = "throttle|"

FunctionOf = Callable[[str], RegisteredFunction]


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A due call, as claims find it: the columns of the queue in this order."""

    job_id: str
    crashes: int
    fn_id: str
    throttle: str | None
    key1: str | None
    key2: str | None
    version: str
    code: str | None


def is_admitted(at: Transition, candidate: Candidate, function_of: FunctionOf) -> bool:
    """Whether the call may be made now; if not, it is parked until that may have changed."""
    full = _full_key(at, candidate, function_of)
    if full is not None:
        jobs.park(at, candidate.job_id, full)
        return False
    return candidate.throttle is None or _may_start(at, candidate, candidate.throttle, function_of)


def end_throttle(at: Transition, timer_id: str) -> None:
    """One more run may start. The timer goes on for as long as others are left, whatever becomes of that one."""
    key = timer_id.removeprefix(_THROTTLE)
    row = one(at.connection, "SELECT interval FROM throttles WHERE key = ?", (key,))
    if jobs.call_next(at, key) and row is not None:
        set_timer(at, timer_id, TimerKind.THROTTLE, at.now_ms + row[0])


def _may_start(at: Transition, candidate: Candidate, key: str, function_of: FunctionOf) -> bool:
    throttle = function_of(candidate.fn_id).throttle
    if throttle is None:
        return True
    row = one(at.connection, "SELECT full_at FROM throttles WHERE key = ?", (key,))
    match throttled(throttle, None if row is None else row[0], at.now_ms):
        case MayStart(full_at_ms=full_at_ms):
            values = (key, full_at_ms, start_interval_ms(throttle))
            run(at.connection, "INSERT OR REPLACE INTO throttles VALUES (?, ?, ?)", values)
            return True
        case StartsLater(at_ms=at_ms):
            jobs.park(at, candidate.job_id, key)
            set_timer(at, f"{_THROTTLE}{key}", TimerKind.THROTTLE, at_ms)
            return False


def _full_key(at: Transition, candidate: Candidate, function_of: FunctionOf) -> str | None:
    for key in (candidate.key1, candidate.key2):
        if key is not None:
            limit = concurrency_limit(function_of(candidate.fn_id), key)
            if limit is not None and jobs.count_under_way(at, key) >= limit:
                return key
    return None
