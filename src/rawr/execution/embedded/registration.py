"""Functions as an app registers them on the wire, read into what the engine obeys. No I/O.

A setting that this engine does not obey, or that can never work, is refused when it is registered.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rawr.errors import RawrError
from rawr.execution.embedded.cron import CronInvalidError, check_cron
from rawr.execution.embedded.durations import duration_ms
from rawr.execution.embedded.functions import (
    Batch,
    CancelOn,
    Concurrency,
    ConcurrencyScope,
    Cron,
    Debounce,
    RateLimit,
    RegisteredFunction,
    Singleton,
    SingletonMode,
    Throttle,
    Trigger,
)
from rawr.execution.expressions import ExpressionInvalidError, Wanted, check
from rawr.wire import encode_canonical

RETRIES_DEFAULT: Final = 4
RETRIES_MAX: Final = 20
TRIGGERS_MAX: Final = 10
CANCELS_MAX: Final = 5
CONCURRENCY_MAX: Final = 2
BATCH_MAX: Final = 100
BATCH_TIMEOUT_MS: Final = 60_000
DEBOUNCE_MAX_MS: Final = 7 * 24 * 3600 * 1000
IDEMPOTENCY_MS: Final = 24 * 3600 * 1000

_FUNCTION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,256}\Z")
# The one expression that the SDK itself writes. Every failed run asks it of every failure handler, so it is an index.
_OF_FUNCTION: Final = re.compile(r"event\.data\.function_id == '([A-Za-z0-9._-]+)'\Z")
_NOT_WITH_BATCH: Final = ("cancel", "debounce", "singleton", "priority")


class UnsupportedFunctionError(RawrError):
    """A function asks for something that the embedded engine does not do, or that cannot be."""

    code = "ENGINE_FUNCTION_UNSUPPORTED"


def functions_of(
    configs: Sequence[Mapping[str, Any]], app_version: str | None = None
) -> tuple[RegisteredFunction, ...]:
    """The functions in an app's registration.

    Raises:
        UnsupportedFunctionError: one uses what this engine does not do; the message names function and setting.
    """
    return tuple(_versioned(_function(config), app_version) for config in configs)


def _versioned(function: RegisteredFunction, app_version: str | None) -> RegisteredFunction:
    """The addresses under which processes are reached differ, so they are no part of the checksum."""
    checksum = hashlib.sha256(encode_canonical([function, app_version])).hexdigest()[:16]
    return msgspec.structs.replace(function, version=checksum)


class _Wire(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A function's registration. Settings that are not here are not supported, unless they are empty."""

    id: str
    name: str | None = None
    triggers: list[_WireTrigger] = []
    steps: dict[str, _WireStep]
    cancel: list[_WireCancel] = []
    concurrency: list[_WireConcurrency] = []
    idempotency: str | None = None
    rate_limit: _WireRate | None = None
    throttle: _WireRate | None = None
    debounce: _WireDebounce | None = None
    batch_events: _WireBatch | None = None
    singleton: _WireSingleton | None = None
    priority: _WirePriority | None = None
    timeouts: _WireTimeouts | None = None


class _WireStep(msgspec.Struct, kw_only=True):
    retries: _WireRetries | None = None


class _WireRetries(msgspec.Struct, kw_only=True):
    attempts: int | None = None


class _WireTrigger(msgspec.Struct, kw_only=True):
    event: str | None = None
    expression: str | None = None
    cron: str | None = None
    jitter: str | None = None


class _WireCancel(msgspec.Struct, kw_only=True):
    event: str
    condition: str | None = msgspec.field(default=None, name="if")
    timeout: str | None = None


class _WireConcurrency(msgspec.Struct, kw_only=True):
    limit: int
    key: str | None = None
    scope: ConcurrencyScope | None = None


class _WireRate(msgspec.Struct, kw_only=True):
    limit: int
    period: str
    key: str | None = None
    burst: int | None = None


class _WireDebounce(msgspec.Struct, kw_only=True):
    period: str
    key: str | None = None
    timeout: str | None = None


class _WireBatch(msgspec.Struct, kw_only=True, rename="camel"):
    max_size: int
    timeout: str | None = None
    key: str | None = None
    condition: str | None = msgspec.field(default=None, name="if")


