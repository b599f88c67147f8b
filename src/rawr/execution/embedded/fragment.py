"""Pieces of JSON text that are written once and then only put together, with their canonical form beside them.

The signature of a call covers the RFC 8785 form of a body that holds everything the run has done so far. Kept as
text, an event or a step's result is canonicalised once, not again in every later call of its run. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from rawr.execution.signing import NotCanonicalError, canonical, is_plainly_canonical
from rawr.wire import JsonValue, encode_canonical


class Fragment(msgspec.Struct, frozen=True):
    """JSON text, and its canonical form when that is another text (big integers, floats, rare keys)."""

    text: bytes
    canonical: bytes | None = None

    @property
    def signed(self) -> bytes:
        return self.text if self.canonical is None else self.canonical

    @property
    def size_bytes(self) -> int:
        return len(self.text)

    def value(self) -> JsonValue:
        return msgspec.json.decode(self.text)


NULL = Fragment(b"null")


def fragment(value: JsonValue) -> Fragment:
    """The text of a JSON value, keys sorted.

    Raises:
        NotCanonicalError: it could never be part of a signed call.
    """
    try:
        text = encode_canonical(value)
    except (OverflowError, UnicodeEncodeError, TypeError, RecursionError) as error:
        raise NotCanonicalError(f"cannot be written as JSON: {error}") from error
    if is_plainly_canonical(text) and _is_simple(value):
        return Fragment(text)
    signed = canonical(value)
    return Fragment(text, None if signed == text else signed)


def _is_simple(value: JsonValue) -> bool:
    """Whether it is JSON for sure: msgspec would write other values as well, and NaN as null. Other keys it refuses."""
    if isinstance(value, dict):
        return all(map(_is_simple, value.values()))
    if isinstance(value, list):
        return all(map(_is_simple, value))
    return value is None or type(value) in (str, int, bool)


def read_fragment(value: JsonValue) -> Fragment:
    """`fragment` of a value that was read from JSON, so that what is written is JSON again.

    Raises:
        NotCanonicalError: it could never be part of a signed call.
    """
    try:
        text = encode_canonical(value)
    except (UnicodeEncodeError, RecursionError) as error:
        raise NotCanonicalError(f"cannot be written as JSON: {error}") from error
    # `null` may have been NaN, which `fragment` refuses.
    is_plain = b"null" not in text and is_plainly_canonical(text)
    return Fragment(text) if is_plain else fragment(value)


def frame(parts: dict[str, Any]) -> Fragment:
    """One object out of fragments and plain values. Keys and plain values must be ASCII text or small integers.

    Fragments may lie in lists and dicts. For such a frame msgspec's sorted text equals RFC 8785.
    """
    text = encode_canonical(_filled(parts, signed=False))
    if not _any_differs(parts):
        return Fragment(text)
    return Fragment(text, encode_canonical(_filled(parts, signed=True)))


def joined(*pieces: bytes | Fragment) -> Fragment:
    """One value out of the pieces of its text. Bytes must be canonical already."""
    text = b"".join([piece if isinstance(piece, bytes) else piece.text for piece in pieces])
    if not any(isinstance(piece, Fragment) and piece.canonical is not None for piece in pieces):
        return Fragment(text)
    return Fragment(text, b"".join([piece if isinstance(piece, bytes) else piece.signed for piece in pieces]))


def _filled(part: Any, *, signed: bool) -> Any:
    match part:
        case Fragment():
            return msgspec.Raw(part.signed if signed else part.text)
        case dict():
            return {key: _filled(value, signed=signed) for key, value in part.items()}
        case list():
            return [_filled(value, signed=signed) for value in part]
        case _:
            return part


def _any_differs(part: Any) -> bool:
    match part:
        case Fragment():
            return part.canonical is not None
        case dict():
            return any(_any_differs(value) for value in part.values())
        case list():
            return any(_any_differs(value) for value in part)
        case _:
            return False
