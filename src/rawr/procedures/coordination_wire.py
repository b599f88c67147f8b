"""What the coordination procedures take, answer and refuse with, as it stands on the wire. Pure values.

Servers, clients and the published document read the same shapes.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from rawr.coordination.model import Count, Run, Text, TimelineEvent, ValidationResult, Workflow
from rawr.ids import EventId, RunId, WorkflowId
from rawr.procedures.contract import ProcedureError
from rawr.wire import JsonValue, Wire

# Only for the document: an id that does not fit is refused with a code of its own, not as invalid input.
_AS_ID: Final = msgspec.Meta(min_length=1, extra_json_schema={"pattern": r"^\s*[A-Za-z0-9][A-Za-z0-9._-]{0,127}\s*$"})
IdText = Annotated[str, _AS_ID]
"""An id as a caller wrote it; white space around it does not count."""


class ListWorkflowsInput(Wire, frozen=True, kw_only=True):
    pass


class ListWorkflowsOutput(Wire, frozen=True, kw_only=True):
    workflows: tuple[Workflow, ...]


class SaveWorkflowInput(Wire, frozen=True, kw_only=True):
    workflow: Workflow


class SaveWorkflowOutput(Wire, frozen=True, kw_only=True):
    workflow: Workflow


class WorkflowInput(Wire, frozen=True, kw_only=True):
    workflow_id: IdText


class GetWorkflowOutput(Wire, frozen=True, kw_only=True):
    workflow: Workflow


class ValidateWorkflowOutput(Wire, frozen=True, kw_only=True):
    workflow_id: WorkflowId
    validation: ValidationResult


class QueueRunInput(Wire, frozen=True, kw_only=True):
    workflow_id: IdText
    run_id: Text | msgspec.UnsetType = msgspec.UNSET
    input: JsonValue | msgspec.UnsetType = msgspec.UNSET


class QueueRunOutput(Wire, frozen=True, kw_only=True):
    run: Run
    event_ids: tuple[EventId, ...]


class RunInput(Wire, frozen=True, kw_only=True):
    run_id: IdText


class GetRunStatusOutput(Wire, frozen=True, kw_only=True):
    run: Run


class GetRunTimelineOutput(Wire, frozen=True, kw_only=True):
    run_id: RunId
    timeline: tuple[TimelineEvent, ...]


class WatchRunInput(Wire, frozen=True, kw_only=True):
    run_id: IdText
    after_seq: Count = 0
    """The last event that the caller has; 0 for none."""


class WorkflowIdData(Wire, frozen=True, kw_only=True):
    workflow_id: str


class RunIdData(Wire, frozen=True, kw_only=True):
    run_id: str


class NotRunnableData(Wire, frozen=True, kw_only=True):
    workflow_id: WorkflowId
    reasons: tuple[str, ...]


class VersionConflictData(Wire, frozen=True, kw_only=True):
    workflow_id: WorkflowId
    version: int
    newest_version: int


class RunConflictData(Wire, frozen=True, kw_only=True):
    run_id: RunId
    workflow_id: WorkflowId
    """The workflow that the run belongs to."""


class QueueFailedData(Wire, frozen=True, kw_only=True):
    run: Run


class NoEventData(Wire, frozen=True, kw_only=True):
    run_id: RunId
    seq: int


INVALID_WORKFLOW_ID: Final = ProcedureError(
    code="INVALID_WORKFLOW_ID",
    status=400,
    meaning="The workflowId is not 1 to 128 of A-Za-z0-9._-, beginning with a letter or digit.",
    data=WorkflowIdData,
)
INVALID_RUN_ID: Final = ProcedureError(
    code="INVALID_RUN_ID",
    status=400,
    meaning="The runId is not 1 to 128 of A-Za-z0-9._-, beginning with a letter or digit.",
    data=RunIdData,
)
WORKFLOW_INVALID: Final = ProcedureError(
    code="WORKFLOW_VALIDATION_FAILED",
    status=400,
    meaning="The workflow is not valid; the data have every reason.",
    data=ValidationResult,
)
NOT_RUNNABLE: Final = ProcedureError(
    code="WORKFLOW_NOT_RUNNABLE",
    status=400,
    meaning="The workflow is valid and uses something that cannot be run yet.",
    data=NotRunnableData,
)
NO_WORKFLOW: Final = ProcedureError(
    code="WORKFLOW_NOT_FOUND", status=404, meaning="There is no such workflow.", data=WorkflowIdData
)
NO_RUN: Final = ProcedureError(code="RUN_NOT_FOUND", status=404, meaning="There is no such run.", data=RunIdData)
NO_EVENT: Final = ProcedureError(
    code="TIMELINE_EVENT_NOT_FOUND", status=404, meaning="The run has no event with this seq.", data=NoEventData
)
VERSION_CONFLICT: Final = ProcedureError(
    code="WORKFLOW_VERSION_CONFLICT",
    status=409,
    meaning="The version is older than the newest one, or a run has used it and it cannot change.",
    data=VersionConflictData,
)
RUN_CONFLICT: Final = ProcedureError(
    code="RUN_ID_CONFLICT",
    status=409,
    meaning="The runId belongs to a run of another workflow. Nothing was changed.",
    data=RunConflictData,
)
QUEUE_FAILED: Final = ProcedureError(
    code="RUN_QUEUE_FAILED",
    status=500,
    meaning="The engine did not take the run. It is stored as failed.",
    data=QueueFailedData,
)
