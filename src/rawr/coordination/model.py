"""The nouns of coordination as they stand on the wire and in the store. Pure values, no behaviour.

Names, optionality and closedness follow the published contract. `handler` on a desk and `seq` on an event
are our additions; both are optional on the wire.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

import msgspec

from rawr.ids import DeskId, EventId, HandoffId, RunId, WorkflowId
from rawr.wire import JsonValue, Wire

Text = Annotated[str, msgspec.Meta(min_length=1)]
INT_MAX: Final = 2**31 - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]


class DeskKind(StrEnum):
    ANALYSIS = "desk:analysis"
    EXECUTION = "desk:execution"
    QA = "desk:qa"
    JOIN = "desk:join"
    HUMAN_WAIT = "desk:human-wait"
    OBSERVER = "desk:observer"


class RunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


TERMINAL_STATUSES: Final = frozenset({RunStatus.COMPLETED, RunStatus.FAILED})


class EventType(StrEnum):
    RUN_STARTED = "run.started"
    RUN_COMPLETED = "run.completed"
    RUN_FAILED = "run.failed"
    DESK_STARTED = "desk.started"
    DESK_COMPLETED = "desk.completed"
    DESK_FAILED = "desk.failed"


class MemoryScope(Wire, frozen=True, kw_only=True):
    persist: bool
    ttl_seconds: Count | msgspec.UnsetType = msgspec.UNSET
    namespace: str | msgspec.UnsetType = msgspec.UNSET


class RuntimePolicy(Wire, frozen=True, kw_only=True):
    retries: Count | msgspec.UnsetType = msgspec.UNSET
    timeout_seconds: Count | msgspec.UnsetType = msgspec.UNSET
    priority: Literal["low", "normal", "high"] | msgspec.UnsetType = msgspec.UNSET


class Desk(Wire, frozen=True, kw_only=True):
    """A step of work. `kind` is open text here: an unknown one is a validation error, not a decode error."""

    desk_id: Annotated[DeskId, msgspec.Meta(min_length=1)]
    kind: Text
    name: Text
    responsibility: Text
    domain: Text
    input_schema: dict[str, JsonValue]
    output_schema: dict[str, JsonValue]
    memory_scope: MemoryScope
    runtime_policy: RuntimePolicy | msgspec.UnsetType = msgspec.UNSET
    handler: Text | msgspec.UnsetType = msgspec.UNSET
    """Name of a registered desk handler; without one the desk passes its input on."""


class Handoff(Wire, frozen=True, kw_only=True):
    handoff_id: Annotated[HandoffId, msgspec.Meta(min_length=1)]
    from_desk_id: Annotated[DeskId, msgspec.Meta(min_length=1)]
    to_desk_id: Annotated[DeskId, msgspec.Meta(min_length=1)]
    condition: str | msgspec.UnsetType = msgspec.UNSET
    mapping_refs: dict[str, str] | msgspec.UnsetType = msgspec.UNSET


class Workflow(Wire, frozen=True, kw_only=True):
    workflow_id: Annotated[WorkflowId, msgspec.Meta(min_length=1)]
    version: Annotated[int, msgspec.Meta(ge=1, le=INT_MAX)]
    name: Text
    description: str | msgspec.UnsetType = msgspec.UNSET
    entry_desk_id: Annotated[DeskId, msgspec.Meta(min_length=1)]
    desks: tuple[Desk, ...]
    handoffs: tuple[Handoff, ...]
    observability_profile: Literal["basic", "full"] | msgspec.UnsetType = msgspec.UNSET
    updated_at: str | msgspec.UnsetType = msgspec.UNSET


class ValidationIssue(Wire, frozen=True, kw_only=True):
    """One reason why a workflow is not valid; `code` is one of `validate.ValidationCode`."""

    code: str
    message: str
    handoff_id: str | msgspec.UnsetType = msgspec.UNSET
    desk_id: str | msgspec.UnsetType = msgspec.UNSET


class ValidationResult(Wire, frozen=True, kw_only=True):
    ok: bool
    errors: tuple[ValidationIssue, ...]


class TraceLink(Wire, frozen=True, kw_only=True):
    provider: Literal["inngest", "rawr"]
    label: str
    url: str


class FinalizationContract(Wire, frozen=True, kw_only=True):
    """What the finished hooks of a run are promised, and what they have to keep to. Exactly-once cannot be asked for.

    No field has a default: a contract is always written out.
    """

    delivery: Literal["at-least-once"]
    exactly_once: Annotated[bool, msgspec.Meta(extra_json_schema={"const": False})]
    side_effect_policy: Literal["idempotent-non-critical"]
    failure_mode: Literal["best-effort-non-blocking"]

    def __post_init__(self) -> None:
        if self.exactly_once:
            raise ValueError("exactlyOnce must be false: a finished hook may be delivered again")


FINALIZATION_CONTRACT: Final = FinalizationContract(
    delivery="at-least-once",
    exactly_once=False,
    side_effect_policy="idempotent-non-critical",
    failure_mode="best-effort-non-blocking",
)
FINISHED_TIMEOUT_MS: Final = 5000
"""How long the finished hooks of a run may take together."""


class HookOutcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    """There was no hook for the run."""


class FinishedHookState(Wire, frozen=True, kw_only=True):
    """How the finished hooks of a run ended. It says nothing about the run, which stays as it was."""

    attempted_at: str
    outcome: HookOutcome
    error: str | msgspec.UnsetType = msgspec.UNSET
    non_critical: Annotated[bool, msgspec.Meta(extra_json_schema={"const": True})]
    idempotency_required: Annotated[bool, msgspec.Meta(extra_json_schema={"const": True})]
    timeout_ms: int


class Finalization(Wire, frozen=True, kw_only=True):
    """What happens after a run has ended. `finished_hook` is there once its outcome is known."""

    contract: FinalizationContract
    finished_hook: FinishedHookState | msgspec.UnsetType = msgspec.UNSET


class Run(Wire, frozen=True, kw_only=True):
    """One execution of one version of a workflow. Times are ISO 8601 UTC with milliseconds.

    Runs that were stored before there were finished hooks have no `finalization`, and no hook hears of them.
    """

    run_id: RunId
    workflow_id: WorkflowId
    workflow_version: int
    status: RunStatus
    started_at: str
    finished_at: str | msgspec.UnsetType = msgspec.UNSET
    input: JsonValue | msgspec.UnsetType = msgspec.UNSET
    output: JsonValue | msgspec.UnsetType = msgspec.UNSET
    error: str | msgspec.UnsetType = msgspec.UNSET
    trace_links: tuple[TraceLink, ...]
    finalization: Finalization | msgspec.UnsetType = msgspec.UNSET


class TimelineEvent(Wire, frozen=True, kw_only=True):
    """One entry of a run's timeline. `seq` counts from 1 without a gap; `event_id` is derived, never random."""

    event_id: EventId
    run_id: RunId
    workflow_id: WorkflowId
    desk_id: DeskId | msgspec.UnsetType = msgspec.UNSET
    type: EventType
    ts: str
    status: RunStatus
    detail: str | msgspec.UnsetType = msgspec.UNSET
    input: JsonValue | msgspec.UnsetType = msgspec.UNSET
    output: JsonValue | msgspec.UnsetType = msgspec.UNSET
    seq: int


class MemoryKey(Wire, frozen=True, kw_only=True):
    """What a desk remembers is kept apart by all five."""

    workflow_id: WorkflowId
    workflow_version: int
    desk_id: DeskId
    namespace: str
    key: str


class MemoryRecord(Wire, frozen=True, kw_only=True):
    at: MemoryKey
    data: JsonValue
    updated_at: str
    expires_at_ms: int | None = None