class _WireSingleton(msgspec.Struct, kw_only=True):
    mode: SingletonMode
    key: str | None = None


class _WirePriority(msgspec.Struct, kw_only=True):
    run: str | None = None


class _WireTimeouts(msgspec.Struct, kw_only=True):
    start: str | None = None
    finish: str | None = None


def _function(config: Mapping[str, Any]) -> RegisteredFunction:
    wire = _read(config)
    settings = _Settings(wire.id)
    settings.need(len(wire.triggers) <= TRIGGERS_MAX, f"triggers: at most {TRIGGERS_MAX}")
    settings.need(len(wire.cancel) <= CANCELS_MAX, f"cancel: at most {CANCELS_MAX}")
    settings.need(len(wire.concurrency) <= CONCURRENCY_MAX, f"concurrency: at most {CONCURRENCY_MAX} limits")
    if wire.batch_events is not None:
        others = [name for name in _NOT_WITH_BATCH if getattr(wire, name)]
        settings.need(not others, f"batchEvents cannot be together with {', '.join(others)}")
    settings.need(list(wire.steps) == ["step"], "steps: it needs exactly one, 'step'")
    retries = wire.steps["step"].retries or _WireRetries()
    attempts = RETRIES_DEFAULT if retries.attempts is None else retries.attempts
    settings.need(attempts >= 0, "retries: a negative number")
    timeouts = wire.timeouts or _WireTimeouts()
    return RegisteredFunction(
        fn_id=wire.id,
        name=wire.name or wire.id,
        max_attempts=min(attempts, RETRIES_MAX) + 1,
        triggers=tuple(settings.trigger(trigger) for trigger in wire.triggers if trigger.cron is None),
        crons=tuple(settings.cron(trigger) for trigger in wire.triggers if trigger.cron is not None),
        cancels=tuple(settings.cancel(cancel) for cancel in wire.cancel),
        concurrency=tuple(settings.concurrency(limit) for limit in wire.concurrency if limit.limit > 0),
        rate_limit=settings.idempotency(wire.idempotency) or settings.rate_limit(wire.rate_limit),
        throttle=settings.throttle(wire.throttle),
        debounce=settings.debounce(wire.debounce),
        batch=settings.batch(wire.batch_events),
        singleton=settings.singleton(wire.singleton),
        priority=settings.expression("priority", wire.priority.run if wire.priority else None, Wanted.NUMBER),
        start_timeout_ms=settings.duration("timeouts.start", timeouts.start),
        finish_timeout_ms=settings.duration("timeouts.finish", timeouts.finish),
    )


def _read(config: Mapping[str, Any]) -> _Wire:
    fn_id = str(config.get("id"))
    if _FUNCTION_ID.match(fn_id) is None:
        raise UnsupportedFunctionError(f"function id {fn_id!r}: use 1 to 256 of A-Z a-z 0-9 . _ -")
    given = {key: value for key, value in config.items() if value}
    if "concurrency" in given:
        given["concurrency"] = _listed_limits(given["concurrency"])
    try:
        return msgspec.convert(given, _Wire)
    except msgspec.ValidationError as error:
        raise UnsupportedFunctionError(f"function {fn_id}: {error}") from error


def _listed_limits(given: Any) -> Any:
    """SDKs may give a list of limits, one limit, or a bare number."""
    if isinstance(given, int):
        return [{"limit": given}]
    return [given] if isinstance(given, Mapping) else given


