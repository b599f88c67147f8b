"""What desks are called, what they receive and pass on, and which workflows cannot run yet."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rawr.coordination.desks import KINDS, inbound, not_runnable_reasons, passed_on, starter_workflow
from rawr.coordination.graph import graph_of
from rawr.coordination.model import DeskKind, Workflow
from rawr.ids import DeskId, WorkflowId
from rawr.wire import encode

STARTER = starter_workflow(WorkflowId("mine"), name="Mine", description="To begin with")


def changed(**changes: Any) -> Workflow:
    document = msgspec.to_builtins(STARTER)
    for desk in document["desks"]:
        desk.update(changes.get("desk", {}))
    for handoff in document["handoffs"]:
        handoff.update(changes.get("handoff", {}))
    return msgspec.convert(document, Workflow)


def test_every_kind_has_a_name_and_a_description() -> None:
    assert set(KINDS) == set(DeskKind)
    assert all(kind.name and kind.description for kind in KINDS.values())
    assert len({kind.name for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize("run_input", [{}, None, 0, False, [1, 2], "x"])
def test_a_desk_without_upstream_receives_the_input_of_the_run_as_given(run_input: Any) -> None:
    assert inbound(graph_of(STARTER), DeskId("intake"), run_input, {}) is run_input


@pytest.mark.parametrize("output", [None, 0, [], {"a": 1}])
def test_a_desk_with_one_upstream_receives_its_output_as_given(output: Any) -> None:
    assert inbound(graph_of(STARTER), DeskId("work"), {"run": 1}, {DeskId("intake"): output}) is output


def test_a_desk_whose_one_upstream_gave_nothing_receives_an_empty_object() -> None:
    assert inbound(graph_of(STARTER), DeskId("work"), {"run": 1}, {}) == {}


def test_a_desk_with_several_upstream_receives_them_by_id_in_the_order_of_the_handoffs() -> None:
    intake, work = STARTER.desks
    second = msgspec.structs.replace(intake, desk_id=DeskId("second"))
    first = msgspec.structs.replace(STARTER.handoffs[0], from_desk_id=second.desk_id)
    graph = graph_of(
        msgspec.structs.replace(STARTER, desks=(intake, second, work), handoffs=(first, *STARTER.handoffs))
    )
    received = inbound(graph, DeskId("work"), {"run": 1}, {DeskId("intake"): [1]})
    assert encode(received) == b'{"second":null,"intake":[1]}'


def test_desks_pass_on_their_input_in_the_published_shape() -> None:
    intake = STARTER.desks[0]
    assert encode(passed_on(intake, {"q": 1}, None)) == (
        b'{"deskId":"intake","status":"ok","kind":"desk:analysis","received":{"q":1},"memory":null}'
    )
    join = msgspec.structs.replace(intake, kind="desk:join")
    assert encode(passed_on(join, {"a": 1}, [2])) == (
        b'{"deskId":"intake","status":"joined","merged":{"a":1},"memory":[2]}'
    )


def test_d9_what_cannot_be_run_yet_is_named_instead_of_ignored() -> None:
    assert not_runnable_reasons(STARTER) == ()
    assert not_runnable_reasons(changed(desk={"kind": "desk:human-wait"}, handoff={"condition": "x > 1"})) == (
        "desk intake waits for a person, and approvals are not available yet",
        "desk work waits for a person, and approvals are not available yet",
        "handoff intake-to-work has a condition, and conditions are not available yet",
    )
    assert not_runnable_reasons(changed(handoff={"mappingRefs": {"a": "b"}})) == (
        "handoff intake-to-work has mappingRefs, and mappings are not available yet",
    )


def test_an_empty_condition_and_empty_mappings_say_nothing_and_are_runnable() -> None:
    assert not_runnable_reasons(changed(handoff={"condition": "", "mappingRefs": {}})) == ()


def test_the_starter_workflow_carries_what_it_was_asked_for() -> None:
    assert (STARTER.workflow_id, STARTER.name, STARTER.description, STARTER.version) == (
        "mine",
        "Mine",
        "To begin with",
        1,
    )
    assert starter_workflow(WorkflowId("x"), name="X", description=None).description is msgspec.UNSET
