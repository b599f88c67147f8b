"""What desks are and what flows between them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from rawr.coordination.graph import Graph
from rawr.coordination.model import Desk, DeskKind, Handoff, MemoryScope, Workflow
from rawr.ids import DeskId, HandoffId, WorkflowId
from rawr.wire import JsonValue


class KindDescription(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str


KINDS: Final[Mapping[DeskKind, KindDescription]] = {
    DeskKind.ANALYSIS: KindDescription(name="Analysis desk", description="Looks into something and says what it found"),
    DeskKind.EXECUTION: KindDescription(name="Execution desk", description="Does something: writes, calls, changes"),
    DeskKind.QA: KindDescription(name="QA desk", description="Judges what it is given and refuses what is not good"),
    DeskKind.JOIN: KindDescription(name="Join desk", description="Waits for several desks and passes on what all gave"),
    DeskKind.HUMAN_WAIT: KindDescription(name="Human wait desk", description="Waits for a person"),
    DeskKind.OBSERVER: KindDescription(name="Observer desk", description="Watches and reports, and changes nothing"),
}


def inbound(graph: Graph, desk_id: DeskId, run_input: JsonValue, outputs: Mapping[DeskId, JsonValue]) -> JsonValue:
    """What a desk is given: the run's input, the one upstream output, or `{upstream desk: output}` of several."""
    upstream = graph.upstream[desk_id]
    match upstream:
        case ():
            return run_input
        case (only,):
            return outputs.get(only, {})
        case _:
            return {desk: outputs.get(desk) for desk in upstream}


def passed_on(desk: Desk, received: JsonValue, memory: JsonValue) -> JsonValue:
    """What a desk without a handler gives: its input in the published shape."""
    if desk.kind == DeskKind.JOIN:
        return {"deskId": desk.desk_id, "status": "joined", "merged": received, "memory": memory}
    return {"deskId": desk.desk_id, "status": "ok", "kind": desk.kind, "received": received, "memory": memory}


def not_runnable_reasons(workflow: Workflow) -> tuple[str, ...]:
    """What in a valid workflow cannot be run yet. Running it as if that were absent would be a lie."""
    reasons = [
        f"desk {desk.desk_id} waits for a person, and approvals are not available yet"
        for desk in workflow.desks
        if desk.kind == DeskKind.HUMAN_WAIT
    ]
    for handoff in workflow.handoffs:
        if handoff.condition:
            reasons.append(f"handoff {handoff.handoff_id} has a condition, and conditions are not available yet")
        if handoff.mapping_refs:
            reasons.append(f"handoff {handoff.handoff_id} has mappingRefs, and mappings are not available yet")
    return tuple(reasons)


def starter_workflow(workflow_id: WorkflowId, *, name: str, description: str | None) -> Workflow:
    """A valid workflow of two desks to begin from."""
    anything = {"type": "object", "additionalProperties": True}
    intake = Desk(
        desk_id=DeskId("intake"),
        kind=DeskKind.ANALYSIS,
        name="Intake",
        responsibility="Take in the request",
        domain="general",
        input_schema=anything,
        output_schema=anything,
        memory_scope=MemoryScope(persist=False),
    )
    work = Desk(
        desk_id=DeskId("work"),
        kind=DeskKind.EXECUTION,
        name="Work",
        responsibility="Do what was asked",
        domain="general",
        input_schema=anything,
        output_schema=anything,
        memory_scope=MemoryScope(persist=False),
    )
    handoff = Handoff(handoff_id=HandoffId("intake-to-work"), from_desk_id=intake.desk_id, to_desk_id=work.desk_id)
    return Workflow(
        workflow_id=workflow_id,
        version=1,
        name=name,
        description=msgspec.UNSET if description is None else description,
        entry_desk_id=intake.desk_id,
        desks=(intake, work),
        handoffs=(handoff,),
    )
