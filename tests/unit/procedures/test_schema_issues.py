"""The list of issues that a refused input comes back with."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rawr.coordination.model import Workflow
from rawr.procedures.schema_issues import ISSUES_MAX, first_fit, schema_issues
from rawr.wire import encode

DESK: dict[str, Any] = {
    "deskId": "d",
    "kind": "desk:analysis",
    "name": "n",
    "responsibility": "r",
    "domain": "o",
    "inputSchema": {},
    "outputSchema": {},
    "memoryScope": {"persist": False},
}
WORKFLOW: dict[str, Any] = {
    "workflowId": "w",
    "version": 1,
    "name": "n",
    "entryDeskId": "d",
    "desks": [DESK],
    "handoffs": [],
}


def listed(value: object) -> list[dict[str, Any]]:
    return [json.loads(encode(issue)) for issue in schema_issues(value, Workflow)]


def test_a_workflow_that_fits_has_no_issues() -> None:
    assert listed(WORKFLOW) == []


def test_missing_keys_come_first_then_unknown_ones_then_properties_as_declared() -> None:
    assert listed({"zzz": 1, "desks": "x", "version": 0, "workflowId": ""}) == [
        {"message": "must have required properties name, entryDeskId, handoffs"},
        {"message": "must not have additional properties"},
        {"message": "must not have fewer than 1 characters", "path": ["workflowId"]},
        {"message": "must be >= 1", "path": ["version"]},
        {"message": "must be array", "path": ["desks"]},
    ]


def test_paths_lead_into_lists_and_objects() -> None:
    desk = {**DESK, "memoryScope": {"persist": 1, "ttlSeconds": -1}, "inputSchema": []}
    assert listed({**WORKFLOW, "desks": [DESK, desk]}) == [
        {"message": "must be object", "path": ["desks", 1, "inputSchema"]},
        {"message": "must be boolean", "path": ["desks", 1, "memoryScope", "persist"]},
        {"message": "must be >= 0", "path": ["desks", 1, "memoryScope", "ttlSeconds"]},
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "1"}, "must be integer"),
        ({"version": True}, "must be integer"),
        ({"version": 1.5}, "must be integer"),
        ({"version": 2**31}, "must be <= 2147483647"),
        ({"version": None}, "must be integer"),
        ({"name": 5}, "must be string"),
        ({"name": None}, "must be string"),
        ({"description": None}, "must be string"),
        ({"observabilityProfile": "loud"}, "must be equal to one of the allowed values"),
        ({"handoffs": {}}, "must be array"),
    ],
)
def test_each_misfit_has_its_wording(change: dict[str, Any], message: str) -> None:
    assert [issue["message"] for issue in listed({**WORKFLOW, **change})] == [message]


@pytest.mark.parametrize("value", [None, [], "x", 1, msgspec.UNSET])
def test_what_is_no_object_has_one_issue_at_the_root(value: object) -> None:
    assert listed(value) == [{"message": "must be object"}]


def test_a_hostile_document_does_not_make_an_endless_list() -> None:
    assert len(listed({**WORKFLOW, "desks": [1] * 100_000})) == ISSUES_MAX


def test_an_integral_float_is_the_integer_it_says() -> None:
    assert first_fit({**WORKFLOW, "version": 1.0}, Workflow).version == 1


def test_whatever_msgspec_refuses_has_an_issue_or_is_an_integral_float() -> None:
    changes: list[dict[str, Any]] = [{"version": 1.25}, {"desks": [1]}, {"handoffs": [{}]}, {"extra": 1}]
    for change in changes:
        value = {**WORKFLOW, **change}
        with pytest.raises(msgspec.ValidationError):
            first_fit(value, Workflow)
        assert schema_issues(value, Workflow)
