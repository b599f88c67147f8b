"""The durable function that runs a coordination workflow. It knows neither the SDK nor the engine.

The body runs again and again from its start; what must happen once is in a step, and what must be recorded once
has a key. A step remembers only whether its desk succeeded: outputs live in the store, in the same transaction
as the event that reports them. The step that ends a run also tells the finished hooks, so that the engine does it
again when the process dies in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from rawr.coordination.desks import inbound
from rawr.coordination.graph import Graph, graph_of, topological_order
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import TERMINAL_STATUSES, EventType, Run, TraceLink, Workflow
from rawr.coordination.ports import RunNotFoundError
from rawr.coordination.schemas import SchemaChecker
from rawr.execution.desk import RETRIES_MAX, DeskFailedError, DeskOutcome, DeskWork, keep_desk, work_desk
from rawr.execution.finished import outcome_without_hooks, tell_finished
from rawr.execution.ports import DurableFunction, FunctionDeps, FunctionFailedError, Steps
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.telemetry.contract import inngest_link
from rawr.wire import JsonValue, iso_from_ms

FUNCTION_ID: Final = "coordination-workflow-runner"
RUNNER_PROTOCOL: Final = 1
"""Raise it with every change of which steps a run has, of their ids or order, or of what their memos mean: runs that
began before are then held instead of going on in a program that reads their history wrongly."""
EVENT_NAME: Final = "rawr/coordination.workflow.run"

_ENDED: Final = "run has ended"
_OK: Final[dict[str, JsonValue]] = {"ok": True}


def coordination_runner() -> DurableFunction:
    """The runner for one instance; the schemas it compiles are its own."""
    return DurableFunction(
        function_id=FUNCTION_ID,
        name="Coordination Workflow Runner",
        event_name=EVENT_NAME,
        retries=RETRIES_MAX,  # how often a desk is tried is its own policy, which is applied here
        body=partial(_run_workflow, SchemaChecker()),
        on_failure=_record_given_up,
    )


async def _run_workflow(
    checker: SchemaChecker, deps: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]
) -> JsonValue:
    """Start the run, let every desk work as soon as its upstream desks are done, and end the run."""
    run_id = RunId(data["runId"])
    workflow = await _workflow(deps, data)
    await steps.run("coordination/run-start", lambda _: _start(deps, run_id, steps.engine_run_id))
    progress = _Progress(deps, steps, run_id, workflow, checker)
    await steps.race(progress.branches())
    if progress.failure is not None:
        raise FunctionFailedError(progress.failure)
    last = progress.order[-1]
    await steps.run("coordination/run-completed", lambda _: _complete(deps, run_id, workflow.workflow_id, last))
    return {"runId": run_id, "status": "completed"}


class _Progress:
    """What one pass over the body has seen so far."""

    def __init__(
        self, deps: FunctionDeps, steps: Steps, run_id: RunId, workflow: Workflow, checker: SchemaChecker
    ) -> None:
        self._deps = deps
        self._steps = steps
        self._run_id = run_id
        self._workflow = workflow
        self._checker = checker
        self._graph = graph_of(workflow)
        self._done: set[DeskId] = set()
        self.order = topological_order(self._graph)
        self.failure: str | None = None

    def branches(self) -> list[Callable[[], Awaitable[None]]]:
        return [*[partial(self._desk, desk_id) for desk_id in self.order], self._fail]

    async def _desk(self, desk_id: DeskId) -> None:
        """A desk's turn, unless it has to wait. Upstream desks come first in the order, so one pass finds all."""
        if self.failure is not None or not self._done.issuperset(self._graph.upstream[desk_id]):
            return
        memo = await self._steps.run(f"desk/{desk_id}", lambda attempt: self._work(desk_id, attempt))
        if memo["ok"]:
            self._done.add(desk_id)
        else:
            self.failure = f"desk {desk_id} failed: {memo['error']}"

    async def _fail(self) -> None:
        """The last branch: it records the failure at once, also while other desks are still at work."""
        if self.failure is not None:
            failure = self.failure
            workflow_id = self._workflow.workflow_id
            await self._steps.run(
                "coordination/run-failed", lambda _: _fail(self._deps, self._run_id, workflow_id, failure)
            )

    async def _work(self, desk_id: DeskId, attempt: int) -> JsonValue:
        run = await _known_run(self._deps, self._run_id)
        if run.status in TERMINAL_STATUSES:
            return {"ok": False, "error": _ENDED}
        if await self._deps.store.desk_result(self._run_id, desk_id) is not None:
            return _OK  # it was recorded, and the process died before the step was remembered
        match await self._worked(run, desk_id, attempt + 1):
            case DeskOutcome.COMPLETED:
                return _OK
            case DeskOutcome.RUN_ENDED:
                return {"ok": False, "error": _ENDED}
            case DeskFailedError() as failure if failure.may_retry:
                raise failure
            case failure:
                return {"ok": False, "error": failure.message}

    async def _worked(self, run: Run, desk_id: DeskId, attempt: int) -> DeskOutcome | DeskFailedError:
        """Let the desk work, or take what it gave in the run that this one repeats."""
        desk = next(desk for desk in self._workflow.desks if desk.desk_id == desk_id)
        fork = await self._deps.store.fork(self._run_id)
        if fork is not None and (kept := fork.kept.get(desk_id)) is not None:
            work = DeskWork(run=run, desk=desk, received=kept.input, attempt=attempt)
            return await keep_desk(self._deps, work, kept, fork.rerun_of)
        if fork is not None and desk_id in fork.inputs:
            received = fork.inputs[desk_id]
        else:
            received = await _received(self._deps, run, self._graph, desk_id)
        work = DeskWork(run=run, desk=desk, received=received, attempt=attempt)
        return await work_desk(self._deps, self._checker, work)


