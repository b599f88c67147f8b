"""JSON as rawr reads and writes it: camelCase structs, bounded depth, millisecond timestamps. Pure.

Everything that enters as JSON goes through `decode`, so that what is deeper than `DEPTH_MAX`, not UTF-8,
not finite or not JSON is refused at the door and never reaches a library that would crash on it.
"""

from __future__ import annotations

import datetime
from typing import Any, Final, TypeAlias

import msgspec

from rawr.errors import BadInputError

JsonValue: TypeAlias = Any
"""Any JSON value: None, bool, int, float, str, list or dict with str keys."""

DEPTH_MAX: Final = 64
_EPOCH: Final = datetime.datetime(1970, 1, 1)  # noqa: DTZ001 - in UTC, like all that is counted from it


class Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, forbid_unknown_fields=True):
    """Base of every closed object on the wire: snake_case here, camelCase there, absent keys dropped.

    Subclasses repeat `frozen=True, kw_only=True`: type checkers and msgspec do not inherit them.
    """


class MalformedJsonError(BadInputError):
    code = "MALFORMED_JSON"


def encode(value: object) -> bytes:
    """Compact JSON bytes, keys in declaration or insertion order."""
    return msgspec.json.encode(value)


def encode_canonical(value: object) -> bytes:
    """Deterministic JSON bytes (sorted keys) for hashes of our own data. This is not RFC 8785."""
    return msgspec.json.encode(value, order="deterministic")


def decode(raw: bytes | str) -> JsonValue:
    """The JSON value in `raw`.

    Raises:
        MalformedJsonError: not JSON, not UTF-8, a lone surrogate, NaN, or nested deeper than `DEPTH_MAX`.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedJsonError(f"not valid JSON: {error}") from error
    if _brackets(raw) > DEPTH_MAX and not depth_within(value, DEPTH_MAX):
        raise MalformedJsonError(f"JSON is nested deeper than {DEPTH_MAX} levels")
    return value


def _brackets(raw: bytes | str) -> int:
    """How many levels there can be at most."""
    return raw.count(b"[") + raw.count(b"{") if isinstance(raw, bytes) else raw.count("[") + raw.count("{")


def depth_within(value: JsonValue, limit: int) -> bool:
    """Whether no list or object lies deeper than `limit`. Iterative, so that depth cannot exhaust the stack."""
    level: list[JsonValue] = [value]
    for _ in range(limit + 1):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return True
    return False


def iso_from_ms(ms: int) -> str:
    """`2026-11-22T11:37:43.454Z`: UTC with milliseconds, as JavaScript's `toISOString` writes it."""
    return f"{(_EPOCH + datetime.timedelta(seconds=ms // 1000)).isoformat()}.{ms % 1000:03d}Z"
