"""CEL expressions over events: filters, keys and numbers. The only importer of the evaluator.

The names that an expression may use are declared, so that a misspelt one is refused when it is registered. No
extension of the language is switched on: with them, one expression can multiply memory or never end. An expression
that cannot be answered for an event (a field is missing, types do not fit) gives no answer; it never raises.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from cel_expr_python import cel

from rawr.errors import BadInputError
from rawr.wire import JsonValue, encode_canonical

TEXT_MAX: Final = 4000
_COMPILED_MAX: Final = 1000
_DYN: Final = cel.Type.DYN
_ANSWERS: Final = {"condition": (cel.Type.BOOL, _DYN), "number": (cel.Type.INT, cel.Type.DOUBLE, cel.Type.UINT, _DYN)}


class Wanted(StrEnum):
    """What kind of answer an expression is for."""

    CONDITION = "condition"
    NUMBER = "number"
    KEY = "key"


class ExpressionInvalidError(BadInputError):
    """The text is no expression over the declared names, or can never give what it is for."""

    code = "EXPRESSION_INVALID"


class Scope:
    """The events that expressions are about, converted once for however many expressions are asked.

    `event` is the one that triggered (or would trigger) a run; `candidate` the one that may match or cancel it,
    which expressions call `async`.
    """

    def __init__(self, event: JsonValue, candidate: JsonValue = None) -> None:
        self._values = {"event": event} if candidate is None else {"event": event, "async": candidate}
        self._activation: Any = None

    def of(self, environment: Any) -> Any:
        if self._activation is None:
            self._activation = environment.Activation(self._values)
        return self._activation


class Expressions:
    """Compiles each text once. One object serves one store; every text must have passed `check`."""

    def __init__(self) -> None:
        self._environment = _environment("event", "async")
        self._compiled: dict[str, Any] = {}

    def is_true(self, text: str, scope: Scope) -> bool:
        """Whether the condition holds. What cannot be answered does not hold."""
        return self._answer(text, scope) is True

    def key(self, text: str, scope: Scope) -> str | None:
        """The value as canonical JSON text, or None when there is no answer."""
        answer = self._answer(text, scope)
        try:
            return None if answer is _NO_ANSWER else encode_canonical(answer).decode()
        except (TypeError, ValueError):
            return None

    def number(self, text: str, scope: Scope) -> float | None:
        answer = self._answer(text, scope)
        return answer if isinstance(answer, int | float) and not isinstance(answer, bool) else None

    def _answer(self, text: str, scope: Scope) -> Any:
        program = self._compiled.get(text)
        if program is None:
            if len(self._compiled) >= _COMPILED_MAX:
                self._compiled.clear()
            program = self._compiled[text] = _compile(self._environment, text)
        try:
            result = program.eval(scope.of(self._environment))
        except RuntimeError:  # the iteration budget is used up, or a number is beyond 64 bits
            return _NO_ANSWER
        return _NO_ANSWER if result.type() == cel.Type.ERROR else result.plain_value()


def check(text: str, wanted: Wanted, *names: str) -> None:
    """Accept an expression over `names` (`event`, `async`) that can give what is wanted, or raise.

    Raises:
        ExpressionInvalidError: with line and column where there are some.
    """
    if len(text) > TEXT_MAX:
        raise ExpressionInvalidError(f"the expression has {len(text)} characters; the limit is {TEXT_MAX}")
    gives = _compile(_environment(*names), text).return_type()
    if wanted in _ANSWERS and not any(gives == kind for kind in _ANSWERS[wanted]):
        raise ExpressionInvalidError(f"the expression {text!r} gives {gives}; a {wanted} is needed")


_NO_ANSWER: Final = object()


def _environment(*names: str) -> Any:
    return cel.NewEnv(variables=dict.fromkeys(names, _DYN))


def _compile(environment: Any, text: str) -> Any:
    try:
        return environment.compile(text)
    except RuntimeError as error:
        reason = str(error).split("\n")[0].split("<input>:")[-1].removesuffix(" [INVALID_ARGUMENT]")
        raise ExpressionInvalidError(f"the expression {text[:200]!r} cannot be compiled: {reason}") from error
