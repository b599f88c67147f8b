"""Durable steps in memory, which can crash at every boundary: to prove that a durable function survives it.

`drive` is the smallest engine there is: it runs a function's body again after each finished step until the body
returns, and starts nothing twice that is remembered in the journal.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from rawr.execution.ports import DurableFunction, FunctionDeps, FunctionFailedError
from rawr.wire import JsonValue, decode, encode

StepBody = Callable[[int], Awaitable[JsonValue]]
PASSES_MAX: Final = 10_000


class Crash(BaseException):
    """The process dies here. Not an `Exception`, so that nothing in a program can survive it."""


class RetriesExhaustedError(Exception):
    """A step failed more often than its function allows."""


class Journal(msgspec.Struct, kw_only=True):
    """What survives a crash: the memo of every finished step, and the attempt each unfinished one has reached."""

    memos: dict[str, JsonValue] = msgspec.field(default_factory=dict)
    attempts: dict[str, int] = msgspec.field(default_factory=dict)
    finished: list[str] = msgspec.field(default_factory=list)
    """Step ids in the order in which they finished."""


class CrashPoint:
    """Counts the boundaries that are passed, and crashes at number `at` (from 0); never when it is None."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.passed = 0

    def reach(self) -> None:
        here, self.passed = self.passed, self.passed + 1
        if here == self.at:
            raise Crash


class CrashingSteps:
    """`Steps` for one pass over a body. New steps are planned, and run by `drive` after the pass."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._racing = False
        self.planned: dict[str, StepBody] = {}

    @property
    def engine_run_id(self) -> str:
        return "in-memory"

    async def run(self, step_id: str, body: StepBody) -> JsonValue:
        if step_id in self._journal.memos:
            return self._journal.memos[step_id]
        assert step_id not in self.planned, f"step id {step_id} is used twice"
        self.planned[step_id] = body
        raise _BranchEnds if self._racing else _PassEnds

    async def race(self, branches: Sequence[Callable[[], Awaitable[None]]]) -> None:
        self._racing = True
        for branch in branches:
            with contextlib.suppress(_BranchEnds):
                await branch()
        self._racing = False
        if self.planned:
            raise _PassEnds


async def drive(
    function: DurableFunction,
    deps: FunctionDeps,
    data: Mapping[str, JsonValue],
    *,
    journal: Journal,
    crash: CrashPoint | None = None,
    choose: Callable[[Sequence[str]], str] = lambda planned: planned[0],
) -> JsonValue:
    """Run a function to its end and return its result. `choose` picks which of several planned steps runs next.

    There are three boundaries per step: before its body, between body and memo, and after the memo.

    Raises:
        Crash: at `crash`; drive again with the same journal to go on.
        FunctionFailedError: the function failed, and its `on_failure` was called.
    """
    crash = crash or CrashPoint()
    for _ in range(PASSES_MAX):
        steps = CrashingSteps(journal)
        try:
            return await function.body(deps, steps, data)
        except _PassEnds:
            step_id = choose(list(steps.planned))
            await _run_step(function, journal, crash, step_id, steps.planned[step_id])
        except (FunctionFailedError, RetriesExhaustedError) as error:
            await function.on_failure(deps, data, str(error))
            raise FunctionFailedError(str(error)) from error
    raise AssertionError(f"no end after {PASSES_MAX} passes")


async def _run_step(
    function: DurableFunction, journal: Journal, crash: CrashPoint, step_id: str, body: StepBody
) -> None:
    attempt = journal.attempts.get(step_id, 0)
    crash.reach()
    try:
        memo = decode(encode(await body(attempt)))
    # A step that raises is tried again, whatever it raised.
    except Exception as error:
        if attempt >= function.retries:
            raise RetriesExhaustedError(f"step {step_id}: {error}") from error
        journal.attempts[step_id] = attempt + 1
        return
    crash.reach()
    journal.memos[step_id] = memo
    journal.finished.append(step_id)
    crash.reach()


class _BranchEnds(BaseException):
    """This branch has a step to run."""


class _PassEnds(BaseException):
    """The body cannot go on before a step has run."""
