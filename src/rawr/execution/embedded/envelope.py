"""Streamed answers: an app that streams keeps its connection alive by blanks, and then sends its answer as JSON. Pure.

What is in the envelope is the answer: its status, its headers with the signature, and its body.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

STREAMED: Final = 201
"""The status of an answer that carries the true one inside."""


class Answer(Protocol):
    """An `IngressResponse`, without what else its module knows."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class _Envelope(msgspec.Struct, kw_only=True):
    status: int
    headers: dict[str, str] = {}
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Unwrapped(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


def unwrapped(answer: Answer) -> Answer:
    """The answer inside of a streamed one. A function that streams keeps its connection alive by blanks before it.

    What is not of that form stays as it is, and is refused for its status.
    """
    if answer.status != STREAMED:
        return answer
    try:
        envelope = msgspec.json.decode(answer.body, type=_Envelope)
        body = bytes(envelope.body)
        if body.startswith(b'"'):  # the body as text
            body = msgspec.json.decode(body, type=str).encode()
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return answer
    return _Unwrapped(status=envelope.status, headers={**answer.headers, **envelope.headers}, body=body)
