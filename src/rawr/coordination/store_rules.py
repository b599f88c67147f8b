"""What every store of coordination decides the same way, so that the stores themselves only keep things. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from rawr import wire
from rawr.coordination.model import Run, Workflow
from rawr.coordination.ports import (
    RunIdConflictError,
    RunNotFoundError,
    WorkflowMovedError,
    WorkflowVersionConflictError,
)
from rawr.errors import BadInputError
from rawr.ids import RunId, WorkflowId

# What msgspec raises for a value that JSON cannot hold: a foreign type, a lone surrogate, a cycle.
_NOT_JSON: Final = (TypeError, ValueError, RecursionError)


class Save(StrEnum):
    ADD = "add"
    REPLACE = "replace"
    KEEP = "keep"


def save_decision(given: Workflow, newest: Workflow | None, *, newest_is_used: bool) -> Save:
    """What to do with `given`, where `newest` is the newest stored version and a run may have used it.

    Raises:
        WorkflowVersionConflictError: it is older than `newest`, or differs from a `newest` that a run has used.
    """
    if newest is None or given.version > newest.version:
        return Save.ADD
    if given.version < newest.version:
        raise _version_conflict(
            given, newest, f"version {given.version} is older than the stored version {newest.version}"
        )
    if same_document(given, newest):
        return Save.KEEP
    if newest_is_used:
        raise _version_conflict(given, newest, f"a run has used version {given.version}, so it cannot change")
    return Save.REPLACE


def same_document(one: Workflow, other: Workflow) -> bool:
    """Whether two workflows say the same, whenever they were saved. `1`, `1.0` and `true` are not the same."""
    return _timeless(one) == _timeless(other)


def stamped(workflow: Workflow, *, now_ms: int) -> Workflow:
    """`workflow` as it is stored: with the time of the save."""
    return msgspec.structs.replace(workflow, updated_at=wire.iso_from_ms(now_ms))


def check_same_workflow(existing: Run, workflow_id: WorkflowId) -> None:
    """Raises RunIdConflictError when a run of `workflow_id` would take over `existing`, the run of another workflow."""
    if existing.workflow_id != workflow_id:
        raise RunIdConflictError(
            f"run {existing.run_id} belongs to workflow {existing.workflow_id}, not to {workflow_id}",
            details={"runId": existing.run_id, "workflowId": existing.workflow_id},
            fix="choose another run id, or leave it out",
        )


def workflow_moved(newest: Workflow) -> WorkflowMovedError:
    return WorkflowMovedError(
        f"version {newest.version} of workflow {newest.workflow_id} is not the newest one as it was read",
        details={"workflowId": newest.workflow_id, "version": newest.version},
        fix="read the workflow again",
    )


def run_not_found(run_id: RunId) -> RunNotFoundError:
    return RunNotFoundError(f"there is no run {run_id}", details={"runId": run_id})


def to_json(value: object) -> str:
    """The JSON text under which a store keeps `value`.

    Raises:
        BadInputError: the value is not JSON.
    """
    try:
        return wire.encode(value).decode()
    except _NOT_JSON as error:
        raise BadInputError(f"cannot be stored as JSON: {error}") from error


def _timeless(workflow: Workflow) -> bytes:
    return wire.encode_canonical(msgspec.structs.replace(workflow, updated_at=msgspec.UNSET))


def _version_conflict(given: Workflow, newest: Workflow, reason: str) -> WorkflowVersionConflictError:
    return WorkflowVersionConflictError(
        f"workflow {given.workflow_id}: {reason}",
        details={"workflowId": given.workflow_id, "version": given.version, "newestVersion": newest.version},
        fix=f"save it as version {newest.version + 1}",
    )
