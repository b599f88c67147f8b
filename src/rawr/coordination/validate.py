"""What makes a workflow valid. Pure; collects every reason instead of stopping at the first.

The order (identity, entry, desks, handoffs, fan-in, cycle, reachability) and the wording of the published
codes are part of the contract.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec

from rawr.coordination.assignability import COMPARISONS_MAX, Assignability, TooManyComparisonsError
from rawr.coordination.graph import Graph, graph_of, has_cycle, reachable_from
from rawr.coordination.model import Desk, DeskKind, Handoff, ValidationIssue, ValidationResult, Workflow
from rawr.ids import DeskId, is_id
from rawr.wire import DEPTH_MAX, depth_within

DESKS_MAX: Final = 1000
HANDOFFS_MAX: Final = 5000
_KINDS: Final = frozenset(kind.value for kind in DeskKind)


class ValidationCode(StrEnum):
    MISSING_WORKFLOW_ID = "MISSING_WORKFLOW_ID"
    INVALID_WORKFLOW_ID_FORMAT = "INVALID_WORKFLOW_ID_FORMAT"
    MISSING_ENTRY_DESK = "MISSING_ENTRY_DESK"
    DUPLICATE_DESK_ID = "DUPLICATE_DESK_ID"
    INVALID_DESK_ID_FORMAT = "INVALID_DESK_ID_FORMAT"
    INVALID_HANDOFF_ID_FORMAT = "INVALID_HANDOFF_ID_FORMAT"
    INVALID_MEMORY_SCOPE = "INVALID_MEMORY_SCOPE"
    UNKNOWN_DESK_KIND = "UNKNOWN_DESK_KIND"
    EDGE_UNKNOWN_SOURCE = "EDGE_UNKNOWN_SOURCE"
    EDGE_UNKNOWN_TARGET = "EDGE_UNKNOWN_TARGET"
    INCOMPATIBLE_HANDOFF = "INCOMPATIBLE_HANDOFF"
    ILLEGAL_FAN_IN_WITHOUT_JOIN = "ILLEGAL_FAN_IN_WITHOUT_JOIN"
    CYCLE_DETECTED = "CYCLE_DETECTED"
    DISCONNECTED_DESK = "DISCONNECTED_DESK"
    # Below: what the published contract lets through and we do not.
    DUPLICATE_HANDOFF_ID = "DUPLICATE_HANDOFF_ID"
    DUPLICATE_HANDOFF = "DUPLICATE_HANDOFF"
    INVALID_DESK_SCHEMA = "INVALID_DESK_SCHEMA"
    WORKFLOW_TOO_LARGE = "WORKFLOW_TOO_LARGE"


def validate_workflow(workflow: Workflow) -> ValidationResult:
    """All reasons why `workflow` cannot be saved or run; `ok` when there are none.

    JSON Schemas are judged only structurally here; `schemas.py` compiles those that will be enforced.
    """
    errors = tuple(_too_large(workflow)) or tuple(_issues(workflow))
    return ValidationResult(ok=not errors, errors=errors)


def _issues(workflow: Workflow) -> Iterator[ValidationIssue]:
    graph = graph_of(workflow)
    yield from _identity(workflow)
    if workflow.entry_desk_id not in graph.downstream:
        yield _issue(
            ValidationCode.MISSING_ENTRY_DESK,
            f"Entry desk {workflow.entry_desk_id} is missing from desks[]",
            desk_id=workflow.entry_desk_id,
        )
    yield from _desks(workflow)
    yield from _handoffs(workflow)
    yield from _fan_in(workflow)
    if has_cycle(graph):
        yield _issue(ValidationCode.CYCLE_DETECTED, "Workflow graph contains a cycle")
    yield from _unreachable(workflow, graph)


def _too_large(workflow: Workflow) -> Iterator[ValidationIssue]:
    for what, count, most in (
        ("desks", len(workflow.desks), DESKS_MAX),
        ("handoffs", len(workflow.handoffs), HANDOFFS_MAX),
    ):
        if count > most:
            yield _issue(ValidationCode.WORKFLOW_TOO_LARGE, f"Workflow has {count} {what}, at most {most} are allowed")


def _identity(workflow: Workflow) -> Iterator[ValidationIssue]:
    if not workflow.workflow_id.strip():
        yield _issue(ValidationCode.MISSING_WORKFLOW_ID, "Workflow workflowId is required")
    elif not is_id(workflow.workflow_id):
        yield _issue(
            ValidationCode.INVALID_WORKFLOW_ID_FORMAT,
            f"Workflow workflowId contains unsupported characters: {workflow.workflow_id}",
        )


def _desks(workflow: Workflow) -> Iterator[ValidationIssue]:
    seen: set[DeskId] = set()
    for desk in workflow.desks:
        if not is_id(desk.desk_id):
            message = f"Desk id contains unsupported characters: {desk.desk_id}"
            yield _issue(ValidationCode.INVALID_DESK_ID_FORMAT, message, desk_id=desk.desk_id)
        if desk.kind not in _KINDS:
            message = f"Unknown desk kind for {desk.desk_id}: {desk.kind}"
            yield _issue(ValidationCode.UNKNOWN_DESK_KIND, message, desk_id=desk.desk_id)
        if desk.desk_id in seen:
            message = f"Duplicate deskId detected: {desk.desk_id}"
            yield _issue(ValidationCode.DUPLICATE_DESK_ID, message, desk_id=desk.desk_id)
        seen.add(desk.desk_id)
        if desk.memory_scope.ttl_seconds == 0:
            message = f"Desk {desk.desk_id} has an invalid memoryScope: ttlSeconds must be a positive integer"
            yield _issue(ValidationCode.INVALID_MEMORY_SCOPE, message, desk_id=desk.desk_id)
        for side in _too_deep(desk):
            message = f"Desk {desk.desk_id} {side} is nested deeper than {DEPTH_MAX} levels"
            yield _issue(ValidationCode.INVALID_DESK_SCHEMA, message, desk_id=desk.desk_id)


def _too_deep(desk: Desk) -> Iterator[str]:
    for side, schema in (("inputSchema", desk.input_schema), ("outputSchema", desk.output_schema)):
        if not depth_within(schema, DEPTH_MAX):
            yield side


def _handoffs(workflow: Workflow) -> Iterator[ValidationIssue]:
    desks = {desk.desk_id: desk for desk in reversed(workflow.desks)}  # of duplicates, the first counts
    inbound = Counter(handoff.to_desk_id for handoff in workflow.handoffs)
    incompatible, gave_up = _incompatible(workflow, desks, inbound)
    ids: set[str] = set()
    edges: set[tuple[DeskId, DeskId]] = set()
    for position, handoff in enumerate(workflow.handoffs):
        name, edge = handoff.handoff_id, (handoff.from_desk_id, handoff.to_desk_id)
        yield from _ends(handoff, desks)
        if position in incompatible:
            message = f"Handoff {name} is incompatible: {edge[0]} output does not satisfy {edge[1]} input"
            yield _issue(ValidationCode.INCOMPATIBLE_HANDOFF, message, handoff_id=name)
        if name in ids:
            message = f"Duplicate handoffId detected: {name}"
            yield _issue(ValidationCode.DUPLICATE_HANDOFF_ID, message, handoff_id=name)
        ids.add(name)
        if edge in edges:
            message = f"Handoff {name} repeats the handoff from {edge[0]} to {edge[1]}"
            yield _issue(ValidationCode.DUPLICATE_HANDOFF, message, handoff_id=name)
        edges.add(edge)
    if gave_up:
        message = f"Judging the handoffs takes more than {COMPARISONS_MAX} comparisons: desk schemas must be simpler"
        yield _issue(ValidationCode.WORKFLOW_TOO_LARGE, message)
    yield from _joins(workflow, inbound)


def _ends(handoff: Handoff, desks: dict[DeskId, Desk]) -> Iterator[ValidationIssue]:
    name = handoff.handoff_id
    if not is_id(name):
        message = f"Handoff id contains unsupported characters: {name}"
        yield _issue(ValidationCode.INVALID_HANDOFF_ID_FORMAT, message, handoff_id=name)
    if handoff.from_desk_id not in desks:
        message = f"Handoff {name} source desk does not exist: {handoff.from_desk_id}"
        yield _issue(ValidationCode.EDGE_UNKNOWN_SOURCE, message, handoff_id=name, desk_id=handoff.from_desk_id)
    if handoff.to_desk_id not in desks:
        message = f"Handoff {name} target desk does not exist: {handoff.to_desk_id}"
        yield _issue(ValidationCode.EDGE_UNKNOWN_TARGET, message, handoff_id=name, desk_id=handoff.to_desk_id)


def _incompatible(
    workflow: Workflow, desks: dict[DeskId, Desk], inbound: Counter[DeskId]
) -> tuple[frozenset[int], bool]:
    """The places of handoffs whose target cannot take what its source gives; whether judging had to be given up."""
    found: set[int] = set()
    assignability = Assignability()
    judgeable = {desk_id: desk for desk_id, desk in desks.items() if not any(_too_deep(desk))}
    for position, handoff in enumerate(workflow.handoffs):
        source, target = judgeable.get(handoff.from_desk_id), judgeable.get(handoff.to_desk_id)
        if source is None or target is None:
            continue
        try:
            if not assignability.holds(source.output_schema, _wanted(source, target, inbound)):
                found.add(position)
        except TooManyComparisonsError:
            return frozenset(found), True
    return frozenset(found), False


def _wanted(source: Desk, target: Desk, inbound: Counter[DeskId]) -> dict[str, Any] | bool:
    """What `target` asks of `source`: a join of several receives an object with one property per upstream desk."""
    if not _joins_several(target, inbound):
        return target.input_schema
    properties = target.input_schema.get("properties")
    wanted = properties.get(source.desk_id, True) if isinstance(properties, dict) else True
    return wanted if isinstance(wanted, dict | bool) else True


def _joins_several(desk: Desk, inbound: Counter[DeskId]) -> bool:
    return desk.kind == DeskKind.JOIN and inbound[desk.desk_id] > 1


def _joins(workflow: Workflow, inbound: Counter[DeskId]) -> Iterator[ValidationIssue]:
    """A join cannot require what no upstream desk brings."""
    upstream: dict[DeskId, set[str]] = {}
    for handoff in workflow.handoffs:
        upstream.setdefault(handoff.to_desk_id, set()).add(handoff.from_desk_id)
    for desk in workflow.desks:
        required = desk.input_schema.get("required")
        if not _joins_several(desk, inbound) or not isinstance(required, list):
            continue
        for name in required:
            if isinstance(name, str) and name not in upstream[desk.desk_id]:
                message = f"Desk {desk.desk_id} requires {name}, and no desk of that id hands off to it"
                yield _issue(ValidationCode.INCOMPATIBLE_HANDOFF, message, desk_id=desk.desk_id)


def _fan_in(workflow: Workflow) -> Iterator[ValidationIssue]:
    inbound = Counter(handoff.to_desk_id for handoff in workflow.handoffs)
    for desk in workflow.desks:
        if inbound[desk.desk_id] > 1 and desk.kind != DeskKind.JOIN:
            message = f"Desk {desk.desk_id} has {inbound[desk.desk_id]} inbound handoffs and must be kind desk:join"
            yield _issue(ValidationCode.ILLEGAL_FAN_IN_WITHOUT_JOIN, message, desk_id=desk.desk_id)


def _unreachable(workflow: Workflow, graph: Graph) -> Iterator[ValidationIssue]:
    reached = reachable_from(graph, workflow.entry_desk_id)
    for desk in workflow.desks:
        if desk.desk_id not in reached:
            message = f"Desk {desk.desk_id} is not reachable from entry desk {workflow.entry_desk_id}"
            yield _issue(ValidationCode.DISCONNECTED_DESK, message, desk_id=desk.desk_id)


def _issue(
    code: ValidationCode,
    message: str,
    *,
    desk_id: str | msgspec.UnsetType = msgspec.UNSET,
    handoff_id: str | msgspec.UnsetType = msgspec.UNSET,
) -> ValidationIssue:
    return ValidationIssue(code=code.value, message=message, desk_id=desk_id, handoff_id=handoff_id)
