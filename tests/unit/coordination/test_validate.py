"""Every reason why a workflow is not valid, in the published words and order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rawr.coordination.desks import starter_workflow
from rawr.coordination.graph import graph_of, topological_order
from rawr.coordination.model import ValidationIssue, Workflow
from rawr.coordination.validate import DESKS_MAX, HANDOFFS_MAX, ValidationCode, validate_workflow
from rawr.ids import WorkflowId
from rawr.wire import encode

DATA: Final = Path(__file__).parent.parent / "data"
ANYTHING: Final[dict[str, Any]] = {"type": "object"}


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that was given to the published implementation, and its judgement as it came over the wire."""

    name: str
    workflow: Workflow
    validation: str


RECORDED: Final = msgspec.json.decode((DATA / "recorded_validations.json").read_bytes(), type=list[Recorded])


def desk(desk_id: str, **changes: Any) -> dict[str, Any]:
    plain = {
        "deskId": desk_id,
        "kind": "desk:analysis",
        "name": "n",
        "responsibility": "r",
        "domain": "d",
        "inputSchema": ANYTHING,
        "outputSchema": ANYTHING,
        "memoryScope": {"persist": False},
    }
    return {**plain, **changes}


def handoff(handoff_id: str, edge: str) -> dict[str, Any]:
    source, target = edge.split(">")
    return {"handoffId": handoff_id, "fromDeskId": source, "toDeskId": target}


def workflow(desks: list[dict[str, Any]], *edges: str, **changes: Any) -> Workflow:
    plain = {
        "workflowId": "flow",
        "version": 1,
        "name": "Flow",
        "entryDeskId": "a",
        "desks": desks,
        "handoffs": [handoff(f"h{number}", edge) for number, edge in enumerate(edges, start=1)],
    }
    return msgspec.convert({**plain, **changes}, Workflow)


def said(flow: Workflow) -> list[tuple[str, str]]:
    validation = validate_workflow(flow)
    assert validation.ok == (not validation.errors)
    return [(issue.code, issue.message) for issue in validation.errors]


def codes(flow: Workflow) -> list[str]:
    return [code for code, _ in said(flow)]


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.name)
def test_recorded_workflows_are_judged_byte_for_byte_as_published(recorded: Recorded) -> None:
    assert encode(validate_workflow(recorded.workflow)).decode() == recorded.validation


def test_the_starter_workflow_and_a_diamond_are_valid() -> None:
    assert said(starter_workflow(WorkflowId("mine"), name="Mine", description=None)) == []
    desks = [desk("a"), desk("b"), desk("c"), desk("d", kind="desk:join")]
    assert said(workflow(desks, "a>b", "a>c", "b>d", "c>d")) == []