async def _workflow(deps: FunctionDeps, data: Mapping[str, JsonValue]) -> Workflow:
    workflow_id, version = WorkflowId(data["workflowId"]), int(data["workflowVersion"])
    workflow = await deps.store.get_workflow(workflow_id, version)
    if workflow is None:
        raise FunctionFailedError(f"workflow {workflow_id} version {version} is not in the store")
    return workflow


async def _known_run(deps: FunctionDeps, run_id: RunId) -> Run:
    run = await deps.store.get_run(run_id)
    if run is None:
        raise FunctionFailedError(f"run {run_id} is not in the store")
    return run


async def _received(deps: FunctionDeps, run: Run, graph: Graph, desk_id: DeskId) -> JsonValue:
    outputs: dict[DeskId, JsonValue] = {}
    for upstream in graph.upstream[desk_id]:
        result = await deps.store.desk_result(run.run_id, upstream)
        if result is not None:
            outputs[upstream] = result.output
    run_input = {} if run.input is msgspec.UNSET else run.input
    return inbound(graph, desk_id, run_input, outputs)


async def _start(deps: FunctionDeps, run_id: RunId, engine_run_id: str) -> JsonValue:
    await _known_run(deps, run_id)
    link = None
    if deps.trace_url is not None:
        found = inngest_link(deps.trace_url, run_id, inngest_run_id=engine_run_id)
        link = TraceLink(provider=found.provider, label=found.label, url=found.url)
    fact = Fact(
        key="run.started/running",
        type=EventType.RUN_STARTED,
        at=iso_from_ms(deps.clock.now_ms()),
        detail=f"Coordination run started ({run_id})",
        trace_link=link,
    )
    await deps.store.record(run_id, fact)
    return _OK


async def _complete(deps: FunctionDeps, run_id: RunId, workflow_id: WorkflowId, last: DeskId) -> JsonValue:
    result = await deps.store.desk_result(run_id, last)
    assert result is not None, "all desks are done, the last one too"
    fact = Fact(
        key="run.completed",
        type=EventType.RUN_COMPLETED,
        at=iso_from_ms(deps.clock.now_ms()),
        output=result.output,
        finished_hook=outcome_without_hooks(deps, workflow_id),
    )
    await deps.store.record(run_id, fact)
    await tell_finished(deps, run_id)
    return _OK


async def _fail(deps: FunctionDeps, run_id: RunId, workflow_id: WorkflowId, error: str) -> JsonValue:
    fact = Fact(
        key="run.failed",
        type=EventType.RUN_FAILED,
        at=iso_from_ms(deps.clock.now_ms()),
        detail=error,
        error=error,
        finished_hook=outcome_without_hooks(deps, workflow_id),
    )
    await deps.store.record(run_id, fact)
    await tell_finished(deps, run_id)
    return _OK


async def _record_given_up(deps: FunctionDeps, data: Mapping[str, JsonValue], error: str) -> None:
    """The engine gave the run up. When the run has ended already, or never was, there is nothing to record."""
    try:
        await _fail(deps, RunId(data["runId"]), WorkflowId(data["workflowId"]), error)
    except RunNotFoundError:
        return
