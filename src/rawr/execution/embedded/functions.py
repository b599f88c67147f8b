"""Durable functions as an app registers them: what triggers and ends their runs, and what limits them. Pure.

A setting that this engine does not obey is refused when it is registered, never half obeyed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from rawr.errors import RawrError
from rawr.execution.embedded.durations import duration_ms
from rawr.execution.expressions import ExpressionInvalidError, Wanted, check

RETRIES_DEFAULT: Final = 4
RETRIES_MAX: Final = 20
TRIGGERS_MAX: Final = 10
CANCELS_MAX: Final = 5

_FUNCTION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,256}\Z")
# The one expression that the SDK itself writes. Every failed run asks it of every failure handler, so it is an index.
_OF_FUNCTION: Final = re.compile(r"event\.data\.function_id == '([A-Za-z0-9._-]+)'\Z")


class UnsupportedFunctionError(RawrError):
    """A function asks for something that the embedded engine does not do, or that cannot be."""

    code = "ENGINE_FUNCTION_UNSUPPORTED"


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    event_name: str
    of_function: str | None = None
    """Only events whose data name this function id (for failure handlers); None for all."""
    condition: str | None = None
    """A CEL condition over `event`."""


class CancelOn(msgspec.Struct, frozen=True, kw_only=True):
    event_name: str
    condition: str | None = None
    """A CEL condition over `event` (what triggered the run) and `async` (the event that came)."""
    timeout_ms: int | None = None
    """How long after the run was queued it can still be cancelled so."""


class RegisteredFunction(msgspec.Struct, frozen=True, kw_only=True):
    fn_id: str
    name: str
    max_attempts: int
    triggers: tuple[Trigger, ...]
    cancels: tuple[CancelOn, ...] = ()


def functions_of(configs: Sequence[Mapping[str, Any]]) -> tuple[RegisteredFunction, ...]:
    """The functions in an app's registration.

    Raises:
        UnsupportedFunctionError: one uses what this engine does not do; the message names function and setting.
    """
    return tuple(_function(config) for config in configs)


class _Wire(msgspec.Struct, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A function's registration. Settings that are not here are not supported, unless they are empty."""

    id: str
    name: str | None = None
    triggers: list[_WireTrigger]
    steps: dict[str, Any]
    cancel: list[_WireCancel] | None = None


class _WireTrigger(msgspec.Struct, kw_only=True):
    event: str | None = None
    expression: str | None = None


class _WireCancel(msgspec.Struct, kw_only=True):
    event: str
    condition: str | None = msgspec.field(default=None, name="if")
    timeout: str | None = None


def _function(config: Mapping[str, Any]) -> RegisteredFunction:
    wire = _read(config)
    fn_id = wire.id
    _need(len(wire.triggers) <= TRIGGERS_MAX, fn_id, f"triggers: at most {TRIGGERS_MAX}")
    _need(len(wire.cancel or ()) <= CANCELS_MAX, fn_id, f"cancel: at most {CANCELS_MAX}")
    retries = wire.steps["step"].get("retries", {}).get("attempts", RETRIES_DEFAULT)
    return RegisteredFunction(
        fn_id=fn_id,
        name=wire.name or fn_id,
        max_attempts=min(int(retries), RETRIES_MAX) + 1,
        triggers=tuple(_trigger(fn_id, trigger) for trigger in wire.triggers),
        cancels=tuple(_cancel(fn_id, cancel) for cancel in wire.cancel or ()),
    )


def _read(config: Mapping[str, Any]) -> _Wire:
    fn_id = str(config.get("id"))
    if _FUNCTION_ID.match(fn_id) is None:
        raise UnsupportedFunctionError(f"function id {fn_id!r}: use 1 to 256 of A-Z a-z 0-9 . _ -")
    try:
        return msgspec.convert({key: value for key, value in config.items() if value}, _Wire)
    except msgspec.ValidationError as error:
        raise UnsupportedFunctionError(f"function {fn_id}: {error}") from error


def _trigger(fn_id: str, trigger: _WireTrigger) -> Trigger:
    if not trigger.event:
        raise UnsupportedFunctionError(f"function {fn_id}: the embedded engine only knows triggers by event")
    match = _OF_FUNCTION.match(trigger.expression or "")
    if match is not None:
        return Trigger(event_name=trigger.event, of_function=match[1])
    condition = _expression(fn_id, "trigger", trigger.expression, Wanted.CONDITION, "event")
    return Trigger(event_name=trigger.event, condition=condition)


def _cancel(fn_id: str, cancel: _WireCancel) -> CancelOn:
    return CancelOn(
        event_name=cancel.event,
        condition=_expression(fn_id, "cancel", cancel.condition, Wanted.CONDITION, "event", "async"),
        timeout_ms=_duration(fn_id, "cancel", cancel.timeout),
    )


def _expression(fn_id: str, setting: str, text: str | None, wanted: Wanted, *names: str) -> str | None:
    if text is None:
        return None
    try:
        check(text, wanted, *names)
    except ExpressionInvalidError as error:
        raise UnsupportedFunctionError(f"function {fn_id}: {setting}: {error.message}") from error
    return text


def _duration(fn_id: str, setting: str, text: str | None) -> int | None:
    if text is None:
        return None
    length_ms = duration_ms(text)
    if length_ms is None:
        raise UnsupportedFunctionError(f"function {fn_id}: {setting}: {text!r} is not a duration within a year")
    return length_ms


def _need(true: bool, fn_id: str, rule: str) -> None:
    if not true:
        raise UnsupportedFunctionError(f"function {fn_id}: {rule}")
