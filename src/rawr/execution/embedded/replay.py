"""Replay: the recorded history of a run against the code that there is now, without doing any of it again.

The function is called as the engine calls it, pass after pass, with the first of its memos, then two, until all. It
is told to plan its steps and not to run them, so no step's body is ever entered. What it asks for is compared with
what it asked for then. Calls made between two steps of a group differ from what the engine did; therefore a step
counts as asked for from the first pass on that asks for it, and an unknown one only if it is still wanted at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.execution.embedded.fragment import fragment, frame
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.history import History, Step
from rawr.execution.embedded.model import EngineRunStatus, StepOp
from rawr.execution.embedded.outcomes import (
    CallFailed,
    EventAwaited,
    Failure,
    FunctionFinished,
    FunctionInvoked,
    Op,
    OpsAnswered,
    Outcome,
    Sleeping,
    StepErrored,
    StepPlanned,
    StepRan,
    UnsupportedOp,
)
from rawr.execution.embedded.protocol import ROOT_STEP, Call, call_request, parse_answer, parse_functions, sync_request
from rawr.execution.embedded.registration import functions_of
from rawr.execution.ports import EngineCall

PASS_TIMEOUT_S: Final = 60.0
WOULD_ACT: Final = "WouldActError"
"""The name of the error that whatever must not happen in a replay raises; the SDK hands on names only."""
_OURS: Final = frozenset(
    {
        "HostDied",
        "TooManySteps",
        "RunStateTooLarge",
        "UnsupportedStep",
        "SleepInvalid",
        "WaitInvalid",
        "InvokeInvalid",
        "NothingToDo",
        "AnswerRefused",
        "AnswerInvalid",
        "CallFailed",
        "CodeUnknown",
        "OutputTooLarge",
    }
)
"""Failures that the engine made: what the function would have done instead is not recorded."""


class Verdict(StrEnum):
    SAME = "same"
    DIFFERENT = "different"
    CANNOT = "cannot"
    """The code does something outside of its steps, or is not there: nothing can be said."""


class ReplayDifference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first place where the code does not do what the history has."""

    at_pass: int
    """How many steps were remembered when it showed; 0 is the first call."""
    history: str
    code: str

    def __str__(self) -> str:
        return f"after {self.at_pass} steps the history has {self.history}, and the code {self.code}"


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
        judge = _Judge(history)
        for count in range(len(history.steps) + 1):
            try:
                outcome = await self._pass(history, count, function.max_attempts)
            except TimeoutError:
                return _cannot(history, count, f"a call was not answered within {PASS_TIMEOUT_S:g} s")
            doubt = _doubt(outcome)
            if doubt is not None:
                return _cannot(history, count, doubt)
            difference = judge.see(count, outcome)
            if difference is not None:
                return _replayed(history, count + 1, difference)
        return _replayed(history, len(history.steps) + 1, judge.end())

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
            steps=count,
            stack=fragment([step.step.step_id for step in done]),
            memos=frame({step.step.step_id: step.memo for step in done}),
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
        return parse_answer(answer, keys=(self._key,))


