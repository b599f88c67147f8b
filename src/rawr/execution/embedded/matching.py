"""Finding what an event may concern without asking everybody who waits. Pure.

Most conditions say that a field of the event which came equals a field of the one that triggered the run. That
field of the trigger is known when the wait begins, so such waits are found by its value. It is only how they are
found: the whole condition decides, as for all others.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from rawr.wire import JsonValue, encode_canonical

NEVER: Final = ""
"""The key of a condition that can never hold: the trigger has no such field. No value has this key."""

_LITERAL: Final = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")
# Inside of any of these an equality need not hold for the whole to hold.
_UNCLEAR: Final = re.compile(r"[|?!(){}\[\]'\"\\]")
_PATH: Final = r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
_EQUALITY: Final = re.compile(rf"\s*event\.{_PATH}\s*==\s*async\.{_PATH}\s*\Z")
_SWAPPED: Final = re.compile(rf"\s*async\.{_PATH}\s*==\s*event\.{_PATH}\s*\Z")


class Equality(msgspec.Struct, frozen=True, kw_only=True):
    """What must be equal for a condition to hold: dotted paths into the two events."""

    event_path: str
    async_path: str


def equality_of(condition: str) -> Equality | None:
    """An equality that the condition demands, if it is plain to see."""
    plain = _LITERAL.sub("0", condition)
    if _UNCLEAR.search(plain.replace("!=", "<>")):
        return None
    for part in plain.split("&&"):
        if match := _EQUALITY.match(part):
            return Equality(event_path=match[1], async_path=match[2])
        if match := _SWAPPED.match(part):
            return Equality(event_path=match[2], async_path=match[1])
    return None


def key_at(event: JsonValue, path: str) -> str | None:
    """The same text for all values that a condition would call equal to the one at `path`.

    `NEVER` when nothing is there; None when it is a list or an object, which are not told apart so.
    """
    value = event
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            return NEVER
        value = value[name]
    if isinstance(value, dict | list):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 1 and 1.0 are equal
    return encode_canonical(value).decode()
