"""Values that the envelope of `/rpc` carries and JSON cannot say: tagged places and files. Pure.

Neither is a msgspec struct, on purpose: whoever writes one as plain JSON without noticing gets a TypeError.
"""

from __future__ import annotations

import base64
from enum import IntEnum

from rawr.wire import JsonValue


class Kind(IntEnum):
    BIGINT = 0
    DATE = 1
    NAN = 2
    UNDEFINED = 3
    URL = 4
    REGEXP = 5
    SET = 6
    MAP = 7


class Tagged:
    """A value with its kind, as text or list. It fits no JSON type, so a schema that wants a string refuses it.

    `value` is the JSON form: decimal digits, an ISO date (None for an invalid one), None for NaN and undefined,
    the text of a URL or of `/source/flags`, a list of items or of `[key, value]` pairs.
    """

    __slots__ = ("kind", "value")
    __match_args__ = ("kind", "value")

    def __init__(self, kind: Kind, value: JsonValue) -> None:
        self.kind = kind
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tagged) and (self.kind, self.value) == (other.kind, other.value)

    __hash__ = None  # type: ignore[assignment] # it may hold a list

    def __repr__(self) -> str:
        return f"Tagged({self.kind.name}, {self.value!r})"


class File:
    """A file of a form. `media_type` is what the caller claims, and nothing has checked it."""

    __slots__ = ("content", "media_type", "name")

    def __init__(self, name: str, media_type: str, content: bytes) -> None:
        self.name = name
        self.media_type = media_type
        self.content = content

    def __repr__(self) -> str:
        return f"File({self.name!r}, {self.media_type!r}, {len(self.content)} bytes)"


def plain(value: JsonValue) -> JsonValue:
    """`value` in plain JSON, for places whose schema takes anything.

    A tagged value becomes its JSON form, a file `{"name", "type", "base64"}`.
    """
    match value:
        case Tagged():
            return plain(value.value)
        case File():
            content = base64.b64encode(value.content).decode()
            return {"name": value.name, "type": value.media_type, "base64": content}
        case dict():
            return {key: plain(child) for key, child in value.items()}
        case list():
            return [plain(child) for child in value]
        case _:
            return value