async def synced(call: EngineCall, *, signing_key: str, clock: Clock, serve_url: str) -> Replayer:
    """A replayer of the functions that answer behind `call`.

    Raises:
        SyncRefusedError, UnsupportedFunctionError
    """
    request = sync_request(serve_url, key=signing_key, t=clock.now_ms() // 1000)
    app = parse_functions(await call("PUT", request.query, request.headers, request.body), keys=(signing_key,))
    functions = {function.fn_id: function for function in functions_of(app["functions"], app.get("appVersion"))}
    return Replayer(call, signing_key=signing_key, clock=clock, functions=functions)


class _Judge:
    """Compares what the code asks for, pass after pass, with the history."""

    def __init__(self, history: History) -> None:
        self._history = history
        known = [step.step for step in history.steps] + list(history.ahead)
        self._known = {step.step_id: step for step in known}
        self._asked_at: dict[str, int] = {}
        self._asked: dict[str, Step] = {}
        self._last: Outcome = OpsAnswered(ops=())
        self._outcomes: list[Outcome] = []

    def see(self, count: int, outcome: Outcome) -> ReplayDifference | None:
        self._last = outcome
        self._outcomes.append(outcome)
        for step in _steps_of(outcome):
            self._asked_at.setdefault(step.step_id, count)
            self._asked[step.step_id] = step
            known = self._known.get(step.step_id)
            if known is not None and (changed := _changed(known, step)) is not None:
                return ReplayDifference(at_pass=count, history=_named(known), code=f"asks for {changed}")
        if count < len(self._history.steps):
            expected = self._history.steps[count].step
            if expected.step_id not in self._asked_at:
                return self._missing(count, expected)
        return None

    def end(self) -> ReplayDifference | None:
        count = len(self._history.steps)
        match self._history.status:
            case EngineRunStatus.COMPLETED:
                return self._against_output(count)
            case EngineRunStatus.FAILED:
                return self._against_failure(count)
            case EngineRunStatus.CANCELLED:
                return None
            case _:
                return self._against_what_is_ahead(count)

    def _against_output(self, count: int) -> ReplayDifference | None:
        assert self._history.output is not None
        wanted = self._history.output.value()
        if any(isinstance(seen, FunctionFinished) and seen.output.value() == wanted for seen in self._outcomes):
            return None
        unknown = self._unknown()
        if unknown is not None:
            return unknown
        return ReplayDifference(at_pass=count, history=f"the output {_short(wanted)}", code=_said(self._last))

    def _against_failure(self, count: int) -> ReplayDifference | None:
        """A step that fails for good leaves no memo: then what the code asks for at last cannot be compared."""
        error = self._history.error
        assert error is not None
        if isinstance(self._last, OpsAnswered) or error.name in _OURS:
            return None
        failures = [seen.failure for seen in self._outcomes if isinstance(seen, CallFailed)]
        if any((failure.name, failure.message) == (error.name, error.message) for failure in failures):
            return None
        return ReplayDifference(at_pass=count, history=f"the failure {_failed(error)}", code=_said(self._last))

    def _against_what_is_ahead(self, count: int) -> ReplayDifference | None:
        for step in self._history.ahead:
            if step.step_id not in self._asked_at:
                return self._missing(count, step)
        return None if self._history.may_ask_more else self._unknown()

    def _unknown(self) -> ReplayDifference | None:
        """The first step that the code still wants at the end, and that the history does not have."""
        wanted = [step for step in _steps_of(self._last) if step.step_id not in self._known]
        if not wanted:
            return None
        step = min(wanted, key=lambda one: self._asked_at[one.step_id])
        at_pass = self._asked_at[step.step_id]
        return ReplayDifference(at_pass=at_pass, history="no such step", code=f"asks for {_named(step)}")

    def _missing(self, count: int, expected: Step) -> ReplayDifference:
        return ReplayDifference(at_pass=count, history=_named(expected), code=_said(self._last))


def _steps_of(outcome: Outcome) -> list[Step]:
    return [_step(op) for op in outcome.ops] if isinstance(outcome, OpsAnswered) else []


def _step(op: Op) -> Step:
    match op:
        case StepPlanned() | StepRan() | StepErrored():
            return Step(step_id=op.step_id, name=op.name, op=StepOp.RUN)
        case Sleeping():
            return Step(step_id=op.step_id, name=op.name, op=StepOp.SLEEP)
        case EventAwaited():
            return Step(step_id=op.step_id, name=op.name, op=StepOp.WAIT)
        case FunctionInvoked():
            return Step(step_id=op.step_id, name=op.name, op=StepOp.INVOKE)
        case UnsupportedOp():
            return Step(step_id=op.name, name=op.name, op=None)


def _changed(known: Step, asked: Step) -> str | None:
    """What the code asks for under the id of a known step, if that is something else."""
    other_op = known.op is not None and known.op is not asked.op
    return _named(asked) if other_op or known.name != asked.name else None


def _named(step: Step) -> str:
    return f"{step.op.value if step.op else 'step'} {step.name!r}"


def _said(outcome: Outcome) -> str:
    match outcome:
        case FunctionFinished(output=output):
            return f"ends with {_short(output.value())}"
        case CallFailed(failure=failure):
            return f"fails with {_failed(failure)}"
        case OpsAnswered():
            return f"asks for {', '.join(_named(step) for step in _steps_of(outcome)) or 'nothing'}"


def _failed(failure: Failure) -> str:
    return f"{failure.name}: {failure.message[:200]}"


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:200]} ..."


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