ONE_FAULT: Final[dict[str, tuple[Workflow, list[tuple[str, str]]]]] = {
    "blank id": (
        workflow([desk("a")], workflowId=" "),
        [("MISSING_WORKFLOW_ID", "Workflow workflowId is required")],
    ),
    "id of a path": (
        workflow([desk("a")], workflowId="a/b"),
        [("INVALID_WORKFLOW_ID_FORMAT", "Workflow workflowId contains unsupported characters: a/b")],
    ),
    "id with a newline": (
        workflow([desk("a")], workflowId="a\n"),
        [("INVALID_WORKFLOW_ID_FORMAT", "Workflow workflowId contains unsupported characters: a\n")],
    ),
    "no desks": (
        workflow([]),
        [("MISSING_ENTRY_DESK", "Entry desk a is missing from desks[]")],
    ),
    "desk id": (
        workflow([desk("a"), desk(".b")], "a>.b"),
        [("INVALID_DESK_ID_FORMAT", "Desk id contains unsupported characters: .b")],
    ),
    "desk kind": (
        workflow([desk("a", kind="desk:cook")]),
        [("UNKNOWN_DESK_KIND", "Unknown desk kind for a: desk:cook")],
    ),
    "desk twice": (
        workflow([desk("a"), desk("a")]),
        [("DUPLICATE_DESK_ID", "Duplicate deskId detected: a")],
    ),
    "memory for no time": (
        workflow([desk("a", memoryScope={"persist": True, "ttlSeconds": 0})]),
        [("INVALID_MEMORY_SCOPE", "Desk a has an invalid memoryScope: ttlSeconds must be a positive integer")],
    ),
    "handoff id": (
        workflow([desk("a"), desk("b")], handoffs=[handoff("h h", "a>b")]),
        [("INVALID_HANDOFF_ID_FORMAT", "Handoff id contains unsupported characters: h h")],
    ),
    "unknown source": (
        workflow([desk("a"), desk("b", kind="desk:join")], "a>b", "zz>b"),
        [("EDGE_UNKNOWN_SOURCE", "Handoff h2 source desk does not exist: zz")],
    ),
    "unknown target": (
        workflow([desk("a")], "a>zz"),
        [("EDGE_UNKNOWN_TARGET", "Handoff h1 target desk does not exist: zz")],
    ),
    "fan-in": (
        workflow([desk("a"), desk("b"), desk("c"), desk("d")], "a>b", "a>c", "b>d", "c>d"),
        [("ILLEGAL_FAN_IN_WITHOUT_JOIN", "Desk d has 2 inbound handoffs and must be kind desk:join")],
    ),
    "handoff to itself": (
        workflow([desk("a")], "a>a"),
        [("CYCLE_DETECTED", "Workflow graph contains a cycle")],
    ),
    "entry desk that others hand off to": (
        workflow([desk("a"), desk("b")], "b>a"),
        [("DISCONNECTED_DESK", "Desk b is not reachable from entry desk a")],
    ),
    "handoff id twice": (
        workflow([desk("a"), desk("b"), desk("c")], handoffs=[handoff("h", "a>b"), handoff("h", "a>c")]),
        [("DUPLICATE_HANDOFF_ID", "Duplicate handoffId detected: h")],
    ),
    "edge twice": (
        workflow([desk("a"), desk("b", kind="desk:join")], "a>b", "a>b"),
        [("DUPLICATE_HANDOFF", "Handoff h2 repeats the handoff from a to b")],
    ),
}


@pytest.mark.parametrize("fault", ONE_FAULT)
def test_a_single_fault_is_named_and_nothing_else(fault: str) -> None:
    flow, expected = ONE_FAULT[fault]
    assert said(flow) == expected


def test_issues_say_which_desk_and_handoff_they_are_about() -> None:
    issues = validate_workflow(workflow([desk("a")], "zz>a")).errors
    unknown = "Handoff h1 source desk does not exist: zz"
    assert issues == (ValidationIssue(code="EDGE_UNKNOWN_SOURCE", message=unknown, desk_id="zz", handoff_id="h1"),)


MISFITS: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "required key is not in the output": (ANYTHING, {"type": "object", "required": ["x"]}),
    "required key is not required on the output side": (
        {"type": "object", "properties": {"x": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]},
    ),
    "enum is wider": ({"enum": ["a", "b"]}, {"enum": ["a"]}),
    "optional property has another type": (
        {"type": "object", "properties": {"x": {"type": "string"}}},
        {"type": "object", "properties": {"x": {"type": "number"}}},
    ),
    "one of the alternatives does not fit": ({"anyOf": [ANYTHING, {"type": "null"}]}, ANYTHING),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_an_output_that_its_target_cannot_take_is_incompatible(misfit: str) -> None:
    output, wanted = MISFITS[misfit]
    flow = workflow([desk("a", outputSchema=output), desk("b", inputSchema=wanted)], "a>b")
    message = "Handoff h1 is incompatible: a output does not satisfy b input"
    assert said(flow) == [("INCOMPATIBLE_HANDOFF", message)]


