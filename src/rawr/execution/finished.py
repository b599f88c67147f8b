"""Telling finished hooks that a run has ended. It decides nothing about the run, and no hook can change how it ended.

Delivery is at least once: until an outcome is recorded, the same ended run may be told again. All hooks of a run
share one time limit, so that a run's end is never held up for longer.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar

import msgspec

from rawr.coordination.lifecycle import awaits_finished_hook
from rawr.coordination.model import FINISHED_TIMEOUT_MS, FinishedHookState, HookOutcome, Run
from rawr.coordination.ports import CoordinationStore
from rawr.errors import BadInputError, RawrError
from rawr.execution.ports import FinishedHook, FunctionDeps
from rawr.execution.user_code import DETAIL_MAX, called, is_async, message_of
from rawr.ids import RunId, WorkflowId
from rawr.wire import JsonValue, iso_from_ms

STORE_WAIT_S: Final = 30.0
DELIVERIES_MAX: Final = 3
"""A hook that takes the process down with it is told no more often; it must not take the HQ down for ever."""

T = TypeVar("T")

_log: Final = logging.getLogger(__name__)


class HookEndedError(RawrError):
    """A hook that is out of time went on, and wanted to act."""

    code = "FINISHED_HOOK_ENDED"


async def tell_finished(deps: FunctionDeps, run_id: RunId, *, timeout_ms: int = FINISHED_TIMEOUT_MS) -> None:
    """Call the hooks of an ended run and record how they ended; nothing when that is recorded, or the run goes on.

    Raises:
        StorageError: the outcome could not be recorded. Tell again.
    """
    run = await deps.store.get_run(run_id)
    if run is None or not awaits_finished_hook(run):
        return
    attempted_at = iso_from_ms(deps.clock.now_ms())
    hooks = _hooks_of(deps, run.workflow_id)
    problems = await _problems(deps.store, hooks, run, timeout_ms) if hooks else []
    if problems:  # without their texts, which may hold what the run was about
        _log.warning("finished hooks of run %s failed; the run says why", run_id)
    await deps.store.record_finished_hook(run_id, _state(attempted_at, problems, was_called=bool(hooks)))


def outcome_without_hooks(deps: FunctionDeps, workflow_id: WorkflowId) -> FinishedHookState | None:
    """`skipped`, to be recorded together with the end of a run that nobody waits for; None when a hook does."""
    if _hooks_of(deps, workflow_id):
        return None
    return _state(iso_from_ms(deps.clock.now_ms()), [], was_called=False)


def _hooks_of(deps: FunctionDeps, workflow_id: WorkflowId) -> list[FinishedHook]:
    return [hook for hook in deps.finished_hooks if hook.workflow_id in (None, workflow_id)]


async def _problems(store: CoordinationStore, hooks: Sequence[FinishedHook], run: Run, timeout_ms: int) -> list[str]:
    """What went wrong in a delivery. One that could not even be recorded happens again, but not for ever."""
    if await store.begin_finished_hook(run.run_id) > DELIVERIES_MAX:
        return [f"{DELIVERIES_MAX} deliveries had no outcome: the process died in them, or the store refused it"]
    told = await asyncio.gather(*(_problem(store, hook, run, timeout_ms) for hook in hooks))
    return [problem for problem in told if problem is not None]


def _state(attempted_at: str, problems: list[str], *, was_called: bool) -> FinishedHookState:
    outcome = HookOutcome.SUCCEEDED if was_called else HookOutcome.SKIPPED
    return FinishedHookState(
        attempted_at=attempted_at,
        outcome=HookOutcome.FAILED if problems else outcome,
        error="; ".join(problems)[:DETAIL_MAX] if problems else msgspec.UNSET,
        non_critical=True,
        idempotency_required=True,
        timeout_ms=FINISHED_TIMEOUT_MS,
    )


async def _problem(store: CoordinationStore, hook: FinishedHook, run: Run, timeout_ms: int) -> str | None:
    """What went wrong in one hook, or None."""
    record = _EffectRecord(store, hook, run)
    fx = _AsyncEffects(record) if is_async(hook.call) else _SyncEffects(record, asyncio.get_running_loop())
    timeout = asyncio.timeout(timeout_ms / 1000)
    try:
        async with timeout:
            await called(hook.call, run, fx)
    # Whatever user code raises is the outcome of its hook; `sys.exit()` in one must not end the server.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - it is recorded, not dropped
        why = f"not done within {timeout_ms / 1000:g} s" if timeout.expired() else message_of(error)
        return f"{hook.name}: {why}"
    finally:
        record.is_open = False
    return None


class _EffectRecord:
    """What one hook has done for one run. It closes when the hook's time is over."""

    def __init__(self, store: CoordinationStore, hook: FinishedHook, run: Run) -> None:
        self._store = store
        self._name = hook.name
        self._run_id = run.run_id
        self.is_open = True

    @property
    def idempotency_key(self) -> str:
        return f"{self._run_id}/finished/{self._name}"

    def check(self, key: str) -> None:
        """Raise unless an effect may begin under `key` now."""
        if not self.is_open:
            raise HookEndedError(f"finished hook {self._name} of run {self._run_id} is over: {key!r} is not done")
        if not key:
            raise BadInputError("an effect needs a key, such as fx.once('mail', send)")

    async def known(self, key: str) -> tuple[bool, JsonValue]:
        """Whether the effect has happened, and what it gave."""
        effect = await self._store.finished_effect(self._run_id, self._stored(key))
        return (False, None) if effect is None else (True, effect.result)

    async def keep(self, key: str, result: JsonValue) -> JsonValue:
        return (await self._store.record_finished_effect(self._run_id, self._stored(key), result)).result

    def _stored(self, key: str) -> str:
        return f"{self._name}\n{key}"


class _AsyncEffects:
    """`FinishedEffects` for an async hook."""

    def __init__(self, record: _EffectRecord) -> None:
        self._record = record

    @property
    def idempotency_key(self) -> str:
        return self._record.idempotency_key

    async def once(self, key: str, effect: Callable[[], Any]) -> JsonValue:
        self._record.check(key)
        has_happened, result = await self._record.known(key)
        return result if has_happened else await self._record.keep(key, await called(effect))


class _SyncEffects:
    """`FinishedEffects` for a hook in a thread of its own; the store is asked on the loop."""

    def __init__(self, record: _EffectRecord, loop: asyncio.AbstractEventLoop) -> None:
        self._record = record
        self._loop = loop

    @property
    def idempotency_key(self) -> str:
        return self._record.idempotency_key

    def once(self, key: str, effect: Callable[[], Any]) -> JsonValue:
        self._record.check(key)
        has_happened, result = self._wait(self._record.known(key))
        if has_happened:
            return result
        given = effect()
        if inspect.iscoroutine(given):
            given.close()
            raise BadInputError(f"the effect {key!r} is async: make the hook async as well, and await fx.once(...)")
        return self._wait(self._record.keep(key, given))

    def _wait(self, asked: Coroutine[Any, Any, T]) -> T:
        try:
            answer = asyncio.run_coroutine_threadsafe(asked, self._loop)
        except RuntimeError:  # the loop is closed, and nobody will ever run this
            asked.close()
            raise
        return answer.result(STORE_WAIT_S)
