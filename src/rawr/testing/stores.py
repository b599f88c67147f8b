"""The store of coordination in memory, with the semantics of the durable ones. The same suite runs on both.

Values are kept as JSON bytes: what a test changes after a write, or in an answer, does not reach the store.
"""

from __future__ import annotations

import msgspec

from rawr.clock import Clock, SystemClock
from rawr.coordination import store_rules
from rawr.coordination.forks import Fork
from rawr.coordination.lifecycle import (
    Fact,
    advance,
    awaits_finished_hook,
    event_id,
    event_of,
    finished,
    links_when_dispatched,
)
from rawr.coordination.model import (
    TERMINAL_STATUSES,
    EventType,
    FinishedHookState,
    MemoryKey,
    MemoryRecord,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
    Workflow,
)
from rawr.coordination.ports import CreatedRun, DeskResult, FinishedEffect
from rawr.coordination.store_rules import Save, to_json
from rawr.ids import DeskId, EventId, RunId, WorkflowId
from rawr.wire import JsonValue, encode


class _KeptRun:
    """A run, its timeline, and whether an engine has it."""

    def __init__(self, workflow_id: WorkflowId, version: int) -> None:
        self.workflow_id = workflow_id
        self.version = version
        self.document = ""
        self.status = RunStatus.QUEUED
        self.events: dict[EventId, str] = {}
        self.dispatched = False
        self.deliveries = 0
        self.effects: dict[str, str] = {}
        self.fork: str | None = None

    def run(self) -> Run:
        return msgspec.json.decode(self.document, type=Run)

    def timeline(self) -> list[TimelineEvent]:
        return [msgspec.json.decode(document, type=TimelineEvent) for document in self.events.values()]

    def append(self, run: Run, event: TimelineEvent) -> None:
        event_document, self.document = to_json(event), to_json(run)
        self.events[event.event_id] = event_document
        self.status = run.status