def test_an_output_of_alternatives_that_all_fit_is_compatible() -> None:
    output = {"oneOf": [ANYTHING, {"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}}]}
    assert said(workflow([desk("a", outputSchema=output), desk("b")], "a>b")) == []


def joined(input_schema: dict[str, Any]) -> Workflow:
    desks = [desk("a"), desk("b", outputSchema={"type": "string"}), desk("c"), desk("d", kind="desk:join")]
    desks[3]["inputSchema"] = input_schema
    return workflow(desks, "a>b", "a>c", "b>d", "c>d")


def test_a_join_asks_of_each_upstream_desk_what_it_says_under_that_name() -> None:
    assert said(joined({"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b", "c"]})) == []
    message = "Handoff h3 is incompatible: b output does not satisfy d input"
    assert said(joined({"properties": {"b": {"type": "number"}}})) == [("INCOMPATIBLE_HANDOFF", message)]


def test_a_join_cannot_require_what_no_upstream_desk_brings() -> None:
    message = "Desk d requires x, and no desk of that id hands off to it"
    assert said(joined({"required": ["x", {}, 5]})) == [("INCOMPATIBLE_HANDOFF", message)]


def nested(levels: int, innermost: Any) -> Any:
    for _ in range(levels):
        innermost = {"items": innermost}
    return innermost


@pytest.mark.parametrize("levels", [65, 20_000])
def test_schemas_that_are_too_deep_are_named_and_not_walked_into(levels: int) -> None:
    plain = workflow([desk("a"), desk("b")], "a>b")
    deep = nested(levels, {"enum": [nested(5, 1)]})
    desks = tuple(msgspec.structs.replace(one, input_schema=deep, output_schema=deep) for one in plain.desks)
    message = "Desk {} {} is nested deeper than 64 levels"
    assert said(msgspec.structs.replace(plain, desks=desks)) == [
        ("INVALID_DESK_SCHEMA", message.format(desk_id, side))
        for desk_id in "ab"
        for side in ("inputSchema", "outputSchema")
    ]


def test_a_schema_that_refers_to_itself_is_compared_without_following_it() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}}, "$ref": "#"}
    assert said(workflow([desk("a", outputSchema=tree), desk("b", inputSchema=tree)], "a>b")) == []


def test_schemas_whose_alternatives_multiply_are_refused_instead_of_compared_for_ever() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(20):
        schema = {"type": "object", "properties": {"a": schema}, "anyOf": [{"required": ["a"]}, {}]}
    flow = workflow([desk("a", outputSchema=schema), desk("b", inputSchema=schema)], "a>b")
    assert codes(flow) == ["WORKFLOW_TOO_LARGE"]


@pytest.mark.parametrize("schema", [{"type": 5}, {"required": [{}]}, {"properties": {"x": 1}}, {"anyOf": [None]}])
def test_what_is_no_json_schema_does_not_break_the_judgement(schema: dict[str, Any]) -> None:
    desks = [desk(name, outputSchema=schema, inputSchema=schema, kind="desk:join") for name in "abcd"]
    assert set(codes(workflow(desks, "a>b", "a>c", "b>d", "c>d"))) <= {"INCOMPATIBLE_HANDOFF"}


def chain(length: int) -> Workflow:
    edges = [f"d{number}>d{number + 1}" for number in range(length - 1)]
    return workflow([desk(f"d{number}") for number in range(length)], *edges, entryDeskId="d0")


def test_d11_a_workflow_has_at_most_a_thousand_desks_and_five_thousand_handoffs() -> None:
    assert said(chain(DESKS_MAX)) == []
    too_long = f"Workflow has {DESKS_MAX + 1} desks, at most {DESKS_MAX} are allowed"
    assert said(chain(DESKS_MAX + 1)) == [("WORKFLOW_TOO_LARGE", too_long)]
    assert codes(chain(20_000)) == ["WORKFLOW_TOO_LARGE", "WORKFLOW_TOO_LARGE"]
    too_many = workflow([desk("a"), desk("b")], *(["a>b"] * (HANDOFFS_MAX + 1)))
    assert said(too_many) == [
        ("WORKFLOW_TOO_LARGE", f"Workflow has {HANDOFFS_MAX + 1} handoffs, at most {HANDOFFS_MAX} are allowed")
    ]


def test_all_published_codes_can_be_given() -> None:
    given = {code for flow, _ in ONE_FAULT.values() for code in codes(flow)}
    given |= {"INCOMPATIBLE_HANDOFF", "INVALID_DESK_SCHEMA", "WORKFLOW_TOO_LARGE"}  # each has its own test above
    assert given == set(ValidationCode)


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from("abcd"), max_size=5),
    st.lists(st.tuples(st.sampled_from("abcdz"), st.sampled_from("abcdz")), max_size=8),
    st.sampled_from(["desk:join", "desk:qa"]),
)
def test_a_valid_workflow_has_an_order_that_starts_at_its_entry(
    names: list[str], edges: list[tuple[str, str]], kind: str
) -> None:
    flow = workflow([desk(name, kind=kind) for name in names], *[f"{a}>{b}" for a, b in edges])
    if validate_workflow(flow).ok:
        order = topological_order(graph_of(flow))
        assert order[0] == "a"
        assert sorted(order) == sorted(names)
