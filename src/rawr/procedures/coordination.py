"""The coordination procedures and streams: decode, one call of the service, answer. And their errors on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import msgspec

from rawr.coordination.model import TimelineEvent
from rawr.coordination.service import workflow_id_of
from rawr.errors import RawrError
from rawr.procedures import examples
from rawr.procedures.context import Context
from rawr.procedures.contract import (
    Example,
    Method,
    Procedure,
    ProcedureError,
    ProcedureFailedError,
    StreamEvent,
    StreamProcedure,
)
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
from rawr.procedures.invoke import input_refused
from rawr.procedures.schema_issues import SchemaIssue

SEQ_DIGITS_MAX: Final = 15

Handle = Callable[[Context, Any], Awaitable[Any]]


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


async def watch_run(context: Context, given: WatchRunInput) -> AsyncGenerator[StreamEvent, None]:
    """The timeline from `after_seq` on. A caller that goes on repeats its input, so its last event id counts more."""
    after_seq = given.after_seq if context.last_event_id is None else _seq(context.last_event_id)
    return _numbered(await context.coordination.watch_run(given.run_id, after_seq=after_seq))


async def _numbered(events: AsyncGenerator[TimelineEvent, None]) -> AsyncGenerator[StreamEvent, None]:
    async with contextlib.aclosing(events):
        async for event in events:
            yield StreamEvent(value=event, event_id=str(event.seq))


def _seq(event_id: str) -> int:
    if not event_id.isascii() or not event_id.isdigit() or len(event_id) > SEQ_DIGITS_MAX:
        raise input_refused((SchemaIssue(message="last-event-id must be the seq of an event"),))
    return int(event_id)


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
    example: Example,
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
        example=example,
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
        example=examples.LIST_WORKFLOWS,
    ),
    _coordination(
        "saveWorkflow",
        "POST",
        "/workflows",
        "Create or update a coordination workflow",
        save_workflow,
        types=(SaveWorkflowInput, SaveWorkflowOutput),
        example=examples.SAVE_WORKFLOW,
        errors=(WORKFLOW_INVALID, VERSION_CONFLICT),
    ),
    _coordination(
        "getWorkflow",
        "GET",
        "/workflows/{workflowId}",
        "Get a coordination workflow by id",
        get_workflow,
        types=(WorkflowInput, GetWorkflowOutput),
        example=examples.GET_WORKFLOW,
        errors=(INVALID_WORKFLOW_ID, NO_WORKFLOW),
    ),
    _coordination(
        "validateWorkflow",
        "POST",
        "/workflows/{workflowId}/validate",
        "Validate a coordination workflow",
        validate_workflow,
        types=(WorkflowInput, ValidateWorkflowOutput),
        example=examples.VALIDATE_WORKFLOW,
        errors=(INVALID_WORKFLOW_ID, NO_WORKFLOW),
    ),
    _coordination(
        "queueRun",
        "POST",
        "/workflows/{workflowId}/run",
        "Queue a workflow run",
        queue_run,
        types=(QueueRunInput, QueueRunOutput),
        example=examples.QUEUE_RUN,
        errors=(
            INVALID_WORKFLOW_ID,
            INVALID_RUN_ID,
            WORKFLOW_INVALID,
            NOT_RUNNABLE,
            NO_WORKFLOW,
            RUN_CONFLICT,
            QUEUE_FAILED,
        ),
    ),
    _coordination(
        "getRunStatus",
        "GET",
        "/runs/{runId}",
        "Get workflow run status",
        get_run_status,
        types=(RunInput, GetRunStatusOutput),
        example=examples.GET_RUN_STATUS,
        errors=(INVALID_RUN_ID, NO_RUN),
    ),
    _coordination(
        "getRunTimeline",
        "GET",
        "/runs/{runId}/timeline",
        "Get workflow run timeline",
        get_run_timeline,
        types=(RunInput, GetRunTimelineOutput),
        example=examples.GET_RUN_TIMELINE,
        errors=(INVALID_RUN_ID, NO_RUN),
    ),
)

COORDINATION_STREAMS: Final[tuple[StreamProcedure, ...]] = (
    StreamProcedure(
        namespace="coordination",
        name="watchRun",
        method="GET",
        summary="Follow the timeline of a run until the run has ended",
        input_type=WatchRunInput,
        event_type=TimelineEvent,
        errors=(INVALID_RUN_ID, NO_RUN, NO_EVENT),
        open=_documenting((INVALID_RUN_ID, NO_RUN, NO_EVENT), watch_run),
    ),
)
