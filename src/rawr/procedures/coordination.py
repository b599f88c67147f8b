"""The coordination procedures and streams: decode, one call of the service, answer. And their errors on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import msgspec

from rawr.coordination.model import TimelineEvent
from rawr.coordination.runnable import workflow_id_of
from rawr.errors import RawrError
from rawr.ids import RunId
from rawr.procedures import operations
from rawr.procedures.context import Context
from rawr.procedures.contract import (
    Declared,
    Operation,
    Procedure,
    ProcedureFailedError,
    StreamEvent,
    StreamProcedure,
)
from rawr.procedures.coordination_wire import (
    GetWorkflowOutput,
    ListWorkflowsInput,
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
from rawr.wire import Wire

SEQ_DIGITS_MAX: Final = 15

Handle = Callable[[Context, Any], Awaitable[Any]]


class _WorkflowsAsStored(Wire, frozen=True, kw_only=True):
    """`ListWorkflowsOutput` whose workflows nobody has read. Reading and writing them again is most of the work."""

    workflows: msgspec.Raw


class _RunAsStored(Wire, frozen=True, kw_only=True):
    """`GetRunStatusOutput` whose run nobody has read: who follows a run asks again and again."""

    run: msgspec.Raw


class _TimelineAsStored(Wire, frozen=True, kw_only=True):
    """`GetRunTimelineOutput` whose events nobody has read."""

    run_id: RunId
    timeline: msgspec.Raw


async def list_workflows(context: Context, _: ListWorkflowsInput) -> _WorkflowsAsStored:
    return _WorkflowsAsStored(workflows=msgspec.Raw(await context.coordination.workflows_json()))


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
        correlation_id=context.correlation_id,
    )
    return QueueRunOutput(run=queued.run, event_ids=queued.event_ids)


async def get_run_status(context: Context, given: RunInput) -> _RunAsStored:
    return _RunAsStored(run=msgspec.Raw(await context.coordination.run_json(given.run_id)))


async def get_run_timeline(context: Context, given: RunInput) -> _TimelineAsStored:
    run_id, timeline = await context.coordination.run_timeline_json(given.run_id)
    return _TimelineAsStored(run_id=run_id, timeline=msgspec.Raw(timeline))


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


def _documenting(declared: Declared, handle: Handle) -> Handle:
    """`handle`, with the faults that the procedure documents in their wire form. Others pass unchanged."""
    statuses = {error.code: error.status for error in declared.errors}

    async def documented(context: Context, given: Any) -> Any:
        try:
            return await handle(context, given)
        except RawrError as error:
            if error.code not in statuses:
                raise
            raise ProcedureFailedError(error.code, statuses[error.code], error.message, data=error.details) from error

    return documented


def _bound(operation: Operation[Any, Any], handle: Handle) -> Procedure:
    return operation.handled_by(_documenting(operation, handle))


COORDINATION_PROCEDURES: Final[tuple[Procedure, ...]] = (
    _bound(operations.LIST_WORKFLOWS, list_workflows),
    _bound(operations.SAVE_WORKFLOW, save_workflow),
    _bound(operations.GET_WORKFLOW, get_workflow),
    _bound(operations.VALIDATE_WORKFLOW, validate_workflow),
    _bound(operations.QUEUE_RUN, queue_run),
    _bound(operations.GET_RUN_STATUS, get_run_status),
    _bound(operations.GET_RUN_TIMELINE, get_run_timeline),
)

COORDINATION_STREAMS: Final[tuple[StreamProcedure, ...]] = (
    operations.WATCH_RUN.opened_by(_documenting(operations.WATCH_RUN, watch_run)),
)
