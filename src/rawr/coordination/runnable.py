"""Which workflows may be saved, and which may be run: judged by every rule, and only once for the many runs of one.

Judging a large workflow takes up to a second, so it is done off the event loop.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from rawr.coordination.desks import not_runnable_reasons
from rawr.coordination.model import ValidationIssue, ValidationResult, Workflow
from rawr.coordination.ports import CoordinationStore
from rawr.coordination.schemas import refused_schemas
from rawr.coordination.validate import ValidationCode, validate_workflow
from rawr.errors import BadInputError, RawrError
from rawr.ids import WorkflowId, normalized_id

KEPT_MAX: Final = 64


class InvalidWorkflowIdError(BadInputError):
    code = "INVALID_WORKFLOW_ID"


class WorkflowNotFoundError(RawrError):
    code = "WORKFLOW_NOT_FOUND"


class WorkflowInvalidError(BadInputError):
    code = "WORKFLOW_VALIDATION_FAILED"

    def __init__(self, validation: ValidationResult) -> None:
        super().__init__("Workflow validation failed", details=msgspec.to_builtins(validation))
        self.validation = validation


class WorkflowNotRunnableError(BadInputError):
    """The workflow is valid, and something in it is not available yet."""

    code = "WORKFLOW_NOT_RUNNABLE"


class RunnableWorkflows:
    """The newest versions of the workflows that runs were lately started of.

    Another process may have saved newer ones meanwhile: the store says so when the run is created.
    """

    def __init__(self, store: CoordinationStore) -> None:
        self._store = store
        self._kept: dict[WorkflowId, Workflow] = {}

    async def newest(self, workflow_id: WorkflowId) -> Workflow:
        """The newest version as it was read last.

        Raises:
            WorkflowNotFoundError, WorkflowInvalidError, WorkflowNotRunnableError
        """
        kept = self._kept.get(workflow_id)
        if kept is not None:
            return kept
        workflow = await existing_workflow(self._store, workflow_id)
        await refuse_unrunnable(workflow)
        while len(self._kept) >= KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        self._kept[workflow_id] = workflow
        return workflow

    def forget(self, workflow_id: WorkflowId) -> None:
        """It is read again when it is wanted next."""
        self._kept.pop(workflow_id, None)


async def existing_workflow(store: CoordinationStore, workflow_id: WorkflowId) -> Workflow:
    """Raises WorkflowNotFoundError."""
    workflow = await store.get_workflow(workflow_id)
    if workflow is None:
        raise WorkflowNotFoundError("workflow not found", details={"workflowId": workflow_id})
    return workflow


async def judged(workflow: Workflow) -> ValidationResult:
    """Every reason not to save or run it."""
    return await asyncio.to_thread(_judged, workflow)


async def refuse_unrunnable(workflow: Workflow) -> None:
    """Raises WorkflowInvalidError, WorkflowNotRunnableError."""
    validation = await judged(workflow)
    if not validation.ok:  # stored by a rawr with other rules
        raise WorkflowInvalidError(validation)
    if reasons := not_runnable_reasons(workflow):
        raise WorkflowNotRunnableError(
            f"workflow {workflow.workflow_id} cannot be run: {'; '.join(reasons)}",
            details={"workflowId": workflow.workflow_id, "reasons": list(reasons)},
        )


def workflow_id_of(text: str) -> WorkflowId:
    """The id in `text`, trimmed. Raises InvalidWorkflowIdError."""
    known = normalized_id(text)
    if known is None:
        raise InvalidWorkflowIdError("Invalid workflowId format", details={"workflowId": text.strip()})
    return WorkflowId(known)


def _judged(workflow: Workflow) -> ValidationResult:
    validation = validate_workflow(workflow)
    if not validation.ok:
        return validation
    errors = tuple(
        ValidationIssue(
            code=ValidationCode.INVALID_DESK_SCHEMA.value,
            message=f"Desk {desk.desk_id} {side} is {why}",
            desk_id=desk.desk_id,
        )
        for desk, side, why in refused_schemas(workflow.desks)
    )
    return ValidationResult(ok=not errors, errors=errors)
