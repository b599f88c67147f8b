"""What a client makes of the answers of an HQ, however they reached it. Pure.

Also the faults of calling: they are the same over every transport.
"""

from __future__ import annotations

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, TypeVar

import msgspec

from rawr.errors import RawrError
from rawr.wire import JsonValue, MalformedJsonError, decode, encode

T = TypeVar("T")

ATTEMPTS_MAX: Final = 3
PAUSE_MAX_S: Final = 60.0
_LATER: Final = frozenset({429, 503})
_TEXT_CODES: Final = {403: "FORBIDDEN", 404: "NOT_FOUND", 421: "MISDIRECTED_REQUEST"}


class ServerNotRunningError(RawrError):
    """Nothing answers at the address, or what answered went away before it had."""

    code = "SERVER_NOT_RUNNING"


class ServerTimeoutError(RawrError):
    """The server was there and did not answer in time. Whether it acted is not known."""

    code = "SERVER_TIMEOUT"


class ServerAnswerError(RawrError):
    """What answers at the address is not an HQ, or not ours."""

    code = "SERVER_ANSWER_INVALID"


class RemoteError(RawrError):
    """An error that the server answered with, as it stood on the wire."""

    code = "REMOTE_ERROR"

    def __init__(self, code: str, status: int, message: str, *, data: JsonValue = None) -> None:
        super().__init__(message, details=data if isinstance(data, dict) else None)
        # The error *is* the one of the server, so it carries that code, not a code of its own.
        vars(self)["code"] = code
        self.status = status
        self.data = data


class _WireError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    status: int
    message: str
    data: Any = None


def body_of(given: object) -> bytes:
    """The envelope of an input."""
    return b'{"json":' + encode(given) + b"}"


def answer_of(status: int, raw: bytes, expected: type[T], *, source: str) -> T:
    """The output in an answer. `source` names the server and the procedure in messages.

    Raises:
        RemoteError: the answer is an error of the server.
        ServerAnswerError: it is in a form that we do not know.
    """
    value = value_of(status, raw)
    if status != 200:
        raise remote_error(value, source=source)
    return converted(value, expected, source=source)


def value_of(status: int, raw: bytes) -> JsonValue:
    """The value in an envelope; plain texts (403, 404, 421) become errors with the same code."""
    try:
        envelope = decode(raw)
    except MalformedJsonError as error:
        raise RemoteError(_TEXT_CODES.get(status, "SERVER_ANSWER_INVALID"), status, _text(raw)) from error
    if not isinstance(envelope, dict) or "json" not in envelope:
        raise ServerAnswerError(f"the server answered {status} without an envelope")
    return envelope["json"]


def remote_error(value: JsonValue, *, source: str) -> RemoteError:
    error = converted(value, _WireError, source=source)
    return RemoteError(error.code, error.status, error.message, data=error.data)


def converted(value: JsonValue, expected: type[T], *, source: str) -> T:
    try:
        return msgspec.convert(value, expected)
    except msgspec.ValidationError as problem:
        raise ServerAnswerError(f"{source}: the answer has a form that this version does not know: {problem}") from (
            problem
        )


def pause_before_retry_s(status: int, headers: Mapping[str, str], *, attempt: int, now_s: float) -> float | None:
    """How long to wait before the call is made again, or None when the answer is the answer.

    Only a server that says when to come again (429 or 503 with `Retry-After`) has not acted, so only then.
    `attempt` counts from 1; `headers` has lower-case names; `now_s` is for a `Retry-After` that is a date.
    """
    if status not in _LATER or attempt >= ATTEMPTS_MAX:
        return None
    wait_s = _retry_after_s(headers.get("retry-after", ""), now_s)
    return wait_s if wait_s is not None and wait_s <= PAUSE_MAX_S else None


def _retry_after_s(text: str, now_s: float) -> float | None:
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except ValueError:
        return None


def _text(raw: bytes) -> str:
    return raw[:200].decode("utf-8", "replace")
