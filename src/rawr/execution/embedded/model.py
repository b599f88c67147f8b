"""The engine's own nouns: functions and triggers as registered, jobs as claimed, runs as asked for. Pure values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from rawr.errors import RawrError
from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.protocol import RETRIES_DEFAULT, RETRIES_MAX, Call, Failure
from rawr.wire import JsonValue

EVENT_FAILED: Final = "inngest/function.failed"
EVENT_FINISHED: Final = "inngest/function.finished"

_FUNCTION_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,256}\Z")
# The one expression that the SDK itself writes. Others need an evaluator, which this engine does not have.
_OF_FUNCTION: Final = re.compile(r"event\.data\.function_id == '([A-Za-z0-9._-]+)'\Z")
_CONFIG_KEYS: Final = frozenset({"id", "name", "triggers", "steps"})


class EngineRunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class JobKind(StrEnum):
    CALL = "call"
    SLEEP = "sleep"


class UnsupportedFunctionError(RawrError):
    """A function asks for something that the embedded engine does not do. It is refused, never half obeyed."""

    code = "ENGINE_FUNCTION_UNSUPPORTED"


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    event_name: str
    of_function: str | None
    """Only events whose data name this function id (for failure handlers); None for all."""


class RegisteredFunction(msgspec.Struct, frozen=True, kw_only=True):
    fn_id: str
    name: str
    max_attempts: int
    triggers: tuple[Trigger, ...]


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event with everything filled in, ready to be stored."""

    ulid: str
    event_id: str
    """What it is de-duplicated by; the ULID when the sender chose none."""
    name: str
    of_function: str | None
    """`data.function_id`, when that is text."""
    body: Fragment


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job that one engine holds. `owner` and `generation` fence: the result of any other claim is dropped."""

    owner: str
    job_id: str
    run_id: str
    generation: int
    call: Call


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    owner: str
    until_ms: int


class EngineRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a durable function, as the engine knows it."""

    run_id: str
    fn_id: str
    event_id: str
    status: EngineRunStatus
    queued_at_ms: int
    ended_at_ms: int | None
    steps: int
    output: JsonValue
    error: Failure | None


def functions_of(configs: Sequence[Mapping[str, Any]]) -> tuple[RegisteredFunction, ...]:
    """The functions in an app's registration.

    Raises:
        UnsupportedFunctionError: one uses what this engine does not do; the message names function and setting.
    """
    return tuple(_function(config) for config in configs)


def _function(config: Mapping[str, Any]) -> RegisteredFunction:
    fn_id = str(config.get("id"))
    if _FUNCTION_ID.match(fn_id) is None:
        raise UnsupportedFunctionError(f"function id {fn_id!r}: use 1 to 256 of A-Z a-z 0-9 . _ -")
    extra = sorted(key for key, value in config.items() if key not in _CONFIG_KEYS and value)
    if extra:
        raise UnsupportedFunctionError(f"function {fn_id} uses {', '.join(extra)}: the embedded engine has none of it")
    retries = config["steps"]["step"].get("retries", {}).get("attempts", RETRIES_DEFAULT)
    return RegisteredFunction(
        fn_id=fn_id,
        name=str(config.get("name", fn_id)),
        max_attempts=min(int(retries), RETRIES_MAX) + 1,
        triggers=tuple(_trigger(fn_id, trigger) for trigger in config["triggers"]),
    )


def _trigger(fn_id: str, trigger: Mapping[str, Any]) -> Trigger:
    event_name, expression = trigger.get("event"), trigger.get("expression")
    if not isinstance(event_name, str) or not event_name:
        raise UnsupportedFunctionError(f"function {fn_id}: the embedded engine only knows triggers by event")
    if expression is None:
        return Trigger(event_name=event_name, of_function=None)
    match = _OF_FUNCTION.match(expression)
    if match is None:
        raise UnsupportedFunctionError(f"function {fn_id}: trigger expression {expression!r} is not supported")
    return Trigger(event_name=event_name, of_function=match[1])