class MemoryCoordinationStore:
    """For one event loop. Nothing awaits between reading and writing, so each method is a transaction."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._workflows: dict[WorkflowId, dict[int, str]] = {}
        self._runs: dict[RunId, _KeptRun] = {}
        self._memory: dict[MemoryKey, str] = {}

    async def save_workflow(self, workflow: Workflow) -> None:
        document = to_json(store_rules.stamped(workflow, now_ms=self._clock.now_ms()))
        newest = await self.get_workflow(workflow.workflow_id)
        is_used = newest is not None and any(
            (kept.workflow_id, kept.version) == (newest.workflow_id, newest.version) for kept in self._runs.values()
        )
        if store_rules.save_decision(workflow, newest, newest_is_used=is_used) is not Save.KEEP:
            self._workflows.setdefault(workflow.workflow_id, {})[workflow.version] = document

    async def get_workflow(self, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
        versions = self._workflows.get(workflow_id, {})
        document = versions.get(max(versions, default=0) if version is None else version)
        return None if document is None else msgspec.json.decode(document, type=Workflow)

    async def list_workflows(self) -> list[Workflow]:
        return [
            msgspec.json.decode(versions[max(versions)], type=Workflow)
            for _, versions in sorted(self._workflows.items())
        ]

    async def workflows_json(self) -> bytes:
        return encode(await self.list_workflows())

    async def create_run(
        self, run: Run, fact: Fact, fork: Fork | None = None, *, newest: Workflow | None = None
    ) -> CreatedRun:
        kept = self._runs.get(run.run_id)
        if kept is not None:
            existing = kept.run()
            store_rules.check_same_workflow(existing, run.workflow_id)
            return CreatedRun(run=existing, created=False)
        if newest is not None and await self.get_workflow(newest.workflow_id) != newest:
            raise store_rules.workflow_moved(newest)
        kept = _KeptRun(run.workflow_id, run.workflow_version)
        kept.fork = None if fork is None else to_json(fork)
        self._append(kept, run, fact)
        self._runs[run.run_id] = kept
        return CreatedRun(run=run, created=True)

    async def fork(self, run_id: RunId) -> Fork | None:
        kept = self._runs.get(run_id)
        return None if kept is None or kept.fork is None else msgspec.json.decode(kept.fork, type=Fork)

    async def withdraw(self, run_id: RunId, fact: Fact) -> Run:
        kept = self._kept(run_id)
        before = len(kept.events)
        run = await self.record(run_id, fact)
        if len(kept.events) > before:
            kept.dispatched = False
        return run

    async def mark_dispatched(self, run: Run, *, trace_link: TraceLink | None = None) -> Run:
        kept = self._kept(run.run_id)
        run = kept.run()
        run = msgspec.structs.replace(run, trace_links=links_when_dispatched(run, trace_link))
        kept.document = to_json(run)
        kept.dispatched = True
        return run

    def note_dispatched(self, run: Run) -> None:
        self._kept(run.run_id).dispatched = True

    async def undispatched_runs(self, limit: int) -> list[Run]:
        waiting = [kept for kept in self._runs.values() if not kept.dispatched and kept.status is RunStatus.QUEUED]
        return [kept.run() for kept in waiting[: max(limit, 0)]]

    async def unfinished_runs(self, limit: int, *, after: RunId | None = None) -> list[Run]:
        ids = list(self._runs)
        behind = ids[ids.index(after) + 1 :] if after in self._runs else ids
        open_ones = [self._runs[run_id] for run_id in behind if self._runs[run_id].status not in TERMINAL_STATUSES]
        return [kept.run() for kept in open_ones[: max(limit, 0)]]

    async def record(self, run_id: RunId, fact: Fact) -> Run:
        kept = self._kept(run_id)
        run = kept.run()
        if event_id(run_id, fact.key) in kept.events:
            return run
        after = advance(run, fact)
        if after is None:
            return run
        self._append(kept, after, fact)
        return after

    async def get_run(self, run_id: RunId) -> Run | None:
        kept = self._runs.get(run_id)
        return None if kept is None else kept.run()

    async def run_json(self, run_id: RunId) -> bytes | None:
        run = await self.get_run(run_id)
        return None if run is None else encode(run)

    async def list_runs(self, *, limit: int, workflow_id: WorkflowId | None = None) -> list[Run]:
        newest_first = [
            kept for kept in reversed(self._runs.values()) if workflow_id is None or kept.workflow_id == workflow_id
        ]
        return [kept.run() for kept in newest_first[: max(limit, 0)]]

    async def timeline(self, run_id: RunId, *, from_seq: int = 1) -> list[TimelineEvent]:
        kept = self._runs.get(run_id)
        return [] if kept is None else kept.timeline()[from_seq - 1 :]

    async def timeline_json(self, run_id: RunId) -> bytes | None:
        return encode(await self.timeline(run_id)) if run_id in self._runs else None

    async def desk_result(self, run_id: RunId, desk_id: DeskId) -> DeskResult | None:
        for event in await self.timeline(run_id):
            if event.type is EventType.DESK_COMPLETED and event.desk_id == desk_id:
                return DeskResult(output=None if event.output is msgspec.UNSET else event.output)
        return None

    async def get_memory(self, at: MemoryKey, *, now_ms: int) -> MemoryRecord | None:
        document = self._memory.get(at)
        if document is None:
            return None
        record = msgspec.json.decode(document, type=MemoryRecord)
        expired = record.expires_at_ms is not None and record.expires_at_ms <= now_ms
        return None if expired else record

    async def begin_finished_hook(self, run_id: RunId) -> int:
        kept = self._kept(run_id)
        if kept.run().finalization is msgspec.UNSET:
            raise store_rules.run_not_found(run_id)
        kept.deliveries += 1
        return kept.deliveries

    async def record_finished_hook(self, run_id: RunId, state: FinishedHookState) -> Run:
        kept = self._kept(run_id)
        run = kept.run()
        after = finished(run, state)
        if after is None:
            return run
        kept.document = to_json(after)
        return after

    async def unheard_runs(self, limit: int) -> list[Run]:
        never_taken = [
            kept.run() for kept in self._runs.values() if not kept.dispatched and kept.status is RunStatus.FAILED
        ]
        return [run for run in never_taken if awaits_finished_hook(run)][: max(limit, 0)]

    async def finished_effect(self, run_id: RunId, key: str) -> FinishedEffect | None:
        kept = self._runs.get(run_id)
        document = None if kept is None else kept.effects.get(key)
        return None if document is None else FinishedEffect(result=msgspec.json.decode(document))

    async def record_finished_effect(self, run_id: RunId, key: str, result: JsonValue) -> FinishedEffect:
        document = to_json(result)
        kept = self._kept(run_id)
        return FinishedEffect(result=msgspec.json.decode(kept.effects.setdefault(key, document)))

    async def count_runs(self) -> dict[RunStatus, int]:
        statuses = [kept.status for kept in self._runs.values()]
        return {status: statuses.count(status) for status in RunStatus}

    def close(self) -> None:
        """Nothing to close; here so that tests can treat all stores alike."""

    def _kept(self, run_id: RunId) -> _KeptRun:
        kept = self._runs.get(run_id)
        if kept is None:
            raise store_rules.run_not_found(run_id)
        return kept

    def _append(self, kept: _KeptRun, run: Run, fact: Fact) -> None:
        memory = None if fact.memory is None else to_json(fact.memory)  # first: it may refuse, and nothing is kept
        kept.append(run, event_of(run, fact, seq=len(kept.events) + 1))
        if fact.memory is not None and memory is not None:
            self._memory[fact.memory.at] = memory
