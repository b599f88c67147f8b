"""What coordination needs from the outside: a store, and a way to hand a run to an engine. Protocols only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from rawr.coordination.forks import Fork
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import (
    FinishedHookState,
    MemoryKey,
    MemoryRecord,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
    Workflow,
)
from rawr.errors import RawrError
from rawr.ids import DeskId, EventId, RunId, WorkflowId
from rawr.wire import JsonValue


class WorkflowVersionConflictError(RawrError):
    """A save would put an older version over a newer one, or change a version that a run has used."""

    code = "WORKFLOW_VERSION_CONFLICT"


class RunIdConflictError(RawrError):
    """The run id belongs to a run of another workflow. Nothing was changed."""

    code = "RUN_ID_CONFLICT"


class WorkflowMovedError(RawrError):
    """The newest version of the workflow is not the one it was taken for. Nothing was changed."""

    code = "WORKFLOW_MOVED"


class RunNotFoundError(RawrError):
    code = "RUN_NOT_FOUND"


class EngineUnreachableError(RawrError):
    """The engine gave no answer. Whether it has the run is not known; handing it over again does no harm."""

    code = "ENGINE_UNREACHABLE"


class CreatedRun(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    created: bool
    """False when the run was there before; `run` is then the stored one, unchanged."""


class DeskResult(msgspec.Struct, frozen=True, kw_only=True):
    output: JsonValue


class FinishedEffect(msgspec.Struct, frozen=True, kw_only=True):
    """An effect of a finished hook that has happened."""

    result: JsonValue


class CoordinationStore(Protocol):
    """Workflows, runs, timelines and desk memory. One suite runs against every implementation.

    Every write is durable when its coroutine returns, and a run's new state and the event that caused it are
    one transaction. Safe for use from several processes on one instance at once.
    """

    async def save_workflow(self, workflow: Workflow) -> None:
        """Keep this version. A newer version is added; the newest may be replaced while no run has used it.

        Saving an identical document again is a no-op (`updated_at` is not compared).
        Raises WorkflowVersionConflictError.
        """
        ...

    async def get_workflow(self, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
        """The given version, or the newest one."""
        ...

    async def list_workflows(self) -> list[Workflow]:
        """The newest version of each workflow, by id."""
        ...

    async def workflows_json(self) -> bytes:
        """The same as one list in their wire form, for who passes it on unread."""
        ...

    async def create_run(
        self, run: Run, fact: Fact, fork: Fork | None = None, *, newest: Workflow | None = None
    ) -> CreatedRun:
        """Add a run and its first event (seq 1; the run's status is stored as given, `fact` is not applied to it).

        `fork` says how it goes on from another run; it never changes. `newest` is what the caller takes for the newest
        version of the workflow, as it was read.

        A run with this id of the same workflow is returned as it is. Raises RunIdConflictError when it belongs
        to another workflow, WorkflowMovedError when `newest` is not the newest version any more.
        """
        ...

    async def fork(self, run_id: RunId) -> Fork | None:
        """How the run goes on from another one; None for a run that does not, and for an unknown one."""
        ...

    async def withdraw(self, run_id: RunId, fact: Fact) -> Run:
        """`record` the end of a run that no engine is to go on with: it then counts as one that none has accepted.

        So its finished hooks are told as theirs are. A run that has ended stays as it is.
        Raises RunNotFoundError, IllegalTransitionError.
        """
        ...

    async def mark_dispatched(self, run: Run, *, trace_link: TraceLink | None = None) -> Run:
        """Remember that an engine has durably accepted the run, and by `links_when_dispatched` where it shows it.

        `run` is as it was created or read; a fast engine may have moved it on, and it is given as it is now.
        Raises RunNotFoundError.
        """
        ...

    def note_dispatched(self, run: Run) -> None:
        """`mark_dispatched` for who does not wait for it: durable soon, and before whatever is written after it.

        When it is lost the run is handed over again at the next start, which does no harm.
        """
        ...

    async def undispatched_runs(self, limit: int) -> list[Run]:
        """Queued runs that no engine has accepted (the process died between the two), oldest first."""
        ...

    async def unfinished_runs(self, limit: int, *, after: RunId | None = None) -> list[Run]:
        """Runs that have not ended, oldest first, from the one behind `after` on."""
        ...

    async def record(self, run_id: RunId, fact: Fact) -> Run:
        """Apply `fact` by `lifecycle.advance` and append its event, atomically; return the run after it.

        A fact whose key was recorded before, or that comes after the run has ended, changes nothing.
        Raises RunNotFoundError, IllegalTransitionError.
        """
        ...

    async def get_run(self, run_id: RunId) -> Run | None: ...

    async def run_json(self, run_id: RunId) -> bytes | None:
        """The same in its wire form, for who passes it on unread."""
        ...

    async def list_runs(self, *, limit: int, workflow_id: WorkflowId | None = None) -> list[Run]:
        """Newest first."""
        ...

    async def timeline(self, run_id: RunId, *, from_seq: int = 1) -> list[TimelineEvent]:
        """The events of the run from `from_seq` on, by `seq`, which counts from 1 without a gap.

        Empty for an unknown run. Costs what is returned, however long the timeline is.
        """
        ...

    async def timeline_json(self, run_id: RunId) -> bytes | None:
        """All of it as one list in their wire form, for who passes it on unread; None for an unknown run."""
        ...

    async def desk_result(self, run_id: RunId, desk_id: DeskId) -> DeskResult | None:
        """What the desk gave when it completed in this run, or None when it has not."""
        ...

    async def get_memory(self, at: MemoryKey, *, now_ms: int) -> MemoryRecord | None:
        """The record, unless it has expired."""
        ...

    async def begin_finished_hook(self, run_id: RunId) -> int:
        """Count a delivery to the run's finished hooks; how many have begun now, this one included.

        Raises RunNotFoundError: there is no such run, or none under the contract.
        """
        ...

    async def record_finished_hook(self, run_id: RunId, state: FinishedHookState) -> Run:
        """Keep how the finished hook of an ended run ended, by `lifecycle.finished`; the first outcome stays.

        Raises RunNotFoundError, IllegalTransitionError.
        """
        ...

    async def unheard_runs(self, limit: int) -> list[Run]:
        """Failed runs that no engine has accepted and whose finished hook has no outcome, oldest first.

        Of all other ended runs the engine sees to it that their hook is called.
        """
        ...

    async def finished_effect(self, run_id: RunId, key: str) -> FinishedEffect | None:
        """The effect that was recorded under `key` for this run, or None."""
        ...

    async def record_finished_effect(self, run_id: RunId, key: str, result: JsonValue) -> FinishedEffect:
        """Keep that an effect has happened; the one under `key` afterwards, which is the first that was kept.

        Raises RunNotFoundError; BadInputError when `result` is not JSON.
        """
        ...

    async def count_runs(self) -> dict[RunStatus, int]: ...


class Dispatcher(Protocol):
    async def dispatch(self, run: Run) -> Sequence[EventId]:
        """Hand the run to the engine, durably and idempotently by run id; return the engine's event ids."""
        ...

    async def withdraw(self, run: Run, reason: str) -> None:
        """Let the engine forget a run that has been ended. Where it cannot, its next step finds the run ended."""
        ...
