"""Durable functions: what triggers and ends their runs, and what limits them. Pure values, durations in ms."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    event_name: str
    of_function: str | None = None
    """Only events whose data name this function id (for failure handlers); None for all."""
    condition: str | None = None
    """A CEL condition over `event`."""


class Cron(msgspec.Struct, frozen=True, kw_only=True):
    expression: str
    jitter_ms: int = 0
    """Each tick fires up to this much later."""


class CancelOn(msgspec.Struct, frozen=True, kw_only=True):
    event_name: str
    condition: str | None = None
    """A CEL condition over `event` (what triggered the run) and `async` (the event that came)."""
    timeout_ms: int | None = None
    """How long after the run was queued it can still be cancelled so."""


class ConcurrencyScope(StrEnum):
    FUNCTION = "fn"
    ENVIRONMENT = "env"
    ACCOUNT = "account"


class Concurrency(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` calls under way at once, for each value of `key`. Sleeping and waiting runs do not count."""

    limit: int
    key: str | None = None
    scope: ConcurrencyScope = ConcurrencyScope.FUNCTION


class RateLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most `limit` runs begin in any `period_ms`, for each value of `key`; what is too much is dropped."""

    limit: int
    period_ms: int
    key: str | None = None
    only_with_key: bool = False
    """An event whose key has no value is not limited; so it is with idempotency."""


class Throttle(msgspec.Struct, frozen=True, kw_only=True):
    """`limit` runs start evenly over `period_ms`, for each value of `key`; what is too much waits."""

    limit: int
    period_ms: int
    burst: int = 1
    key: str | None = None


class Debounce(msgspec.Struct, frozen=True, kw_only=True):
    """A run starts when no event has come for `period_ms`, with the last one; at the latest after `timeout_ms`."""

    period_ms: int
    timeout_ms: int | None = None
    key: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A run takes up to `max_size` events, those that came within `timeout_ms`."""

    max_size: int
    timeout_ms: int
    key: str | None = None
    condition: str | None = None
    """Events for which it does not hold start runs of their own."""


class SingletonMode(StrEnum):
    SKIP = "skip"
    CANCEL = "cancel"


class Singleton(msgspec.Struct, frozen=True, kw_only=True):
    """One run at a time for each value of `key`: a second one is skipped, or cancels the first."""

    mode: SingletonMode
    key: str | None = None


class RegisteredFunction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    fn_id: str
    name: str
    max_attempts: int
    triggers: tuple[Trigger, ...]
    version: str = ""
    """A checksum of how it was registered. A run belongs to the version that it began with."""
    crons: tuple[Cron, ...] = ()
    cancels: tuple[CancelOn, ...] = ()
    concurrency: tuple[Concurrency, ...] = ()
    rate_limit: RateLimit | None = None
    throttle: Throttle | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    singleton: Singleton | None = None
    priority: str | None = None
    """A CEL number over `event`: by how many seconds its runs go before others."""
    start_timeout_ms: int | None = None
    finish_timeout_ms: int | None = None
