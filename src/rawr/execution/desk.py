"""One try of one desk: its handler between two recorded events. It knows nothing of steps and engines.

A handler's output counts when it is recorded, and then for good. Before that a try may happen again after a
crash, so handlers are given an idempotency key.
"""

from __future__ import annotations

import asyncio
import math
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

import msgspec

from rawr.coordination.desks import passed_on
from rawr.coordination.forks import KeptDesk
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import TERMINAL_STATUSES, Desk, EventType, MemoryKey, MemoryRecord, Run
from rawr.coordination.schemas import SchemaChecker, SchemaRefusedError
from rawr.errors import RawrError
from rawr.execution.ports import DeskHandler, FunctionDeps
from rawr.execution.user_code import called, message_of
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.wire import JsonValue, decode, encode, iso_from_ms

OUTPUT_MAX_BYTES: Final = 4 * 1024 * 1024
RETRIES_MAX: Final = 20
"""The most that engines allow; a policy that wants more gets this many."""
MEMORY_DEFAULT: Final = "default"
"""Namespace of desks that name none, and key of what a desk remembers."""
_ISSUES_SHOWN: Final = 5


class DeskWork(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    desk: Desk
    received: JsonValue
    attempt: int
    """1 for the first try."""


class DeskOutcome(Enum):
    COMPLETED = auto()
    RUN_ENDED = auto()
    """The run ended while the desk was at work; its output is dropped."""


class DeskFailedError(Exception):
    """A try failed. `may_retry` says whether another try could go better; then the policy has one left, too."""

    def __init__(self, message: str, *, may_retry: bool = True) -> None:
        super().__init__(message)
        self.message = message
        self.may_retry = may_retry


async def work_desk(deps: FunctionDeps, checker: SchemaChecker, work: DeskWork) -> DeskOutcome | DeskFailedError:
    """Do one try, recording its start and how it ended. A failure is returned; a store that fails raises."""
    await _record_start(deps, work)
    memory_at = _memory_key(work)
    memory = await deps.store.get_memory(memory_at, now_ms=deps.clock.now_ms())
    ctx = _Context(work, deps.instance_root, None if memory is None else memory.data)
    try:
        output = await _output(deps, checker, work, ctx)
    except DeskFailedError as error:
        return await _record_failure(deps, work, error)
    return await _record_completion(deps, work, output, memory_at, ctx)


async def keep_desk(deps: FunctionDeps, work: DeskWork, kept: KeptDesk, rerun_of: RunId) -> DeskOutcome:
    """Record what the desk gave in another run as what it gives in this one. Its handler and its memory stay alone."""
    detail = f"kept from run {rerun_of}"
    await _record_start(deps, work, detail=detail)
    fact = Fact(
        key=f"desk.completed/{work.desk.desk_id}",
        type=EventType.DESK_COMPLETED,
        at=iso_from_ms(deps.clock.now_ms()),
        desk_id=work.desk.desk_id,
        detail=detail,
        output=kept.output,
    )
    run = await deps.store.record(work.run.run_id, fact)
    return DeskOutcome.RUN_ENDED if run.status in TERMINAL_STATUSES else DeskOutcome.COMPLETED


class _Context:
    """`DeskContext`: what a handler may know and keep."""

    def __init__(self, work: DeskWork, instance_root: Path, memory: JsonValue) -> None:
        self._work = work
        self._instance_root = instance_root
        self._memory = memory
        self.remembered: JsonValue | msgspec.UnsetType = msgspec.UNSET

    @property
    def run_id(self) -> RunId:
        return self._work.run.run_id

    @property
    def workflow_id(self) -> WorkflowId:
        return self._work.run.workflow_id

    @property
    def desk_id(self) -> DeskId:
        return self._work.desk.desk_id

    @property
    def attempt(self) -> int:
        return self._work.attempt

    @property
    def instance_root(self) -> Path:
        return self._instance_root

    @property
    def memory(self) -> JsonValue:
        return self._memory

    @property
    def idempotency_key(self) -> str:
        return f"{self.run_id}/{self.desk_id}"

    def remember(self, value: JsonValue) -> None:
        self.remembered = value


async def _output(deps: FunctionDeps, checker: SchemaChecker, work: DeskWork, ctx: _Context) -> JsonValue:
    desk = work.desk
    if desk.handler is msgspec.UNSET:
        return _as_json(passed_on(desk, work.received, ctx.memory))  # what it wraps may be at the limit of nesting
    handler = deps.desk_handlers.get(desk.handler)
    if handler is None:
        known = ", ".join(sorted(deps.desk_handlers)) or "none"
        raise DeskFailedError(f"no desk handler is named {desk.handler!r}; known: {known}", may_retry=False)
    _check(checker, desk.input_schema, work.received, side="input", may_retry=False)
    output = _as_json(await _handled(handler, work, ctx))
    if ctx.remembered is not msgspec.UNSET:
        ctx.remembered = _as_json(ctx.remembered)
    _check(checker, desk.output_schema, output, side="output", may_retry=True)
    return output


def _check(
    checker: SchemaChecker, schema: dict[str, JsonValue], value: JsonValue, *, side: str, may_retry: bool
) -> None:
    try:
        issues = checker.issues(schema, value)
    except SchemaRefusedError as error:
        raise DeskFailedError(f"the {side} schema is refused: {error.message}", may_retry=False) from error
    if issues:
        shown = "; ".join(str(issue) for issue in issues[:_ISSUES_SHOWN])
        more = f"; and {len(issues) - _ISSUES_SHOWN} more" if len(issues) > _ISSUES_SHOWN else ""
        raise DeskFailedError(f"{side} does not fit the desk's schema: {shown}{more}", may_retry=may_retry)


async def _handled(handler: DeskHandler, work: DeskWork, ctx: _Context) -> Any:
    """What the handler gives within its time. A sync handler that is out of time goes on in its thread, unheard."""
    policy = work.desk.runtime_policy
    limit_s = 0 if policy is msgspec.UNSET or policy.timeout_seconds is msgspec.UNSET else policy.timeout_seconds
    timeout = asyncio.timeout(limit_s or None)
    try:
        async with timeout:
            return await called(handler, work.received, ctx)
    # Whatever user code raises is this desk's failure; `sys.exit()` in a handler must not end the server.
    except (Exception, SystemExit) as error:
        if timeout.expired():
            raise DeskFailedError(f"not done within {limit_s} s") from error
        raise DeskFailedError(message_of(error)) from error


def _as_json(value: Any) -> JsonValue:
    """The JSON value that the store will give back."""
    try:
        text = encode(value)  # first: it refuses what contains itself
        if not _is_finite(value):
            raise DeskFailedError("it gave what cannot be JSON: NaN or an infinite number")
        if len(text) > OUTPUT_MAX_BYTES:
            raise DeskFailedError(f"it gave {len(text)} bytes of JSON; the limit is {OUTPUT_MAX_BYTES}")
        return decode(text)
    except (TypeError, ValueError, OverflowError, RecursionError, RawrError) as error:
        raise DeskFailedError(f"it gave what cannot be JSON: {error}") from error


def _is_finite(value: Any) -> bool:
    """Whether no float in plain data is NaN or infinite; the encoder would write those as null."""
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, float) and not math.isfinite(node):
            return False
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list | tuple):
            waiting.extend(node)
    return True


