"""When what one desk gives is good enough for what the next one asks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawr.coordination.assignability import Assignability, TooManyComparisonsError, is_assignable
from rawr.coordination.schemas import SchemaChecker

TEXT: dict[str, Any] = {"type": "string"}
NUMBER: dict[str, Any] = {"type": "number"}
INTEGER: dict[str, Any] = {"type": "integer"}


def has(name: str, schema: Any, *, required: bool = True) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name] if required else []}


FITS: list[tuple[Any, Any]] = [
    ({}, {}),
    (True, {}),
    (False, TEXT),
    (TEXT, {}),
    (TEXT, True),
    (INTEGER, NUMBER),
    (TEXT, {"type": ["string", "null"]}),
    ({"enum": ["a"]}, {"enum": ["a", "b"]}),
    ({"const": 1}, {"enum": [1.0]}),
    ({"enum": [1, 2.0]}, INTEGER),
    ({"const": "a"}, TEXT),
    (has("a", INTEGER), has("a", NUMBER)),
    (has("a", TEXT), has("a", TEXT, required=False)),
    (has("b", TEXT), has("a", TEXT, required=False)),
    ({"required": ["a"], "type": "object"}, {"required": ["a"], "type": "object"}),
    (TEXT, {"required": ["a"]}),
    (TEXT, {"items": NUMBER}),
    ({"type": "array", "items": INTEGER}, {"type": "array", "items": NUMBER}),
    (has("a", TEXT), {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}),
    (has("ab", TEXT), {"type": "object", "patternProperties": {"^a": TEXT}, "additionalProperties": False}),
    (has("a", TEXT), {"type": "object", "additionalProperties": TEXT}),
    ({"anyOf": [TEXT, INTEGER]}, {"type": ["string", "number"]}),
    ({"oneOf": [TEXT, INTEGER]}, {"anyOf": [NUMBER, TEXT]}),
    ({"type": "object", "oneOf": [has("a", TEXT), has("b", TEXT)]}, {"type": "object"}),
    ({"allOf": [has("a", TEXT), has("b", TEXT)]}, {"allOf": [has("a", TEXT), has("b", TEXT)]}),
    ({"allOf": [has("a", TEXT)], "required": ["b"], "properties": {"b": TEXT}}, has("b", TEXT)),
    ({"$ref": "#/$defs/a", "$defs": {"a": TEXT}}, TEXT),
    ({"type": "object", "$ref": "#/$defs/a"}, has("a", TEXT)),
]
CLASHES: list[tuple[Any, Any]] = [
    ({}, TEXT),
    (True, TEXT),
    (TEXT, False),
    (NUMBER, INTEGER),
    (TEXT, NUMBER),
    ({"type": ["string", "null"]}, TEXT),
    ({"enum": ["a", "c"]}, {"enum": ["a", "b"]}),
    (TEXT, {"enum": ["a"]}),
    ({"const": True}, {"const": 1}),
    ({"enum": [1, 2.5]}, INTEGER),
    ({"type": "object"}, has("a", TEXT)),
    (has("a", TEXT, required=False), has("a", TEXT)),
    (has("a", TEXT), has("a", NUMBER)),
    (has("a", TEXT, required=False), has("a", NUMBER, required=False)),
    ({"type": "object", "additionalProperties": TEXT}, has("a", NUMBER, required=False)),
    (has("a", has("b", TEXT)), has("a", has("b", NUMBER))),
    ({"type": "object"}, {"required": ["a"]}),
    ({"type": "array", "items": TEXT}, {"type": "array", "items": NUMBER}),
    ({"type": "array"}, {"type": "array", "items": NUMBER}),
    ({"items": TEXT}, {"items": NUMBER}),
    (has("b", TEXT), {"type": "object", "properties": {"a": TEXT}, "additionalProperties": False}),
    (has("a", NUMBER), {"type": "object", "additionalProperties": TEXT}),
    ({"anyOf": [TEXT, NUMBER]}, TEXT),
    ({"oneOf": [has("a", TEXT), has("b", TEXT)]}, has("a", TEXT)),
    (TEXT, {"anyOf": [NUMBER, {"type": "null"}]}),
    (TEXT, {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}),
    (has("a", TEXT), {"allOf": [has("a", TEXT), has("b", TEXT)]}),
    ({"type": "string", "$ref": "#/$defs/a"}, NUMBER),
]


@pytest.mark.parametrize(("output", "wanted"), FITS)
def test_an_output_within_what_is_asked_fits(output: Any, wanted: Any) -> None:
    assert is_assignable(output, wanted)


@pytest.mark.parametrize(("output", "wanted"), CLASHES)
def test_an_output_beyond_what_is_asked_does_not_fit(output: Any, wanted: Any) -> None:
    assert not is_assignable(output, wanted)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": 5},
        {"type": [{}, None]},
        {"properties": 1, "required": "abc"},
        {"properties": {"a": 5}, "required": [{}, "a"]},
        {"anyOf": [5, None]},
        {"allOf": {}},
        {"items": [1]},
        {"enum": {}},
        {"additionalProperties": "no"},
    ],
)
def test_what_is_no_schema_is_not_judged_and_breaks_nothing(schema: Any) -> None:
    for other in (schema, {}, TEXT, has("a", TEXT)):
        assert isinstance(is_assignable(schema, other), bool)
        assert isinstance(is_assignable(other, schema), bool)
    assert is_assignable(schema, schema)


def test_alternatives_that_multiply_are_given_up_on() -> None:
    schema: dict[str, Any] = TEXT
    for _ in range(30):
        schema = {"type": "object", "properties": {"a": schema}, "anyOf": [{"required": ["a"]}, {}]}
    with pytest.raises(TooManyComparisonsError):
        is_assignable(schema, schema)


def test_the_comparisons_of_one_judge_are_used_up_by_all_its_answers() -> None:
    judge = Assignability(comparisons_max=6)
    assert judge.holds(TEXT, TEXT)
    assert judge.holds(TEXT, TEXT)
    with pytest.raises(TooManyComparisonsError):
        judge.holds(has("a", TEXT), has("a", TEXT))


names = st.sampled_from(["a", "b", "c"])
leaves: st.SearchStrategy[Any] = st.one_of(
    st.booleans(),
    st.just({}),
    st.builds(lambda name: {"type": name}, st.sampled_from(["string", "number", "integer", "null", "boolean"])),
    st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from(["x", 1, 1.5, None, True]), min_size=1)),
)


def _bigger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    properties = st.dictionaries(names, inner, max_size=2)
    return st.one_of(
        st.builds(
            lambda kind, of: {kind: of}, st.sampled_from(["anyOf", "oneOf", "allOf"]), st.lists(inner, max_size=2)
        ),
        st.builds(lambda of: {"type": "array", "items": of}, inner),
        st.builds(
            lambda of, required, more: {"type": "object", "properties": of, "required": required, **more},
            properties,
            st.lists(names, max_size=2),
            st.one_of(st.just({}), st.builds(lambda of: {"additionalProperties": of}, inner)),
        ),
        st.builds(lambda of, one: {"properties": of, "anyOf": [one, {"required": ["a"]}]}, properties, inner),
    )


schemas: st.SearchStrategy[Any] = st.recursive(leaves, _bigger, max_leaves=6)


@given(schemas)
def test_every_schema_fits_itself(schema: Any) -> None:
    assert is_assignable(schema, schema)


@given(schemas, schemas, schemas)
def test_an_alternative_in_the_output_fits_when_all_do(one: Any, other: Any, wanted: Any) -> None:
    both = is_assignable(one, wanted) and is_assignable(other, wanted)
    assert is_assignable({"anyOf": [one, other]}, wanted) == both


def _told_in_full(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Objects that say all about their properties, for what is left open is accepted on purpose."""
    properties = st.fixed_dictionaries({"a": inner, "b": inner})
    closed = {"additionalProperties": False}
    return st.one_of(
        st.builds(
            lambda kind, of: {kind: of}, st.sampled_from(["anyOf", "allOf"]), st.lists(inner, min_size=1, max_size=2)
        ),
        st.builds(lambda of: {"type": "array", "items": of}, inner),
        st.builds(
            lambda of, required: {"type": "object", "properties": of, "required": required, **closed},
            properties,
            st.lists(st.sampled_from(["a", "b"]), max_size=2, unique=True),
        ),
    )


told_in_full = st.recursive(leaves, _told_in_full, max_leaves=6)
values: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, "x", "y", 1, 1.0, 1.5]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=200)
@given(told_in_full, told_in_full, st.lists(values, min_size=8, max_size=8))
def test_no_value_that_the_output_allows_is_refused_by_what_it_fits(output: Any, wanted: Any, some: list[Any]) -> None:
    checker = SchemaChecker()
    if is_assignable(output, wanted):
        allowed = [value for value in some if not checker.issues({"allOf": [output]}, value)]
        assert not [value for value in allowed if checker.issues({"allOf": [wanted]}, value)]


@given(told_in_full, told_in_full, told_in_full)
def test_more_said_about_an_output_never_makes_it_fit_less(output: Any, more: Any, wanted: Any) -> None:
    if is_assignable(output, wanted):
        assert is_assignable({"allOf": [output, more]}, wanted)
