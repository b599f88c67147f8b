"""The seven coordination procedures: decode, one call of the service, answer. And their errors on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from rawr.coordination.model import Run, Text, TimelineEvent, ValidationResult, Workflow
from rawr.coordination.service import workflow_id_of
from rawr.errors import RawrError
from rawr.ids import EventId, RunId, WorkflowId
from rawr.procedures.context import Context
from rawr.procedures.contract import Method, Procedure, ProcedureError, ProcedureFailedError
from rawr.wire import JsonValue, Wire

Handle = Callable[[Context, Any], Awaitable[Any]]


class ListWorkflowsInput(Wire, frozen=True, kw_only=True):
    pass


class ListWorkflowsOutput(Wire, frozen=True, kw_only=True):
    workflows: tuple[Workflow, ...]


class SaveWorkflowInput(Wire, frozen=True, kw_only=True):
    workflow: Workflow


class SaveWorkflowOutput(Wire, frozen=True, kw_only=True):
    workflow: Workflow


class WorkflowInput(Wire, frozen=True, kw_only=True):
    workflow_id: Text


class GetWorkflowOutput(Wire, frozen=True, kw_only=True):
    workflow: Workflow


class ValidateWorkflowOutput(Wire, frozen=True, kw_only=True):
    workflow_id: WorkflowId
    validation: ValidationResult


class QueueRunInput(Wire, frozen=True, kw_only=True):
    workflow_id: Text
    run_id: Text | msgspec.UnsetType = msgspec.UNSET
    input: JsonValue | msgspec.UnsetType = msgspec.UNSET


class QueueRunOutput(Wire, frozen=True, kw_only=True):
    run: Run
    event_ids: tuple[EventId, ...]


class RunInput(Wire, frozen=True, kw_only=True):
    run_id: Text


class GetRunStatusOutput(Wire, frozen=True, kw_only=True):
    run: Run


class GetRunTimelineOutput(Wire, frozen=True, kw_only=True):
    run_id: RunId
    timeline: tuple[TimelineEvent, ...]


_WORKFLOW_ID = ProcedureError(code="INVALID_WORKFLOW_ID", status=400)
_RUN_ID = ProcedureError(code="INVALID_RUN_ID", status=400)
_WORKFLOW_INVALID = ProcedureError(code="WORKFLOW_VALIDATION_FAILED", status=400)
_NOT_RUNNABLE = ProcedureError(code="WORKFLOW_NOT_RUNNABLE", status=400)
_NO_WORKFLOW = ProcedureError(code="WORKFLOW_NOT_FOUND", status=404)
_NO_RUN = ProcedureError(code="RUN_NOT_FOUND", status=404)
_VERSION_CONFLICT = ProcedureError(code="WORKFLOW_VERSION_CONFLICT", status=409)
_RUN_CONFLICT = ProcedureError(code="RUN_ID_CONFLICT", status=409)
_QUEUE_FAILED = ProcedureError(code="RUN_QUEUE_FAILED", status=500)


async def list_workflows(context: Context, _: ListWorkflowsInput) -> ListWorkflowsOutput:
    return ListWorkflowsOutput(workflows=tuple(await context.coordination.list_workflows()))


async def save_workflow(context: Context, given: SaveWorkflowInput) -> SaveWorkflowOutput:
    return SaveWorkflowOutput(workflow=await context.coordination.save_workflow(given.workflow))


async def get_workflow(context: Context, given: WorkflowInput) -> GetWorkflowOutput:
    return GetWorkflowOutput(workflow=await context.coordination.get_workflow(given.workflow_id))


async def validate_workflow(context: Context, given: WorkflowInput) -> ValidateWorkflowOutput:
    validation = await context.coordination.validate_workflow(given.workflow_id)
    return ValidateWorkflowOutput(workflow_id=workflow_id_of(given.workflow_id), validation=validation)


async def queue_run(context: Context, given: QueueRunInput) -> QueueRunOutput:
    queued = await context.coordination.queue_run(
        given.workflow_id,
        None if given.run_id is msgspec.UNSET else given.run_id,
        None if given.input is msgspec.UNSET else given.input,
    )
    return QueueRunOutput(run=queued.run, event_ids=queued.event_ids)


async def get_run_status(context: Context, given: RunInput) -> GetRunStatusOutput:
    return GetRunStatusOutput(run=await context.coordination.get_run(given.run_id))


async def get_run_timeline(context: Context, given: RunInput) -> GetRunTimelineOutput:
    run_id, timeline = await context.coordination.run_timeline(given.run_id)
    return GetRunTimelineOutput(run_id=run_id, timeline=tuple(timeline))


def _documenting(errors: tuple[ProcedureError, ...], handle: Handle) -> Handle:
    """`handle`, with the faults that the procedure documents in their wire form. Others pass unchanged."""
    statuses = {error.code: error.status for error in errors}

    async def documented(context: Context, given: Any) -> Any:
        try:
            return await handle(context, given)
        except RawrError as error:
            if error.code not in statuses:
                raise
            raise ProcedureFailedError(error.code, statuses[error.code], error.message, data=error.details) from error

    return documented


def _coordination(
    name: str,
    method: Method,
    path: str,
    summary: str,
    handle: Handle,
    *,
    types: tuple[type[Any], type[Any]],
    errors: tuple[ProcedureError, ...] = (),
) -> Procedure:
    return Procedure(
        namespace="coordination",
        name=name,
        method=method,
        path=f"/coordination{path}",
        summary=summary,
        input_type=types[0],
        output_type=types[1],
        errors=errors,
        handle=_documenting(errors, handle),
    )


COORDINATION_PROCEDURES: Final[tuple[Procedure, ...]] = (
    _coordination(
        "listWorkflows",
        "GET",
        "/workflows",
        "List saved coordination workflows",
        list_workflows,
        types=(ListWorkflowsInput, ListWorkflowsOutput),
    ),
    _coordination(
        "saveWorkflow",
        "POST",
        "/workflows",
        "Create or update a coordination workflow",
        save_workflow,
        types=(SaveWorkflowInput, SaveWorkflowOutput),
        errors=(_WORKFLOW_INVALID, _VERSION_CONFLICT),
    ),
    _coordination(
        "getWorkflow",
        "GET",
        "/workflows/{workflowId}",
        "Get a coordination workflow by id",
        get_workflow,
        types=(WorkflowInput, GetWorkflowOutput),
        errors=(_WORKFLOW_ID, _NO_WORKFLOW),
    ),
    _coordination(
        "validateWorkflow",
        "POST",
        "/workflows/{workflowId}/validate",
        "Validate a coordination workflow",
        validate_workflow,
        types=(WorkflowInput, ValidateWorkflowOutput),
        errors=(_WORKFLOW_ID, _NO_WORKFLOW),
    ),
    _coordination(
        "queueRun",
        "POST",
        "/workflows/{workflowId}/run",
        "Queue a workflow run",
        queue_run,
        types=(QueueRunInput, QueueRunOutput),
        errors=(
            _WORKFLOW_ID,
            _RUN_ID,
            _WORKFLOW_INVALID,
            _NOT_RUNNABLE,
            _NO_WORKFLOW,
            _RUN_CONFLICT,
            _QUEUE_FAILED,
        ),
    ),
    _coordination(
        "getRunStatus",
        "GET",
        "/runs/{runId}",
        "Get workflow run status",
        get_run_status,
        types=(RunInput, GetRunStatusOutput),
        errors=(_RUN_ID, _NO_RUN),
    ),
    _coordination(
        "getRunTimeline",
        "GET",
        "/runs/{runId}/timeline",
        "Get workflow run timeline",
        get_run_timeline,
        types=(RunInput, GetRunTimelineOutput),
        errors=(_RUN_ID, _NO_RUN),
    ),
)