async def _record_start(deps: FunctionDeps, work: DeskWork, *, detail: str | None = None) -> None:
    fact = Fact(
        key=f"desk.started/{work.desk.desk_id}/{work.attempt}",
        type=EventType.DESK_STARTED,
        at=iso_from_ms(deps.clock.now_ms()),
        desk_id=work.desk.desk_id,
        detail=msgspec.UNSET if detail is None else detail,
        input=work.received,
    )
    await deps.store.record(work.run.run_id, fact)


async def _record_failure(deps: FunctionDeps, work: DeskWork, error: DeskFailedError) -> DeskFailedError:
    retries = _retries(work.desk)
    tries = f"try {work.attempt} of {retries + 1}: " if retries else ""
    fact = Fact(
        key=f"desk.failed/{work.desk.desk_id}/{work.attempt}",
        type=EventType.DESK_FAILED,
        at=iso_from_ms(deps.clock.now_ms()),
        desk_id=work.desk.desk_id,
        detail=tries + error.message,
    )
    await deps.store.record(work.run.run_id, fact)
    return DeskFailedError(error.message, may_retry=error.may_retry and work.attempt <= retries)


def _retries(desk: Desk) -> int:
    policy = desk.runtime_policy
    return 0 if policy is msgspec.UNSET or policy.retries is msgspec.UNSET else min(policy.retries, RETRIES_MAX)


async def _record_completion(
    deps: FunctionDeps, work: DeskWork, output: JsonValue, memory_at: MemoryKey, ctx: _Context
) -> DeskOutcome:
    now_ms = deps.clock.now_ms()
    fact = Fact(
        key=f"desk.completed/{work.desk.desk_id}",
        type=EventType.DESK_COMPLETED,
        at=iso_from_ms(now_ms),
        desk_id=work.desk.desk_id,
        output=output,
        memory=_memory(work, output, memory_at, ctx, now_ms=now_ms),
    )
    run = await deps.store.record(work.run.run_id, fact)
    return DeskOutcome.RUN_ENDED if run.status in TERMINAL_STATUSES else DeskOutcome.COMPLETED


def _memory(
    work: DeskWork, output: JsonValue, memory_at: MemoryKey, ctx: _Context, *, now_ms: int
) -> MemoryRecord | None:
    scope = work.desk.memory_scope
    if not scope.persist:
        return None
    ttl_s = 0 if scope.ttl_seconds is msgspec.UNSET else scope.ttl_seconds
    return MemoryRecord(
        at=memory_at,
        data=output if ctx.remembered is msgspec.UNSET else ctx.remembered,
        updated_at=iso_from_ms(now_ms),
        expires_at_ms=now_ms + ttl_s * 1000 if ttl_s else None,
    )


def _memory_key(work: DeskWork) -> MemoryKey:
    scope = work.desk.memory_scope
    return MemoryKey(
        workflow_id=work.run.workflow_id,
        workflow_version=work.run.workflow_version,
        desk_id=work.desk.desk_id,
        namespace=MEMORY_DEFAULT if scope.namespace is msgspec.UNSET else scope.namespace,
        key=MEMORY_DEFAULT,
    )
