"""Desk schemas: which are accepted, what they say about a value, and that none can stop the server."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import msgspec
import pytest

from rawr.coordination.desks import starter_workflow
from rawr.coordination.schemas import (
    ISSUES_MAX,
    MESSAGE_MAX,
    SchemaChecker,
    SchemaIssue,
    SchemaRefusedError,
    compile_schema,
    refused_schemas,
)
from rawr.ids import WorkflowId

INTEGER: Final[dict[str, Any]] = {"type": "integer"}
TREE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "left": {"$ref": "#"}, "right": {"$ref": "#"}},
}


def issues(schema: dict[str, Any], value: Any) -> list[str]:
    return [str(issue) for issue in SchemaChecker().issues(schema, value)]


def nested(levels: int, innermost: Any = 1) -> Any:
    for _ in range(levels):
        innermost = {"a": innermost}
    return innermost


def ladder(rungs: int, reference: str, **of_rung: str) -> dict[str, Any]:
    """`$defs` of which each asks for the next one twice: twice the work for every rung."""
    names = [f"d{number}" for number in range(rungs + 1)]
    definitions: dict[str, Any] = {
        name: {
            "allOf": [{"$ref": reference.format(after)}] * 2,
            **{key: text.format(name) for key, text in of_rung.items()},
        }
        for name, after in pairwise(names)
    }
    definitions[names[-1]] = {**INTEGER, **{key: text.format(names[-1]) for key, text in of_rung.items()}}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


def shells(count: int) -> dict[str, Any]:
    """`unevaluatedProperties` around itself: each one asks everything inside it again."""
    schema: dict[str, Any] = {"properties": {"a": INTEGER}}
    for _ in range(count):
        schema = {"allOf": [schema], "unevaluatedProperties": False}
    return schema


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({}, {"anything": [1]}, []),
        (INTEGER, 1.0, []),
        (INTEGER, "b", ['"b" is not of type "integer"']),
        ({"properties": {"a": {"items": INTEGER}}}, {"a": [1, "b"]}, ['a[1]: "b" is not of type "integer"']),
        ({"required": ["a", "b"]}, {}, ['"a" is a required property', '"b" is a required property']),
        ({"multipleOf": 0.01}, 19.99, []),
        (TREE, {"left": {"right": {"name": 5}}}, ['left.right.name: 5 is not of type "string"']),
        (
            {"$ref": "#/$defs/a~1b/allOf/0", "$defs": {"a/b": {"allOf": [INTEGER]}}},
            1.5,
            ['1.5 is not of type "integer"'],
        ),
        ({"$ref": "#/%24defs/a", "$defs": {"a": INTEGER}}, "b", ['"b" is not of type "integer"']),
        ({"const": {"$ref": "#"}}, {"$ref": "#"}, []),
        ({"properties": {"$id": INTEGER, "$ref": INTEGER}}, {"$id": 1, "$ref": 1}, []),
        ({"pattern": "^(a+)+$"}, "a" * 40 + "!", [f'"{"a" * 40}!" does not match "^(a+)+$"']),
    ],
)
def test_a_value_is_judged_by_its_schema(schema: dict[str, Any], value: Any, expected: list[str]) -> None:
    assert issues(schema, value) == expected


def test_an_issue_has_the_path_to_the_misfit() -> None:
    found = SchemaChecker().issues({"properties": {"a": {"items": INTEGER}}}, {"a": [1, "b"]})
    assert found == [SchemaIssue(path=("a", 1), message='"b" is not of type "integer"')]


def test_at_most_a_hundred_issues_are_listed() -> None:
    assert len(issues({"items": INTEGER}, ["x"] * 5000)) == ISSUES_MAX


def test_a_message_does_not_carry_a_megabyte_of_the_value() -> None:
    (message,) = issues(INTEGER, "x" * 1_000_000)
    assert len(message) <= MESSAGE_MAX + 3
    assert message.endswith('is not of type "integer"')


REFUSED: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "no such type": ({"type": "text"}, "not an acceptable JSON Schema"),
    "look-ahead": ({"pattern": "^(?=a)b"}, "no look-around"),
    "look-behind": ({"pattern": "(?<!a)b"}, "no look-around"),
    "back-reference": ({"pattern": "(a)\\1"}, "no back-references"),
    "repetition of a repetition": ({"pattern": "(a{1000}){1000}"}, "bounded repetition"),
    "broken pattern": ({"pattern": "(("}, 'is not a "regex"'),
    "address": ({"$ref": "http://example.com/a"}, "must name a place in the schema itself"),
    "file": ({"$ref": "file:///etc/passwd"}, "must name a place in the schema itself"),
    "anchor": ({"$ref": "#a", "$defs": {"a": {"$anchor": "a"}}}, "must name a place in the schema itself"),
    "missing place": ({"$ref": "#/$defs/a"}, "not an acceptable JSON Schema"),
    "itself": ({"$ref": "#"}, "leads back to itself"),
    "itself by a detour": ({"anyOf": [INTEGER, {"not": {"$ref": "#"}}]}, "leads back to itself"),
    "dynamic reference": ({"$dynamicRef": "#a"}, "$dynamicRef is not supported"),
    "ladder": (ladder(30, "#/$defs/{}"), "more than 1000 steps"),
    "ladder in other letters": (ladder(30, "#/%24defs/{}"), "more than 1000 steps"),
    "ladder of anchors": (ladder(30, "#{}", **{"$anchor": "{}"}), "must name a place in the schema itself"),
    "ladder of ids": (ladder(30, "{}", **{"$id": "http://x/{}"}), "an $id below the top"),
    "ladder below a property": (
        {"properties": {"a": {"$ref": "#/$defs/d0"}}, "$defs": ladder(30, "#/$defs/{}")["$defs"]},
        "more than 1000 steps",
    ),
    "ladder where no schema is expected": (
        {"$ref": "#/x", "x": {"items": {"$ref": "#/y/d0"}}, "y": ladder(30, "#/y/{}")["$defs"]},
        "more than 1000 steps",
    ),
    "chain": (
        {"$ref": "#/$defs/0", "$defs": {str(number): {"$ref": f"#/$defs/{number + 1}"} for number in range(1500)}},
        "more than 1000 steps",
    ),
    "shells of unevaluatedProperties": (shells(20), "more than 1000 steps"),
    "too many parts": ({"properties": {str(number): {} for number in range(2000)}}, "more than 2000 parts"),
    "too deep": ({"items": nested(65)}, "nested deeper than 64 levels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_schema_that_cannot_be_checked_safely_is_refused_with_the_reason(case: str) -> None:
    schema, reason = REFUSED[case]
    with pytest.raises(SchemaRefusedError) as caught:
        compile_schema(schema)
    assert reason in caught.value.message
    assert caught.value.code == "DESK_SCHEMA_REFUSED"


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}},
        {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": ["b"]}] * 2 + [INTEGER]},
        {"properties": {"a": {"$ref": "#"}}, "patternProperties": {"a": {"$ref": "#"}}},
    ],
)
def test_a_schema_that_doubles_at_every_level_is_asked_about_shallow_values_only(schema: dict[str, Any]) -> None:
    assert "too large or too deep" not in " ".join(issues(schema, nested(10)))
    assert issues(schema, nested(40))[0].startswith("too large or too deep for its schema: ")


def test_a_value_that_is_deeper_than_json_may_be_is_an_issue_and_no_crash() -> None:
    assert issues({"properties": {"a": {"$ref": "#"}}}, nested(20_000)) == ["nested deeper than 64 levels"]


def test_ordinary_recursion_is_as_deep_as_json_may_be() -> None:
    assert issues({"type": ["object", "integer"], "properties": {"a": {"$ref": "#"}}}, nested(64)) == []


def test_a_large_flat_value_is_no_reason_to_refuse() -> None:
    assert (
        issues({"items": {"type": "object", "required": ["id"], "properties": {"id": INTEGER}}}, [{"id": 1}] * 50_000)
        == []
    )


def test_schemas_are_enforced_and_so_refused_only_where_there_is_a_handler() -> None:
    plain, handled = starter_workflow(WorkflowId("w"), name="W", description=None).desks
    broken = {"type": "text"}
    desks = (
        msgspec.structs.replace(plain, input_schema=broken),
        msgspec.structs.replace(handled, handler="do.it", input_schema=broken, output_schema={"$ref": "#"}),
    )
    refused = refused_schemas(desks)
    assert [(desk.desk_id, side) for desk, side, _ in refused] == [("work", "inputSchema"), ("work", "outputSchema")]


def test_a_checker_keeps_what_it_compiled_by_content_and_forgets_when_it_is_full() -> None:
    checker = SchemaChecker(most=2)
    for minimum in range(5):
        assert [len(checker.issues({"minimum": minimum}, value)) for value in (minimum, minimum - 1)] == [0, 1]
