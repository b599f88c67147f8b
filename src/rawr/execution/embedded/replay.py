"""Replay: the recorded history of a run against the code that there is now, without doing any of it again.

The function is called as the engine calls it, pass after pass, with the first of its memos, then two, until all. It
is told to plan its steps and not to run them, so no step's body is ever entered. What it asks for is compared with
what it asked for then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.execution.embedded.comparison import Comparison, ReplayDifference
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.history import History, Remembered
from rawr.execution.embedded.memory import NOTHING, FinishedStep
from rawr.execution.embedded.outcomes import CallFailed, Failure, Outcome
from rawr.execution.embedded.protocol import (
    ROOT_STEP,
    Call,
    Trust,
    call_request,
    parse_answer,
    parse_functions,
    sync_request,
)
from rawr.execution.embedded.registration import functions_of
from rawr.execution.ports import EngineCall
from rawr.wire import encode

PASS_TIMEOUT_S: Final = 60.0
WOULD_ACT: Final = "WouldActError"
"""The name of the error that whatever must not happen in a replay raises; the SDK hands on names only."""


class Verdict(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    CANNOT = "cannot"
    """The code does something outside of its steps, or is not there: nothing can be said."""


class Replayed(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    run_id: str
    fn_id: str
    verdict: Verdict
    passes: int
    """Calls with different memos that were made."""
    difference: ReplayDifference | None = None
    reason: str | None = None
    """Why it cannot be replayed."""


class Replayer:
    """Replays runs against the functions behind `call`, which has to be free of effects. It has `synced` them."""

    def __init__(
        self, call: EngineCall, *, signing_key: str, clock: Clock, functions: Mapping[str, RegisteredFunction]
    ) -> None:
        self._call = call
        self._key = signing_key
        self._clock = clock
        self._functions = functions

    async def replay(self, history: History) -> Replayed:
        function = self._functions.get(history.fn_id)
        if function is None:
            return _cannot(history, 0, f"the code that there is has no function {history.fn_id}")
        comparison = Comparison(history)
        for count in range(len(history.steps) + 1):
            try:
                outcome = await self._pass(history, count, function.max_attempts)
            except TimeoutError:
                return _cannot(history, count, f"a call was not answered within {PASS_TIMEOUT_S:g} s")
            doubt = _doubt(outcome)
            if doubt is not None:
                return _cannot(history, count, doubt)
            difference = comparison.see(count, outcome)
            if difference is not None:
                return _replayed(history, count + 1, difference)
        return _replayed(history, len(history.steps) + 1, comparison.end())

    async def _pass(self, history: History, count: int, max_attempts: int) -> Outcome:
        """What the function answers when the first `count` steps are remembered; tried as often as the engine does."""
        outcome = await self._attempt(history, count, 0, max_attempts)
        for attempt in range(1, max_attempts):
            if not (isinstance(outcome, CallFailed) and outcome.retriable) or _doubt(outcome) is not None:
                break
            outcome = await self._attempt(history, count, attempt, max_attempts)
        return outcome

    async def _attempt(self, history: History, count: int, attempt: int, max_attempts: int) -> Outcome:
        done = history.steps[:count]
        call = Call(
            fn_id=history.fn_id,
            run_id=history.run_id,
            job_id=f"{history.run_id}|replay|{count}",
            request_id=f"{history.run_id}-{count}-{attempt}",
            step_id=ROOT_STEP,
            attempt=attempt,
            max_attempts=max_attempts,
            generation=1,
            plan_steps=True,
            events=history.events,
            memory=NOTHING.with_steps([_finished(step) for step in done]),
        )
        request = call_request(call, key=self._key, t=self._clock.now_ms() // 1000)
        async with asyncio.timeout(PASS_TIMEOUT_S):
            try:
                answer = await self._call("POST", request.query, request.headers, request.body)
            except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - as the engine does, it is what the code answers
                message = f"{type(error).__name__}: {str(error)!a}"
                return CallFailed(failure=Failure(name="CallFailed", message=message), retriable=True)
        return parse_answer(answer, trust=Trust(keys=(self._key,)))


def _finished(remembered: Remembered) -> FinishedStep:
    memo, step_id = remembered.memo, remembered.step.step_id
    canonical = None if memo.canonical is None else memo.canonical.decode()
    quoted_id = encode(step_id).decode()
    return FinishedStep(step_id=step_id, quoted_id=quoted_id, memo=memo.text.decode(), memo_canonical=canonical)


async def synced(call: EngineCall, *, signing_key: str, clock: Clock, serve_url: str) -> Replayer:
    """A replayer of the functions that answer behind `call`.

    Raises:
        SyncRefusedError, UnsupportedFunctionError
    """
    request = sync_request(serve_url, key=signing_key, t=clock.now_ms() // 1000)
    app = parse_functions(
        await call("PUT", request.query, request.headers, request.body), trust=Trust(keys=(signing_key,))
    )
    functions = {function.fn_id: function for function in functions_of(app["functions"], app.get("appVersion"))}
    return Replayer(call, signing_key=signing_key, clock=clock, functions=functions)


def _doubt(outcome: Outcome) -> str | None:
    """Why nothing follows from this outcome, or None."""
    if not isinstance(outcome, CallFailed):
        return None
    if outcome.failure.name == WOULD_ACT:
        return f"it acts outside of its steps: {outcome.failure.message}"
    return outcome.failure.message if outcome.failure.name in ("AnswerRefused", "AnswerInvalid") else None


def _cannot(history: History, passes: int, reason: str) -> Replayed:
    return Replayed(run_id=history.run_id, fn_id=history.fn_id, verdict=Verdict.CANNOT, passes=passes, reason=reason)


def _replayed(history: History, passes: int, difference: ReplayDifference | None) -> Replayed:
    verdict = Verdict.SAME if difference is None else Verdict.DIFFERENT
    return Replayed(run_id=history.run_id, fn_id=history.fn_id, verdict=verdict, passes=passes, difference=difference)