class _Settings:
    """Reads the settings of one function; what is wrong with one is told with the function's id."""

    def __init__(self, fn_id: str) -> None:
        self._fn_id = fn_id

    def trigger(self, trigger: _WireTrigger) -> Trigger:
        if not trigger.event:
            raise UnsupportedFunctionError(f"function {self._fn_id}: a trigger has neither an event nor a cron")
        match = _OF_FUNCTION.match(trigger.expression or "")
        if match is not None:
            return Trigger(event_name=trigger.event, of_function=match[1])
        condition = self.expression("trigger", trigger.expression, Wanted.CONDITION)
        return Trigger(event_name=trigger.event, condition=condition)

    def cron(self, trigger: _WireTrigger) -> Cron:
        assert trigger.cron is not None
        try:
            check_cron(trigger.cron)
        except CronInvalidError as error:
            raise UnsupportedFunctionError(f"function {self._fn_id}: {error.message}") from error
        return Cron(expression=trigger.cron, jitter_ms=self.duration("jitter", trigger.jitter) or 0)

    def cancel(self, cancel: _WireCancel) -> CancelOn:
        return CancelOn(
            event_name=cancel.event,
            condition=self.expression("cancel.if", cancel.condition, Wanted.CONDITION, "event", "async"),
            timeout_ms=self.duration("cancel.timeout", cancel.timeout),
        )

    def concurrency(self, limit: _WireConcurrency) -> Concurrency:
        key = self.expression("concurrency.key", limit.key, Wanted.KEY)
        scope = limit.scope or ConcurrencyScope.FUNCTION
        self.need(scope is ConcurrencyScope.FUNCTION or key is not None, f"concurrency: scope {scope} needs a key")
        return Concurrency(limit=limit.limit, key=key, scope=scope)

    def idempotency(self, key: str | None) -> RateLimit | None:
        if key is None:
            return None
        key = self.expression("idempotency", key, Wanted.KEY)
        return RateLimit(limit=1, period_ms=IDEMPOTENCY_MS, key=key, only_with_key=True)

    def rate_limit(self, limit: _WireRate | None) -> RateLimit | None:
        if limit is None:
            return None
        self.need(limit.limit > 0, "rateLimit: the limit is at least 1")
        key = self.expression("rateLimit.key", limit.key, Wanted.KEY)
        return RateLimit(limit=limit.limit, period_ms=self.period("rateLimit.period", limit.period), key=key)

    def throttle(self, throttle: _WireRate | None) -> Throttle | None:
        if throttle is None:
            return None
        burst = 1 if throttle.burst is None else throttle.burst
        self.need(throttle.limit > 0 and burst > 0, "throttle: limit and burst are at least 1")
        key = self.expression("throttle.key", throttle.key, Wanted.KEY)
        period_ms = self.period("throttle.period", throttle.period)
        return Throttle(limit=throttle.limit, period_ms=period_ms, burst=burst, key=key)

    def debounce(self, debounce: _WireDebounce | None) -> Debounce | None:
        if debounce is None:
            return None
        period_ms = self.period("debounce.period", debounce.period)
        self.need(1000 <= period_ms <= DEBOUNCE_MAX_MS, "debounce: the period is 1 s to 7 days")
        key = self.expression("debounce.key", debounce.key, Wanted.KEY)
        timeout_ms = self.duration("debounce.timeout", debounce.timeout)
        return Debounce(period_ms=period_ms, timeout_ms=timeout_ms, key=key)

    def batch(self, batch: _WireBatch | None) -> Batch | None:
        if batch is None:
            return None
        self.need(1 <= batch.max_size <= BATCH_MAX, f"batchEvents: maxSize is 1 to {BATCH_MAX}")
        return Batch(
            max_size=batch.max_size,
            timeout_ms=self.duration("batchEvents.timeout", batch.timeout) or BATCH_TIMEOUT_MS,
            key=self.expression("batchEvents.key", batch.key, Wanted.KEY),
            condition=self.expression("batchEvents.if", batch.condition, Wanted.CONDITION),
        )

    def singleton(self, singleton: _WireSingleton | None) -> Singleton | None:
        if singleton is None:
            return None
        return Singleton(mode=singleton.mode, key=self.expression("singleton.key", singleton.key, Wanted.KEY))

    def period(self, setting: str, text: str) -> int:
        length_ms = self.duration(setting, text)
        self.need(bool(length_ms), f"{setting}: it has no length")
        assert length_ms is not None
        return length_ms

    def expression(self, setting: str, text: str | None, wanted: Wanted, *names: str) -> str | None:
        if text is None:
            return None
        try:
            check(text, wanted, *(names or ("event",)))
        except ExpressionInvalidError as error:
            raise UnsupportedFunctionError(f"function {self._fn_id}: {setting}: {error.message}") from error
        return text

    def duration(self, setting: str, text: str | None) -> int | None:
        length_ms = None if text is None else duration_ms(text)
        self.need(text is None or length_ms is not None, f"{setting}: {text!r} is not a duration within a year")
        return length_ms

    def need(self, is_true: bool, rule: str) -> None:
        if not is_true:
            raise UnsupportedFunctionError(f"function {self._fn_id}: {rule}")
