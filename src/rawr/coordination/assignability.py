"""Whether every value that one JSON Schema describes is acceptable to another. Pure, conservative, structural.

It judges types, enums, required and optional properties, items and combinations. What it does not know (patterns,
ranges, references) it does not judge; those hold at run time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final, TypeAlias

from rawr.wire import DEPTH_MAX, encode_canonical

COMPARISONS_MAX: Final = 200_000
_ALTERNATIVES: Final = ("anyOf", "oneOf")
_REFERENCES: Final = ("$ref", "$dynamicRef")
_LEVELS_MAX: Final = 2 * DEPTH_MAX  # a level of JSON is a property, an alternative or both

Schema: TypeAlias = dict[str, Any]
All: TypeAlias = tuple[Schema, ...]
"""Schemas that a value fits all of; none of them says anything about it."""


class TooManyComparisonsError(Exception):
    """Alternatives multiply: the answer would take longer than it is worth."""


def is_assignable(output: Any, wanted: Any) -> bool:
    """Whether what `output` allows is within what `wanted` asks for. Both are schemas, `True` and `False` included.

    Raises:
        TooManyComparisonsError: it would take more than `COMPARISONS_MAX` comparisons.
    """
    return Assignability().holds(output, wanted)


class Assignability:
    """Answers whether one schema is within another, as often as its comparisons suffice for."""

    def __init__(self, comparisons_max: int = COMPARISONS_MAX) -> None:
        self._left = comparisons_max

    def holds(self, output: Any, wanted: Any) -> bool:
        return output is False or self._fits(_conjuncts([output]), wanted, _LEVELS_MAX)

    def _fits(self, output: All, wanted: Any, levels: int) -> bool:
        self._spend(1 + len(output))
        if _is_impossible(output) or not (isinstance(wanted, dict) or wanted is False):
            return True
        if levels == 0:
            return False
        split = _split(output)
        if split is not None:
            return all(self._fits(one, wanted, levels - 1) for one in split)
        return wanted is not False and self._fits_one(output, wanted, levels)

    def _fits_one(self, output: All, wanted: Schema, levels: int) -> bool:
        return (
            self._values_fit(output, wanted)
            and _types_fit(output, wanted)
            and self._properties_fit(output, wanted, levels - 1)
            and self._items_fit(output, wanted, levels - 1)
            and all(self._fits(output, one, levels - 1) for one in _listed(wanted, "allOf"))
            and all(
                any(self._fits(output, one, levels - 1) for one in _listed(wanted, keyword))
                for keyword in _ALTERNATIVES
                if keyword in wanted
            )
        )

    def _values_fit(self, output: All, wanted: Schema) -> bool:
        allowed = _values(wanted)
        if allowed is None:
            return True
        given = [values for values in map(_values, output) if values is not None]
        self._spend(len(allowed) + sum(map(len, given)))
        known = {_canonical(value) for value in allowed}
        return any(known.issuperset(map(_canonical, values)) for values in given) or (not given and _refers(output))

    def _properties_fit(self, output: All, wanted: Schema, levels: int) -> bool:
        if not _may_be(output, "object"):
            return True
        asked = _mapping(wanted.get("properties"))
        promised = {name for one in output for name in _names(one.get("required"))}
        self._spend(len(asked) + len(promised))
        if not promised.issuperset(_names(wanted.get("required"))) and not _refers(output):
            return False
        for name, schema in asked.items():
            given = _property(output, name)
            if (given or name in promised) and not self._fits(_conjuncts(given), schema, levels):
                return False
        return self._other_properties_fit(output, wanted, asked, levels)

    def _other_properties_fit(self, output: All, wanted: Schema, asked: Schema, levels: int) -> bool:
        """Properties that `wanted` does not name. That `output` may have some of which it says nothing is accepted."""
        others = wanted.get("additionalProperties", True)
        if others is True or "patternProperties" in wanted:
            return True
        for name in dict.fromkeys(name for one in output for name in _mapping(one.get("properties"))):
            if name not in asked and not self._fits(_conjuncts(_property(output, name)), others, levels):
                return False
        unnamed = [one["additionalProperties"] for one in output if "additionalProperties" in one]
        return not unnamed or others is False or self._fits(_conjuncts(unnamed), others, levels)

    def _items_fit(self, output: All, wanted: Schema, levels: int) -> bool:
        if "items" not in wanted or not _may_be(output, "array"):
            return True
        if "prefixItems" in wanted or any("prefixItems" in one for one in output) or _refers(output):
            return True
        given = [one["items"] for one in output if "items" in one]
        if not given and not any("array" in (_types(one) or ()) for one in output):
            return True
        return self._fits(_conjuncts(given), wanted["items"], levels)

    def _spend(self, comparisons: int) -> None:
        self._left -= comparisons
        if self._left < 0:
            raise TooManyComparisonsError


_IMPOSSIBLE: Final[Schema] = {"enum": []}


def _conjuncts(schemas: Iterable[Any]) -> All:
    """`schemas` and, in their place, what their `allOf` lists. What is no schema says nothing."""
    found: list[Schema] = []
    waiting = list(schemas)[::-1]
    while waiting:
        one = waiting.pop()
        if one is False:
            found.append(_IMPOSSIBLE)
        elif isinstance(one, dict):
            found.append(one)
            waiting.extend(_listed(one, "allOf")[::-1])
    return tuple(found)


def _is_impossible(output: All) -> bool:
    return any(one.get("enum") == [] for one in output)


def _split(output: All) -> Iterator[All] | None:
    """One conjunction for each alternative that the first schema with alternatives gives."""
    for index, one in enumerate(output):
        for keyword in _ALTERNATIVES:
            if isinstance(one.get(keyword), list):
                rest = {key: value for key, value in one.items() if key not in (keyword, "allOf")}
                around = (*output[:index], rest, *output[index + 1 :])
                return ((*around, *_conjuncts([alternative])) for alternative in one[keyword])
    return None


def _refers(output: All) -> bool:
    return any(keyword in one for one in output for keyword in _REFERENCES)


def _property(output: All, name: str) -> list[Any]:
    """What is said about one property: by name, else by what is said about properties without one."""
    said: list[Any] = []
    for one in output:
        named = _mapping(one.get("properties"))
        if name in named:
            said.append(named[name])
        elif "additionalProperties" in one and "patternProperties" not in one:
            said.append(one["additionalProperties"])
    return said


def _values(schema: Schema) -> list[Any] | None:
    """The only values that a schema allows, when it lists them."""
    if "const" in schema:
        return [schema["const"]]
    listed = schema.get("enum")
    return listed if isinstance(listed, list) else None


def _canonical(value: Any) -> bytes:
    """JSON has one kind of number: `1.0` is `1`."""
    return encode_canonical(int(value) if isinstance(value, float) and value.is_integer() else value)


def _types(schema: Schema) -> set[str] | None:
    """The JSON types that a schema allows, or None when it does not say."""
    stated = schema.get("type")
    if isinstance(stated, str):
        return {stated}
    if isinstance(stated, list):
        return set(_names(stated))
    values = _values(schema)
    return None if values is None else {_type_of(value) for value in values}


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "integer" if value.is_integer() else "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _may_be(output: All, name: str) -> bool:
    return all(name in types for types in map(_types, output) if types is not None)


def _types_fit(output: All, wanted: Schema) -> bool:
    accepted = _types({"type": wanted.get("type")})
    if accepted is None:
        return True
    if "number" in accepted:
        accepted.add("integer")
    given = [types for types in map(_types, output) if types is not None]
    if any(types <= accepted for types in given):
        return True
    return _refers(output) and not any(types.isdisjoint(accepted) for types in given)


def _mapping(value: Any) -> Schema:
    return value if isinstance(value, dict) else {}


def _listed(schema: Schema, keyword: str) -> list[Any]:
    listed = schema.get(keyword)
    return listed if isinstance(listed, list) else []


def _names(value: Any) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()
