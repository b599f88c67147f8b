"""How much work checking a value against a JSON Schema can be, at worst. Pure.

A few short lines of `allOf` and `$ref` can make a check take for ever, within the value's first level or by
doubling at every level below. So a schema is measured when it is saved, and a value when it is checked.
"""

from __future__ import annotations

from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Final
from urllib.parse import unquote

import msgspec

from rawr.wire import DEPTH_MAX, JsonValue

VISITS_MAX: Final = 1000
"""Steps that a schema may take at one place of a value, without looking deeper into it."""
PARTS_MAX: Final = 2000
"""Subschemas of one schema."""
STEPS_MAX: Final = 5_000_000
"""Steps for one value: about half a second."""
LEVELS: Final = DEPTH_MAX + 2

_UNEVALUATED: Final = ("unevaluatedProperties", "unevaluatedItems")
_UNEVALUATED_FACTOR: Final = 3  # measured: each of them asks the schemas beside it again
_IN_PLACE: Final = ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
_ONE_PER_CHILD: Final = ("properties", "additionalProperties", "prefixItems", "items")
_EACH_FOR_A_CHILD: Final = ("patternProperties", "propertyNames", "contains", *_UNEVALUATED)
_MAPS: Final = frozenset({"properties", "patternProperties", "dependentSchemas", "dependencies"})
_CAP: Final = 10**12

Schema = dict[str, JsonValue]


class UncheckableSchemaError(Exception):
    """Checking a value against the schema could take too long, or a reference cannot be followed."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    """A subschema, and those it leads to, by identity."""

    in_place: tuple[int, ...]
    one_per_child: tuple[int, ...]
    each_for_a_child: tuple[int, ...]
    factor: int


def visits_by_depth(schema: Schema) -> tuple[int, ...]:
    """How often a part of a value can be looked at, by how deep it lies (0 is the value itself), at most `_CAP`.

    Raises:
        UncheckableSchemaError: a reference leads to itself or elsewhere, or one place needs too many steps.
    """
    parts = _parts(schema)
    order = _inner_first(parts)
    here = _visits(parts, order, None)
    if max(here.values()) > VISITS_MAX:
        raise UncheckableSchemaError(f"checking it could take more than {VISITS_MAX} steps at one place of a value")
    visits = [here[id(schema)]]
    while len(visits) < LEVELS:
        if any(here.values()):  # else the schema says nothing about what lies deeper
            here = _visits(parts, order, here)
        visits.append(here[id(schema)])
    return tuple(visits)


def _visits(parts: dict[int, _Part], order: tuple[int, ...], below: dict[int, int] | None) -> dict[int, int]:
    """For each part the visits of a place as many levels deeper than it as in `below`, and one more."""
    here: dict[int, int] = {}
    for key in order:
        part = parts[key]
        own = 1 if below is None else _visits_of_a_child(part, below)
        here[key] = min(part.factor * (own + sum(here[branch] for branch in part.in_place)), _CAP)
    return here


def steps_to_check(visits: tuple[int, ...], value: JsonValue) -> int | None:
    """The steps that checking `value` can take, or None when it is nested deeper than JSON may be here."""
    steps = 0
    level: list[JsonValue] = [value]
    for count in visits:
        steps += count * len(level)
        level = [child for node in level for child in _children(node)]
        if not level:
            return steps
    return None


def _children(node: JsonValue) -> Iterator[JsonValue]:
    if isinstance(node, dict):
        yield from node.values()
    elif isinstance(node, list):
        yield from node


def _visits_of_a_child(part: _Part, below: dict[int, int]) -> int:
    most = max((below[key] for key in part.one_per_child), default=0)
    return most + sum(below[key] for key in part.each_for_a_child)


def _parts(root: Schema) -> dict[int, _Part]:
    """Every subschema that checking can reach."""
    parts: dict[int, _Part] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in parts:
            continue
        if len(parts) == PARTS_MAX:
            raise UncheckableSchemaError(f"it has more than {PARTS_MAX} parts")
        if node is not root and isinstance(node.get("$id"), str):
            raise UncheckableSchemaError("an $id below the top is not supported: it changes what $ref means")
        in_place = [*_subschemas(node, _IN_PLACE), *_referred(root, node)]
        one_per_child = list(_subschemas(node, _ONE_PER_CHILD))
        each_for_a_child = list(_subschemas(node, _EACH_FOR_A_CHILD))
        parts[id(node)] = _Part(
            in_place=tuple(map(id, in_place)),
            one_per_child=tuple(map(id, one_per_child)),
            each_for_a_child=tuple(map(id, each_for_a_child)),
            factor=_UNEVALUATED_FACTOR ** sum(keyword in node for keyword in _UNEVALUATED),
        )
        waiting.extend((*in_place, *one_per_child, *each_for_a_child))
    return parts


def _inner_first(parts: dict[int, _Part]) -> tuple[int, ...]:
    try:
        return tuple(TopologicalSorter({key: part.in_place for key, part in parts.items()}).static_order())
    except CycleError as error:
        raise UncheckableSchemaError("a $ref leads back to itself without looking deeper into the value") from error


def _subschemas(node: Schema, keywords: tuple[str, ...]) -> Iterator[Schema]:
    for keyword in keywords:
        given = node.get(keyword)
        if isinstance(given, dict):
            found: list[JsonValue] = list(given.values()) if keyword in _MAPS else [given]
        else:
            found = given if isinstance(given, list) else []
        yield from (one for one in found if isinstance(one, dict))


def _referred(root: Schema, node: Schema) -> Iterator[Schema]:
    if isinstance(node.get("$dynamicRef"), str):
        raise UncheckableSchemaError("$dynamicRef is not supported")
    reference = node.get("$ref")
    if not isinstance(reference, str):
        return
    if reference != "#" and not reference.startswith("#/"):
        raise UncheckableSchemaError(f"$ref {reference[:200]} must name a place in the schema itself, as #/… does")
    target = _at(root, unquote(reference[1:]))
    if isinstance(target, dict):
        yield target


def _at(root: Schema, pointer: str) -> JsonValue:
    """The part of `root` that a JSON pointer names; None when there is none (the library says so)."""
    node: JsonValue = root
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(node, dict):
            node = node.get(key)
        elif isinstance(node, list) and key.isascii() and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return None
    return node
