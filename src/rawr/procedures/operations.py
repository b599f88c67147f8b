"""The contract table: every operation and stream of an HQ, declared once. Pure values.

Servers bind code to these, the documents are made from them, clients call by them. Nothing here runs.
"""

from __future__ import annotations

from typing import Any, Final

from rawr.coordination.model import TimelineEvent
from rawr.procedures import examples
from rawr.procedures.contract import Operation, StreamOperation
from rawr.procedures.coordination_wire import (
    INVALID_RUN_ID,
    INVALID_WORKFLOW_ID,
    NO_EVENT,
    NO_RUN,
    NO_WORKFLOW,
    NOT_RUNNABLE,
    QUEUE_FAILED,
    RUN_CONFLICT,
    VERSION_CONFLICT,
    WORKFLOW_INVALID,
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
    WatchRunInput,
    WorkflowInput,
)
from rawr.procedures.state_wire import GetRuntimeStateInput, GetRuntimeStateOutput

LIST_WORKFLOWS: Final = Operation[ListWorkflowsInput, ListWorkflowsOutput](
    namespace="coordination",
    name="listWorkflows",
    method="GET",
    path="/coordination/workflows",
    summary="List saved coordination workflows",
    input_type=ListWorkflowsInput,
    output_type=ListWorkflowsOutput,
    errors=(),
    example=examples.LIST_WORKFLOWS,
)
SAVE_WORKFLOW: Final = Operation[SaveWorkflowInput, SaveWorkflowOutput](
    namespace="coordination",
    name="saveWorkflow",
    method="POST",
    path="/coordination/workflows",
    summary="Create or update a coordination workflow",
    input_type=SaveWorkflowInput,
    output_type=SaveWorkflowOutput,
    errors=(
        WORKFLOW_INVALID,
        VERSION_CONFLICT,
    ),
    example=examples.SAVE_WORKFLOW,
)
GET_WORKFLOW: Final = Operation[WorkflowInput, GetWorkflowOutput](
    namespace="coordination",
    name="getWorkflow",
    method="GET",
    path="/coordination/workflows/{workflowId}",
    summary="Get a coordination workflow by id",
    input_type=WorkflowInput,
    output_type=GetWorkflowOutput,
    errors=(
        INVALID_WORKFLOW_ID,
        NO_WORKFLOW,
    ),
    example=examples.GET_WORKFLOW,
)
VALIDATE_WORKFLOW: Final = Operation[WorkflowInput, ValidateWorkflowOutput](
    namespace="coordination",
    name="validateWorkflow",
    method="POST",
    path="/coordination/workflows/{workflowId}/validate",
    summary="Validate a coordination workflow",
    input_type=WorkflowInput,
    output_type=ValidateWorkflowOutput,
    errors=(
        INVALID_WORKFLOW_ID,
        NO_WORKFLOW,
    ),
    example=examples.VALIDATE_WORKFLOW,
)
QUEUE_RUN: Final = Operation[QueueRunInput, QueueRunOutput](
    namespace="coordination",
    name="queueRun",
    method="POST",
    path="/coordination/workflows/{workflowId}/run",
    summary="Queue a workflow run",
    input_type=QueueRunInput,
    output_type=QueueRunOutput,
    errors=(
        INVALID_WORKFLOW_ID,
        INVALID_RUN_ID,
        WORKFLOW_INVALID,
        NOT_RUNNABLE,
        NO_WORKFLOW,
        RUN_CONFLICT,
        QUEUE_FAILED,
    ),
    example=examples.QUEUE_RUN,
)
GET_RUN_STATUS: Final = Operation[RunInput, GetRunStatusOutput](
    namespace="coordination",
    name="getRunStatus",
    method="GET",
    path="/coordination/runs/{runId}",
    summary="Get workflow run status",
    input_type=RunInput,
    output_type=GetRunStatusOutput,
    errors=(
        INVALID_RUN_ID,
        NO_RUN,
    ),
    example=examples.GET_RUN_STATUS,
)
GET_RUN_TIMELINE: Final = Operation[RunInput, GetRunTimelineOutput](
    namespace="coordination",
    name="getRunTimeline",
    method="GET",
    path="/coordination/runs/{runId}/timeline",
    summary="Get workflow run timeline",
    input_type=RunInput,
    output_type=GetRunTimelineOutput,
    errors=(
        INVALID_RUN_ID,
        NO_RUN,
    ),
    example=examples.GET_RUN_TIMELINE,
)
GET_RUNTIME_STATE: Final = Operation[GetRuntimeStateInput, GetRuntimeStateOutput](
    namespace="state",
    name="getRuntimeState",
    method="GET",
    path="/state/runtime",
    summary="Read runtime plugin state",
    input_type=GetRuntimeStateInput,
    output_type=GetRuntimeStateOutput,
    errors=(),
    example=examples.GET_RUNTIME_STATE,
)
WATCH_RUN: Final = StreamOperation[WatchRunInput, TimelineEvent](
    namespace="coordination",
    name="watchRun",
    method="GET",
    summary="Follow the timeline of a run until the run has ended",
    input_type=WatchRunInput,
    event_type=TimelineEvent,
    errors=(INVALID_RUN_ID, NO_RUN, NO_EVENT),
)

OPERATIONS: Final[tuple[Operation[Any, Any], ...]] = (
    LIST_WORKFLOWS,
    SAVE_WORKFLOW,
    GET_WORKFLOW,
    VALIDATE_WORKFLOW,
    QUEUE_RUN,
    GET_RUN_STATUS,
    GET_RUN_TIMELINE,
    GET_RUNTIME_STATE,
)
"""In the order of the published document."""
