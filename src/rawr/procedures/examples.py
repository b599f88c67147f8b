"""One call of every published procedure, as it may go: a workflow of two desks, saved, run and read. Pure values."""

from __future__ import annotations

from typing import Final

from rawr.coordination.lifecycle import event_id
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    Desk,
    EventType,
    Finalization,
    Handoff,
    MemoryScope,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
    ValidationResult,
    Workflow,
)
from rawr.ids import DeskId, EventId, HandoffId, PluginId, RunId, WorkflowId
from rawr.procedures.contract import Example
from rawr.procedures.coordination_wire import (
    GetRunStatusOutput,
    GetRunTimelineOutput,
    GetWorkflowOutput,
    ListWorkflowsInput,
    ListWorkflowsOutput,
    QueueRunInput,
    QueueRunOutput,
    RunInput,
    SaveWorkflowInput,
    SaveWorkflowOutput,
    ValidateWorkflowOutput,
    WorkflowInput,
)
from rawr.procedures.state_wire import GetRuntimeStateInput, GetRuntimeStateOutput
from rawr.state.model import PluginState, RepoState
from rawr.telemetry.contract import trace_links
from rawr.wire import JsonValue

_WORKFLOW_ID: Final = WorkflowId("release-notes")
_RUN_ID: Final = RunId("run-2026-11-23")
_QUEUED_AT: Final = "2026-11-23T09:00:00.000Z"
_INPUT: Final[dict[str, JsonValue]] = {"since": "v1.4.0"}


def _desk(desk_id: str, name: str, responsibility: str) -> Desk:
    return Desk(
        desk_id=DeskId(desk_id),
        kind="desk:execution",
        name=name,
        responsibility=responsibility,
        domain="releases",
        input_schema={"type": "object"},
        output_schema={"type": "object"},
        memory_scope=MemoryScope(persist=False),
    )


_WORKFLOW: Final = Workflow(
    workflow_id=_WORKFLOW_ID,
    version=1,
    name="Release notes",
    entry_desk_id=DeskId("collect"),
    desks=(
        _desk("collect", "Collect", "Lists what was merged"),
        _desk("write", "Write", "Tells it to users"),
    ),
    handoffs=(
        Handoff(handoff_id=HandoffId("collect-write"), from_desk_id=DeskId("collect"), to_desk_id=DeskId("write")),
    ),
)
_RUN: Final = Run(
    run_id=_RUN_ID,
    workflow_id=_WORKFLOW_ID,
    workflow_version=1,
    status=RunStatus.QUEUED,
    started_at=_QUEUED_AT,
    input=_INPUT,
    trace_links=tuple(
        TraceLink(provider=link.provider, label=link.label, url=link.url)
        for link in trace_links("http://localhost:3000", _RUN_ID, inngest_base_url=None)
    ),
    finalization=Finalization(contract=FINALIZATION_CONTRACT),
)
_EVENT: Final = TimelineEvent(
    event_id=event_id(_RUN_ID, "run.started/queued"),
    run_id=_RUN_ID,
    workflow_id=_WORKFLOW_ID,
    type=EventType.RUN_STARTED,
    ts=_QUEUED_AT,
    status=RunStatus.QUEUED,
    detail="Coordination run queued for Inngest execution",
    seq=1,
)

LIST_WORKFLOWS: Final = Example(given=ListWorkflowsInput(), answer=ListWorkflowsOutput(workflows=(_WORKFLOW,)))
SAVE_WORKFLOW: Final = Example(
    given=SaveWorkflowInput(workflow=_WORKFLOW), answer=SaveWorkflowOutput(workflow=_WORKFLOW)
)
GET_WORKFLOW: Final = Example(
    given=WorkflowInput(workflow_id=_WORKFLOW_ID), answer=GetWorkflowOutput(workflow=_WORKFLOW)
)
VALIDATE_WORKFLOW: Final = Example(
    given=WorkflowInput(workflow_id=_WORKFLOW_ID),
    answer=ValidateWorkflowOutput(workflow_id=_WORKFLOW_ID, validation=ValidationResult(ok=True, errors=())),
)
QUEUE_RUN: Final = Example(
    given=QueueRunInput(workflow_id=_WORKFLOW_ID, run_id=_RUN_ID, input=_INPUT),
    answer=QueueRunOutput(run=_RUN, event_ids=(EventId("01KAQW9D7X4M2N8R5T6V3Y1Z0B"),)),
)
GET_RUN_STATUS: Final = Example(given=RunInput(run_id=_RUN_ID), answer=GetRunStatusOutput(run=_RUN))
GET_RUN_TIMELINE: Final = Example(
    given=RunInput(run_id=_RUN_ID), answer=GetRunTimelineOutput(run_id=_RUN_ID, timeline=(_EVENT,))
)
GET_RUNTIME_STATE: Final = Example(
    given=GetRuntimeStateInput(),
    answer=GetRuntimeStateOutput(
        state=RepoState(
            version=1,
            plugins=PluginState(enabled=(PluginId("@rawr/plugin-mfe-demo"),), last_updated_at=_QUEUED_AT),
            authority_repo_root="/home/ada/hq",
        )
    ),
)
