"""Query strings and form fields as nested values: `a[b]=1`, `a[0]=x`, `a[]=x`, repeated keys. Pure.

The rules are those of the OpenAPI side of oRPC, including its odd corners, so that published clients agree
with us. Two things are ours: nesting is bounded, and so is the number of empty places that `a[9999]=x` makes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rawr.errors import BadInputError
from rawr.wire import DEPTH_MAX, JsonValue

INDEX_MAX: Final = 9999
HOLES_MAX: Final = 10_000

_INDEX: Final = re.compile(r"(0|[1-9][0-9]{0,3})\Z")
_ESCAPE: Final = re.compile(r"\\(.?)", re.DOTALL)


class _Array(dict[int, JsonValue]):
    """An array under construction, by index. A push-style one (`a[]=`) takes no other key than the empty one."""

    pushed = False
    end = 0

    def place(self, index: int, value: JsonValue) -> None:
        self[index] = value
        self.end = max(self.end, index + 1)

    def append(self, value: JsonValue) -> None:
        self.place(self.end, value)


_Node = _Array | dict[str, JsonValue]


def parse_bracketed(pairs: Iterable[tuple[str, JsonValue]]) -> JsonValue:
    """The value that the fields spell: an object, or an array when every root key is an index.

    The leaves are what is given: texts, or the files of a form.

    Raises:
        BadInputError: nested deeper than `DEPTH_MAX`, or with more than `HOLES_MAX` empty places.
    """
    holder: dict[str, JsonValue] = {}
    for key, value in pairs:
        segments = path_segments(key)
        if len(segments) > DEPTH_MAX:
            raise BadInputError(f"fields are nested deeper than {DEPTH_MAX} levels")
        _insert(holder, segments, value)
    return _finished(holder["root"], [HOLES_MAX]) if holder else {}


def path_segments(key: str) -> list[str]:
    """`a[b][]` as `["a", "b", ""]`. Unbalanced brackets are literal; a backslash takes a bracket's meaning away."""
    segments: list[str] = []
    start, inside, escaped = 0, False, False
    for at, char in enumerate(key):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "[" and not inside and not segments:
            segments.append(key[:at])
            start, inside = at + 1, True
        elif char == "]" and inside and key[at + 1 : at + 2] in ("", "["):
            segments.append(key[start:at])
            # The "[" that follows opens the next segment and is not part of it.
            start, inside = at + 2, at + 1 < len(key)
    if inside or not segments:
        return [key]
    return [_ESCAPE.sub(r"\1", segment) for segment in segments]


def _insert(holder: dict[str, JsonValue], segments: list[str], value: JsonValue) -> None:
    parent: _Node = holder
    at: str = "root"
    for depth, segment in enumerate(segments):
        node = _get(parent, at)
        if not isinstance(node, dict):
            node = _Array()
        node = _ready_for(node, segment, last=depth == len(segments) - 1)
        _set(parent, at, node)
        parent, at = node, segment
    _put_leaf(parent, at, value)


def _ready_for(node: _Node, segment: str, *, last: bool) -> _Node:
    """`node`, turned into an object when `segment` does not fit the array that it is."""
    if not isinstance(node, _Array):
        return node
    if last and segment == "":
        if node and not node.pushed:
            return _as_object(node)
        node.pushed = True
        return node
    return _as_object(node) if node.pushed or not _INDEX.match(segment) else node


def _as_object(node: _Array) -> dict[str, JsonValue]:
    if node.pushed:
        return {"": node[0] if len(node) == 1 else node}
    return {str(index): child for index, child in sorted(node.items())}


def _put_leaf(parent: _Node, at: str, value: JsonValue) -> None:
    if isinstance(parent, _Array) and at == "":
        parent.append(value)
        return
    there = _get(parent, at)
    if there is None:
        _set(parent, at, value)
    elif isinstance(there, _Array):
        there.append(value)
    else:
        both = _Array()
        both.append(there)
        both.append(value)
        _set(parent, at, both)


def _get(node: _Node, at: str) -> JsonValue:
    return node.get(int(at)) if isinstance(node, _Array) else node.get(at)


def _set(node: _Node, at: str, value: JsonValue) -> None:
    if isinstance(node, _Array):
        node.place(int(at), value)
    else:
        node[at] = value


def _finished(node: JsonValue, holes_left: list[int]) -> JsonValue:
    if isinstance(node, _Array):
        holes_left[0] -= node.end - len(node)
        if holes_left[0] < 0:
            raise BadInputError(f"array fields leave more than {HOLES_MAX} places empty")
        return [_finished(node.get(index), holes_left) for index in range(node.end)]
    if isinstance(node, dict):
        return {key: _finished(child, holes_left) for key, child in node.items()}
    return node
