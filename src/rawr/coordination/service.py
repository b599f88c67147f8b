"""What can be asked of coordination: save, read, validate and run workflows. Decides with the pure modules,
stores through the store, and hands runs to whichever engine it was given.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final, TypeVar

import msgspec

from rawr.clock import Clock, RunIdSource
from rawr.coordination.forks import RerunAsked, fork_detail, forked
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    TERMINAL_STATUSES,
    EventType,
    Finalization,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
    ValidationResult,
    Workflow,
)
from rawr.coordination.ports import (
    CoordinationStore,
    CreatedRun,
    Dispatcher,
    EngineUnreachableError,
    RunNotFoundError,
    WorkflowMovedError,
)
from rawr.coordination.runnable import (
    RunnableWorkflows,
    WorkflowInvalidError,
    existing_workflow,
    judged,
    refuse_unrunnable,
    workflow_id_of,
)
from rawr.coordination.store_rules import check_same_workflow
from rawr.errors import BadInputError, RawrError, StorageError
from rawr.ids import EventId, RunId, WorkflowId, normalized_id
from rawr.telemetry.contract import Link, inngest_link, trace_links
from rawr.wire import JsonValue, iso_from_ms

T = TypeVar("T")
_log: Final = logging.getLogger(__name__)

AT_ONCE: Final = 50
"""How many runs are handed over together, so that they share their flushes."""
UNHEARD_MAX: Final = 500
WATCH_PAUSE_MIN_S: Final = 0.05
WATCH_PAUSE_MAX_S: Final = 0.4


class InvalidRunIdError(BadInputError):
    code = "INVALID_RUN_ID"


class TimelineEventNotFoundError(RawrError):
    """Whoever says to have seen this event of the run cannot have."""

    code = "TIMELINE_EVENT_NOT_FOUND"


class RunQueueFailedError(RawrError):
    """The engine did not take the run. The run is stored as failed."""

    code = "RUN_QUEUE_FAILED"

    def __init__(self, message: str, run: Run) -> None:
        super().__init__(message, details={"run": msgspec.to_builtins(run)})
        self.run = run


class QueuedRun(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    event_ids: tuple[EventId, ...]
    """Empty when the run was there before."""


class CoordinationService:
    """The coordination of one instance.

    `base_url` is asked whenever a run is queued, because a server on port 0 knows it only after binding.
    `trace_url` is where the pages of a real Inngest server begin: runs get a link to theirs. The embedded engine has
    no page to link to.
    `pause` waits between two looks at a run that is watched.
    `tell_finished` calls the finished hooks of a run that no engine has taken; of all others the engine does it.
    `starting` is entered while a run is being started, for who gives way to that.
    """

    def __init__(
        self,
        *,
        store: CoordinationStore,
        dispatcher: Dispatcher,
        clock: Clock,
        run_ids: RunIdSource,
        base_url: Callable[[], str],
        trace_url: str | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tell_finished: Callable[[RunId], Awaitable[None]] | None = None,
        starting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._store = store
        self._dispatcher = dispatcher
        self._clock = clock
        self._run_ids = run_ids
        self._base_url = base_url
        self._trace_url = trace_url
        self._pause = pause
        self._tell_finished = tell_finished
        self._starting = starting
        self._runnable = RunnableWorkflows(store)

    async def list_workflows(self) -> list[Workflow]:
        """The newest version of each, by id."""
        return await self._store.list_workflows()

    async def workflows_json(self) -> bytes:
        """The same as a list in its wire form, unread."""
        return await self._store.workflows_json()

    async def save_workflow(self, workflow: Workflow) -> Workflow:
        """Keep a workflow, durably; answer it as it was given.

        Raises:
            WorkflowInvalidError: with every reason.
            WorkflowVersionConflictError: older than the newest version, or that version has been run.
        """
        validation = await judged(workflow)
        if not validation.ok:
            raise WorkflowInvalidError(validation)
        await self._store.save_workflow(workflow)
        return workflow

    async def get_workflow(self, workflow_id: str) -> Workflow:
        """Raises InvalidWorkflowIdError, WorkflowNotFoundError."""
        return await existing_workflow(self._store, workflow_id_of(workflow_id))

    async def validate_workflow(self, workflow_id: str) -> ValidationResult:
        return await judged(await self.get_workflow(workflow_id))

    async def queue_run(
        self,
        workflow_id: str,
        run_id: str | None = None,
        run_input: JsonValue = None,
        *,
        correlation_id: str | None = None,
    ) -> QueuedRun:
        """Start a run of the newest version, durably; the same run id and workflow give the same run.

        An absent or null input is `{}`; any other is kept as given. The `correlation_id` of the request that asks for
        the run stands in the first event of its timeline, so that what is logged of both can be found together.

        Raises:
            InvalidWorkflowIdError, InvalidRunIdError, WorkflowNotFoundError, WorkflowInvalidError,
            WorkflowNotRunnableError: nothing was stored.
            RunIdConflictError: the run id belongs to another workflow; nothing was changed.
            RunQueueFailedError: the run was stored and the engine refused it.
        """
        known = workflow_id_of(workflow_id)
        is_named = run_id is not None and bool(run_id.strip())
        wanted = _new_run_id(run_id) if run_id is not None and is_named else self._run_ids.next()
        if is_named and (existing := await self._run_of(known, wanted)) is not None:
            return QueuedRun(run=existing, event_ids=())
        with self._starting():
            created = await self._created(known, wanted, {} if run_input is None else run_input, correlation_id)
            if not created.created:
                return QueuedRun(run=created.run, event_ids=())
            return await self._dispatched(created.run)

    async def _run_of(self, workflow_id: WorkflowId, run_id: RunId) -> Run | None:
        """The run of this id, if there is one; also when its workflow can no longer be run.

        Raises:
            WorkflowNotFoundError, RunIdConflictError: it belongs to another workflow.
        """
        await existing_workflow(self._store, workflow_id)
        existing = await self._store.get_run(run_id)
        if existing is not None:
            check_same_workflow(existing, workflow_id)
        return existing

    async def _created(
        self, workflow_id: WorkflowId, run_id: RunId, run_input: JsonValue, correlation_id: str | None
    ) -> CreatedRun:
        """The new run of the newest version. Raises what `queue_run` raises before anything is stored."""
        while True:
            workflow = await self._runnable.newest(workflow_id)
            queued = self._queued_run(workflow, run_id, run_input)
            fact = _queued_fact(queued.started_at, correlation_id)
            try:
                return await self._store.create_run(queued, fact, newest=workflow)
            except WorkflowMovedError:
                self._runnable.forget(workflow_id)  # each time somebody has saved it: this ends when they rest

    async def rerun(self, run_id: str, asked: RerunAsked) -> QueuedRun:
        """Run a run again as a new one, durably: whole, or from a desk on with what completed before it.

        It is of the same version of the workflow. The old run stays as it is; one that has not ended is ended first.

        Raises:
            InvalidRunIdError, RunNotFoundError, RerunRefusedError, WorkflowInvalidError, WorkflowNotRunnableError:
                nothing was changed.
            RunQueueFailedError: the new run was stored and the engine refused it.
        """
        old = await self.get_run(run_id)
        workflow = await self._store.get_workflow(old.workflow_id, old.workflow_version)
        assert workflow is not None, "the version of a workflow that a run has used is never removed"
        await refuse_unrunnable(workflow)
        fork = forked(old, workflow, await self._store.timeline(old.run_id), asked)
        run_input = old.input if asked.run_input is msgspec.UNSET else asked.run_input
        new = self._queued_run(workflow, self._run_ids.next(), {} if run_input is msgspec.UNSET else run_input)
        if old.status not in TERMINAL_STATUSES:
            await self._end_for(old, f"ended: it is run again as {new.run_id}")
        fact = msgspec.structs.replace(_queued_fact(new.started_at, None), detail=fork_detail(fork))
        created = await self._store.create_run(new, fact, fork)
        return await self._dispatched(created.run)

    async def _end_for(self, run: Run, reason: str) -> None:
        """End a run for people first, then for the engine: what a desk still gives meanwhile is dropped."""
        fact = Fact(key="run.failed", type=EventType.RUN_FAILED, at=self._now(), detail=reason, error=reason)
        await self._store.withdraw(run.run_id, fact)
        await self._dispatcher.withdraw(run, reason)
        await self._told(run)

    async def get_run(self, run_id: str) -> Run:
        """Raises InvalidRunIdError, RunNotFoundError."""
        known = run_id_of(run_id)
        run = await self._store.get_run(known)
        if run is None:
            raise _run_not_found(known)
        return run

    async def run_json(self, run_id: str) -> bytes:
        """The same in its wire form, unread. Raises as `get_run` does."""
        known = run_id_of(run_id)
        run = await self._store.run_json(known)
        if run is None:
            raise _run_not_found(known)
        return run

    async def run_timeline(self, run_id: str) -> tuple[RunId, list[TimelineEvent]]:
        run = await self.get_run(run_id)
        return run.run_id, await self._store.timeline(run.run_id)

    async def run_timeline_json(self, run_id: str) -> tuple[RunId, bytes]:
        """The same with the timeline as a list in its wire form, unread. Raises as `get_run` does."""
        known = run_id_of(run_id)
        timeline = await self._store.timeline_json(known)
        if timeline is None:
            raise _run_not_found(known)
        return known, timeline

    async def watch_run(self, run_id: str, *, after_seq: int = 0) -> AsyncGenerator[TimelineEvent, None]:
        """The events of the run after `after_seq`, those to come included; it ends with the run.

        A run that is moved on by another process is followed as well: the store is asked again and again, ever
        less often while nothing happens.

        Raises:
            InvalidRunIdError, RunNotFoundError.
            TimelineEventNotFoundError: the run has not come to `after_seq` yet, or never will.
        """
        run = await self.get_run(run_id)
        events = await self._store.timeline(run.run_id, from_seq=max(after_seq, 1))
        if not events:
            raise TimelineEventNotFoundError(
                f"run {run.run_id} has no event {after_seq}", details={"runId": run.run_id, "seq": after_seq}
            )
        return self._events_to_the_end(run.run_id, events, after_seq)

    async def _events_to_the_end(
        self, run_id: RunId, events: list[TimelineEvent], seen: int
    ) -> AsyncGenerator[TimelineEvent, None]:
        pause_s = WATCH_PAUSE_MIN_S
        while True:
            for event in events:
                if event.seq > seen:
                    yield event
                    seen = event.seq
                if event.status in TERMINAL_STATUSES:
                    return
            await self._pause(pause_s)
            events = await self._store.timeline(run_id, from_seq=seen + 1)
            pause_s = WATCH_PAUSE_MIN_S if events else min(pause_s * 2, WATCH_PAUSE_MAX_S)

    async def list_runs(self, *, limit: int = 50) -> list[Run]:
        return await self._store.list_runs(limit=limit)

    async def resume_undispatched(self) -> int:
        """Hand over runs whose process died between storing and handing over; how many.

        A run that the engine refuses is recorded as failed and does not keep the others back. An engine that cannot
        be reached leaves all of them as they are.

        Raises:
            EngineUnreachableError
        """
        resumed = 0
        before: list[Run] = []
        # The same ones again: what became of them could not be stored.
        while (waiting := await self._store.undispatched_runs(AT_ONCE)) != before:
            resumed += sum(await _all(self._taken_or_failed(run) for run in waiting))
            before = waiting
        return resumed

    async def _taken_or_failed(self, run: Run) -> bool:
        """Whether the engine took it. Raises EngineUnreachableError: nobody knows."""
        try:
            await self._hand_over(run)
        except EngineUnreachableError:
            raise
        except (RawrError, OSError) as error:
            await self._queue_failed(run, error)
            return False
        return True

    async def resume_unfinished(self) -> int:
        """Hand over all runs that have not ended, for an engine that has lost what it knew; how many.

        What their desks have done is recorded and not done again. To an engine that knows them it changes nothing.

        Raises:
            EngineUnreachableError
        """
        resumed = 0
        after: RunId | None = None
        while unfinished := await self._store.unfinished_runs(AT_ONCE, after=after):
            await _all(self._hand_over(run) for run in unfinished)
            resumed += len(unfinished)
            after = unfinished[-1].run_id
        return resumed

    async def tell_unheard(self) -> None:
        """Call the finished hooks of runs that failed before an engine had them, and whose process died before that."""
        if self._tell_finished is not None:
            for run in await self._store.unheard_runs(UNHEARD_MAX):
                await self._tell_finished(run.run_id)

    def _queued_run(self, workflow: Workflow, run_id: RunId, run_input: JsonValue) -> Run:
        links = trace_links(self._base_url(), run_id, inngest_base_url=None)
        return Run(
            run_id=run_id,
            workflow_id=workflow.workflow_id,
            workflow_version=workflow.version,
            status=RunStatus.QUEUED,
            started_at=self._now(),
            input=run_input,
            trace_links=tuple(trace_link_of(link) for link in links),
            finalization=Finalization(contract=FINALIZATION_CONTRACT),
        )

    async def _dispatched(self, run: Run) -> QueuedRun:
        try:
            event_ids = tuple(await self._dispatcher.dispatch(run))
        except (RawrError, OSError) as error:
            raise await self._queue_failed(run, error) from error
        return QueuedRun(run=await self._noted(run, self._link_of(run, event_ids)), event_ids=event_ids)

    async def _noted(self, run: Run, link: TraceLink | None) -> Run:
        """The run with its link. The engine has it, so it is none that failed because that could not be stored."""
        try:
            if link is not None:
                return await self._store.mark_dispatched(run, trace_link=link)
            self._store.note_dispatched(run)
        except StorageError as error:
            _log.warning("run %s was handed over, and will be again at the next start: %s", run.run_id, error.message)
        return run

    async def _hand_over(self, run: Run) -> None:
        event_ids = await self._dispatcher.dispatch(run)
        await self._store.mark_dispatched(run, trace_link=self._link_of(run, event_ids))

    def _link_of(self, run: Run, event_ids: Sequence[EventId]) -> TraceLink | None:
        """Where the engine shows it, if it has pages."""
        if self._trace_url is None or not event_ids:
            return None
        return trace_link_of(inngest_link(self._trace_url, run.run_id, inngest_event_id=event_ids[0]))

    async def _queue_failed(self, run: Run, error: Exception) -> RunQueueFailedError:
        message = f"run {run.run_id} could not be handed to the engine: {error}"
        fact = Fact(key="run.failed", type=EventType.RUN_FAILED, at=self._now(), detail=message, error=message)
        try:
            run = await self._store.record(run.run_id, fact)
        except StorageError as second:  # the disk refuses this too: say so, the run stays queued and is retried
            message = f"{message}; that could not be stored either: {second}"
        return RunQueueFailedError(message, await self._told(run))

    async def _told(self, run: Run) -> Run:
        """The run after its finished hooks. What cannot be recorded now is told again at the next start."""
        if self._tell_finished is not None:
            with suppress(StorageError):
                await self._tell_finished(run.run_id)
                run = await self.get_run(run.run_id)
        return run

    def _now(self) -> str:
        return iso_from_ms(self._clock.now_ms())


def trace_link_of(link: Link) -> TraceLink:
    return TraceLink(provider=link.provider, label=link.label, url=link.url)


async def _all(tasks: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What each of them gives, when all have ended. Raises what the first that failed raised."""
    given = await asyncio.gather(*tasks, return_exceptions=True)
    for one in given:
        if isinstance(one, BaseException):
            raise one
    return [one for one in given if not isinstance(one, BaseException)]


def run_id_of(text: str) -> RunId:
    """The id in `text`, trimmed. Raises InvalidRunIdError."""
    known = normalized_id(text)
    if known is None:
        raise InvalidRunIdError("Invalid runId format", details={"runId": text.strip()})
    return RunId(known)


def _run_not_found(run_id: RunId) -> RunNotFoundError:
    return RunNotFoundError("run not found", details={"runId": run_id})


def _new_run_id(text: str) -> RunId:
    known = normalized_id(text)
    if known is None:
        given = text.strip()
        raise InvalidRunIdError(f"Invalid runId format: {given}", details={"runId": given})
    return RunId(known)


def _queued_fact(at: str, correlation_id: str | None) -> Fact:
    asked_by = "" if correlation_id is None else f" (correlation {correlation_id})"
    return Fact(
        key="run.started/queued",
        type=EventType.RUN_STARTED,
        at=at,
        detail=f"Coordination run queued for Inngest execution{asked_by}",
    )
