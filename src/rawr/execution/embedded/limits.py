"""What limits runs: how many calls at once, how many starts in a time, which order. Pure; the time is an argument.

Counts and last times come in, a decision goes out. Where they are kept is the business of others.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from rawr.execution.embedded.functions import (
    Batch,
    Concurrency,
    ConcurrencyScope,
    Debounce,
    RegisteredFunction,
    Throttle,
)
from rawr.wire import encode_canonical

PRIORITY_MAX_S: Final = 600
BATCH_MAX_BYTES: Final = 10 * 1024 * 1024
"""A batch that has this much starts at once, as with an Inngest server."""


def key_of(*parts: str | None) -> str:
    """One short text for a limit and the value of its key, however long that is. None is a part of its own."""
    return hashlib.sha256(encode_canonical(parts)).hexdigest()[:32]


def concurrency_key(fn_id: str, concurrency: Concurrency, value: str | None) -> str:
    """What is counted together: the calls of a function, or of all functions whose limits have scope and key alike."""
    return f"{_pool(fn_id, concurrency)}|{key_of(value)}"


def concurrency_limit(function: RegisteredFunction, key: str) -> int | None:
    """The function's present limit for a key that was given to a run, maybe long ago; None if there is none now."""
    pool = key.split("|", maxsplit=1)[0]
    limits = [limit.limit for limit in function.concurrency if _pool(function.fn_id, limit) == pool]
    return min(limits, default=None)


class MayStart(msgspec.Struct, frozen=True, kw_only=True):
    full_at_ms: int
    """The theoretical arrival time to remember."""


class StartsLater(msgspec.Struct, frozen=True, kw_only=True):
    at_ms: int


def throttled(throttle: Throttle, full_at_ms: int | None, now_ms: int) -> MayStart | StartsLater:
    """Whether a run may start now (GCRA): evenly, one each `period / limit`, with up to `burst` at once.

    `full_at_ms` is what the last start left, or None. A clock that was set back by more than the whole allowance
    is taken for a new beginning, so that it delays nobody for long.
    """
    interval_ms = start_interval_ms(throttle)
    allowance_ms = interval_ms * throttle.burst
    arrival_ms = max(full_at_ms or 0, now_ms)
    if full_at_ms is not None and full_at_ms - now_ms > allowance_ms:
        arrival_ms = now_ms
    earliest_ms = arrival_ms + interval_ms - allowance_ms
    if earliest_ms > now_ms:
        return StartsLater(at_ms=earliest_ms)
    return MayStart(full_at_ms=arrival_ms + interval_ms)


def start_interval_ms(throttle: Throttle) -> int:
    """Between two starts, in the long run; rounded up, so that the limit is never exceeded."""
    return -(-throttle.period_ms // throttle.limit)


def debounce_until_ms(debounce: Debounce, first_at_ms: int, now_ms: int) -> int:
    """When the run of an event that came now starts if no other comes; `first_at_ms` began this round of events."""
    quiet_ms = now_ms + debounce.period_ms
    return quiet_ms if debounce.timeout_ms is None else min(quiet_ms, first_at_ms + debounce.timeout_ms)


def is_batch_full(batch: Batch, count: int, size_bytes: int) -> bool:
    return count >= batch.max_size or size_bytes >= BATCH_MAX_BYTES


def priority_ms(seconds: float | None) -> int:
    """How much earlier (or, negative, later) a run is queued than it came, by the value of its priority."""
    return round(max(-PRIORITY_MAX_S, min(PRIORITY_MAX_S, seconds or 0)) * 1000)


def _pool(fn_id: str, concurrency: Concurrency) -> str:
    owner = fn_id if concurrency.scope is ConcurrencyScope.FUNCTION else None
    return key_of(concurrency.scope.value, owner, concurrency.key)
