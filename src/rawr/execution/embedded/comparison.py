"""What the code asks for, pass after pass, against what the history of a run has: the first difference. No I/O.

Calls made between two steps of a group differ from what the engine did; therefore a step counts as asked for from the
first pass on that asks for it, and an unknown one only if it is still wanted at the end.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.execution.embedded.history import History, Step
from rawr.execution.embedded.model import EngineRunStatus, StepOp
from rawr.execution.embedded.outcomes import (
    AppUnreachable,
    CallFailed,
    DiscoveryWanted,
    EventAwaited,
    Failure,
    FunctionFinished,
    FunctionInvoked,
    FunctionReturned,
    Op,
    OpsAnswered,
    Outcome,
    Sleeping,
    StepErrored,
    StepPlanned,
    StepRan,
    UnsupportedOp,
)

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


class ReplayDifference(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The first place where the code does not do what the history has."""

    at_pass: int
    """How many steps were remembered when it showed; 0 is the first call."""
    history: str
    code: str

    def __str__(self) -> str:
        return f"after {self.at_pass} steps the history has {self.history}, and the code {self.code}"


class Comparison:
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
    steps = [_step(op) for op in outcome.ops] if isinstance(outcome, OpsAnswered) else []
    return [step for step in steps if step is not None]


def _step(op: Op) -> Step | None:
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
        case FunctionReturned() | DiscoveryWanted():
            return None  # an end, and a question to us


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
        case AppUnreachable():
            return "does not answer"
        case OpsAnswered():
            return f"asks for {', '.join(_named(step) for step in _steps_of(outcome)) or 'nothing'}"


def _failed(failure: Failure) -> str:
    return f"{failure.name}: {failure.message[:200]}"


def _short(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:200]} ..."
