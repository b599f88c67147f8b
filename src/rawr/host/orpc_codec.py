"""The envelope of `/rpc`: `{"json": …, "meta": [[type, …path], …]}` to values and back. Pure.

`meta` tags places in `json` that hold what JSON cannot say (dates, big integers, sets …). It comes from the
caller, so a tag may only touch a place that exists in the document itself; anything else refuses the whole
request. Regular expressions are carried as text and never compiled. Files, streams and batches are not spoken.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.wire import DEPTH_MAX, JsonValue, decode

META_MAX: Final = 10_000
BIGINT_DIGITS_MAX: Final = 4300

_BIGINT: Final = re.compile(r"-?[0-9]+\Z")
_DATE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S")
_INDEX: Final = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


class Kind(IntEnum):
    BIGINT = 0
    DATE = 1
    NAN = 2
    UNDEFINED = 3
    URL = 4
    REGEXP = 5
    SET = 6
    MAP = 7


class Tagged(msgspec.Struct, frozen=True, kw_only=True):
    """A value that JSON has no form for. It fits no JSON type, so a schema that wants a string refuses it."""

    kind: Kind
    value: JsonValue


class MalformedEnvelopeError(BadInputError):
    code = "MALFORMED_ENVELOPE"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    value: JsonValue | msgspec.UnsetType = msgspec.UNSET
    """UNSET when the envelope holds no value."""
    is_tagged: bool = False
    """Whether there may be `Tagged` places in the value."""


def decode_envelope(raw: bytes) -> Envelope:
    """The value in an envelope, with its tagged places as `Tagged`.

    Raises:
        MalformedEnvelopeError: `meta` breaks a rule, or the document is `null`.
        MalformedJsonError: not JSON as we accept it.
    """
    document = decode(raw)
    if document is None:
        raise MalformedEnvelopeError("the envelope is null")
    if not isinstance(document, dict):
        return Envelope()  # a bare value has no `json` in it
    meta = document.get("meta")
    if meta is None or meta == []:
        return Envelope(value=document.get("json", msgspec.UNSET))
    if not isinstance(meta, list) or len(meta) > META_MAX:
        raise MalformedEnvelopeError(f"meta is not a list of at most {META_MAX} tags")
    # The holder makes the root an ordinary place, so that a tag without a path needs no case of its own.
    holder: dict[str, JsonValue] = {"json": document.get("json", msgspec.UNSET)}
    for tag in meta:
        _apply_tag(holder, tag)
    return Envelope(value=holder.get("json", msgspec.UNSET), is_tagged=True)


def encode_envelope(value: object) -> bytes:
    """`{"json":…}` of a value that JSON can say."""
    return b'{"json":' + msgspec.json.encode(value) + b"}"


def plain(value: JsonValue) -> JsonValue:
    """`value` with every `Tagged` in its JSON form, for places whose schema takes anything."""
    if isinstance(value, Tagged):
        return plain(value.value)
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        return [plain(child) for child in value]
    return value


def _apply_tag(holder: dict[str, JsonValue], tag: JsonValue) -> None:
    if not isinstance(tag, list):
        raise MalformedEnvelopeError("a tag in meta is not a list")
    kind = _kind(tag[0]) if tag else None
    if kind is None:
        return  # a tag of a kind we do not know says nothing about our values
    parent, last = _place(holder, tag[1:])
    if kind is Kind.UNDEFINED and isinstance(parent, dict):
        _tagged_value(kind, parent[last])
        del parent[last]
        return
    parent[last] = _tagged_value(kind, parent[last])


def _kind(number: JsonValue) -> Kind | None:
    is_known = type(number) is int and 0 <= number <= Kind.MAP
    return Kind(number) if is_known else None


def _place(holder: dict[str, JsonValue], path: list[JsonValue]) -> tuple[JsonValue, JsonValue]:
    """The container and the key of the tagged place. Every step must exist as an own key or index."""
    if len(path) > DEPTH_MAX:
        raise MalformedEnvelopeError(f"a path in meta is longer than {DEPTH_MAX}")
    parent: JsonValue = holder
    key: JsonValue = "json"
    for segment in path:
        parent = parent[key]
        key = _own_key(parent, segment)
    return parent, key


def _own_key(node: JsonValue, segment: JsonValue) -> JsonValue:
    if isinstance(node, dict) and isinstance(segment, str) and segment in node:
        return segment
    if isinstance(node, list):
        # `type`, not `isinstance`: True is an int and must not be an index.
        index = int(segment) if isinstance(segment, str) and _INDEX.match(segment) else segment
        if type(index) is int and 0 <= index < len(node):
            return index
    raise MalformedEnvelopeError("a path in meta leads to no place in json")


def _tagged_value(kind: Kind, value: JsonValue) -> JsonValue:
    if not _fits(kind, value):
        raise MalformedEnvelopeError(f"a place that meta tags as {kind.name.lower()} holds something else")
    match kind:
        case Kind.UNDEFINED:
            return None
        case Kind.DATE:
            is_date = isinstance(value, str) and _DATE.match(value) is not None
            return Tagged(kind=kind, value=value if is_date else None)
        case _:
            return Tagged(kind=kind, value=value)


def _fits(kind: Kind, value: JsonValue) -> bool:
    match kind:
        case Kind.BIGINT:
            return isinstance(value, str) and len(value) <= BIGINT_DIGITS_MAX and _BIGINT.match(value) is not None
        case Kind.DATE:
            return value is None or isinstance(value, str)
        case Kind.NAN | Kind.UNDEFINED:
            return value is None
        case Kind.URL:
            return isinstance(value, str) and _URL.match(value) is not None
        case Kind.REGEXP:
            return isinstance(value, str) and _is_regexp(value)
        case Kind.SET:
            return isinstance(value, list)
        case Kind.MAP:
            return isinstance(value, list) and all(isinstance(entry, list) for entry in value)


def _is_regexp(text: str) -> bool:
    flags = text.rpartition("/")[2]
    return (
        text.startswith("/")
        and text.rfind("/") > 0
        and len(set(flags)) == len(flags)
        and set(flags) <= set("dgimsuvy")
        and not {"u", "v"} <= set(flags)
    )
