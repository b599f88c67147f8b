"""Functions in a replay: what they reach for outside of their steps is refused, and what is in steps never begins."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.execution.test_program import desk, workflow

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType, Run, RunStatus, Workflow
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.history import read_history, run_ids
from rawr.execution.embedded.replay import Replayed, Verdict
from rawr.execution.ingest import make_ingress
from rawr.execution.ports import (
    DeskContext,
    DeskHandler,
    DurableFunction,
    FunctionDeps,
    IngressRequest,
    IngressResponse,
    OutgoingEvent,
    Steps,
)
from rawr.execution.program import coordination_runner
from rawr.execution.replaying import open_replayer
from rawr.ids import RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.wire import JsonValue, iso_from_ms

KEY = "signkey-test-" + "0f" * 32
Body = Callable[[FunctionDeps, Steps, Mapping[str, JsonValue]], Any]
RUN = RunId("run-1")
FLOW = workflow([desk("a", handler="h")])


async def given_up(*_: Any) -> None:
    return None


def function_of(body: Body) -> DurableFunction:
    return DurableFunction(function_id="fn", name="fn", event_name="go", retries=0, body=body, on_failure=given_up)


class Here:
    """An engine, a store and an ingress with all their powers, in one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = FakeClock()

    async def record(self, body: Body) -> None:
        """One run of `body`, to its end."""
        await self.run(function_of(body), FLOW, lambda received, ctx: received, {"x": 1})

    async def run(self, function: DurableFunction, flow: Workflow, handler: DeskHandler, data: Any) -> None:
        """One run of the function; a run of `flow` is queued for it."""
        store = SqliteCoordinationStore(self.root / "coordination.sqlite", self.clock)
        await store.save_workflow(flow)
        at = iso_from_ms(self.clock.now_ms())
        queued = Run(
            run_id=RUN,
            workflow_id=flow.workflow_id,
            workflow_version=flow.version,
            status=RunStatus.QUEUED,
            started_at=at,
            trace_links=(),
        )
        await store.create_run(queued, Fact(key="run.started/queued", type=EventType.RUN_STARTED, at=at))
        deps = FunctionDeps(
            store=store,
            desk_handlers={"h": handler},
            clock=self.clock,
            instance_root=self.root,
        )
        engine = EmbeddedEngine(
            database=self.root / "engine.sqlite",
            run_dir=self.root / "run",
            call=lambda *call: self._call(*call),
            signing_key=KEY,
            clock=self.clock,
            steady_ms=self.clock.now_ms,
        )
        self.ingress = make_ingress(
            [function], deps, signing_key=KEY, event_sink=engine, serve_origin="http://127.0.0.1"
        )
        await engine.prepare()
        await engine.send([OutgoingEvent(name=function.event_name, data=data)])
        await engine.run_due()
        await engine.stop(0)
        store.close()

    async def _call(self, method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        url = "http://127.0.0.1/api/inngest"
        return await self.ingress.handle(
            IngressRequest(method=method, url=url, query=query, headers=headers, body=body)
        )

    async def replay(self, function: DurableFunction) -> Replayed:
        replayer = await open_replayer(
            [function],
            coordination_database=self.root / "coordination.sqlite",
            handlers=["h"],
            instance_root=self.root,
            clock=self.clock,
        )
        database = self.root / "engine.sqlite"
        (run_id,) = run_ids(database)
        return await replayer.replay(read_history(database, run_id))


def replayed(root: Path, before: Body, now: Body) -> Replayed:
    async def both() -> Replayed:
        here = Here(root)
        await here.record(before)
        return await here.replay(function_of(now))

    return asyncio.run(both())


async def acts_in_steps(deps: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
    found = await deps.store.get_workflow(WorkflowId("flow"), 1)
    assert found is not None

    async def act(_attempt: int) -> JsonValue:
        (deps.instance_root / "acted").write_text("once more" * (deps.instance_root / "acted").exists())
        return found.name

    return {"name": await steps.run("act", act), "x": data["x"]}


def test_a_function_that_acts_only_in_steps_is_replayed_and_does_not_act(tmp_path: Path) -> None:
    found = replayed(tmp_path, acts_in_steps, acts_in_steps)
    assert (found.verdict, found.passes) == (Verdict.SAME, 2)
    assert (tmp_path / "acted").read_text() == ""


async def records(deps: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
    await deps.store.record(RunId("r"), Fact(key="k", type=EventType.RUN_FAILED, at="now"))
    return {}


async def looks(deps: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
    await deps.store.get_run(RunId("r"))
    return {}


async def calls(deps: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
    deps.desk_handlers["h"]({}, None)  # type: ignore[arg-type]  # it is never looked at
    return {}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (records, "it uses store.record"),
        (looks, "it uses store.get_run"),
        (calls, "it calls the desk handler h"),
    ],
)
def test_one_that_reaches_for_more_outside_of_its_steps_cannot_be_replayed(
    tmp_path: Path, body: Body, what: str
) -> None:
    found = replayed(tmp_path, acts_in_steps, body)
    assert found.verdict is Verdict.CANNOT
    assert found.reason == f"it acts outside of its steps: {what}"


def test_a_function_that_gives_something_else_is_different(tmp_path: Path) -> None:
    async def other(deps: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
        return {**await acts_in_steps(deps, steps, data), "x": 2}

    found = replayed(tmp_path, acts_in_steps, other)
    assert str(found.difference) == (
        'after 1 steps the history has the output {"name":"Flow","x":1}, and the code ends with {"name":"Flow","x":2}'
    )


@st.composite
def flows(draw: st.DrawFn) -> Workflow:
    """A workflow of up to six desks that are all reached from the first one."""
    count = draw(st.integers(1, 6))
    upstream = {number: draw(st.sets(st.integers(0, number - 1), min_size=1, max_size=3)) for number in range(1, count)}
    kinds = {number: "desk:join" for number, found in upstream.items() if len(found) > 1}
    desks = [desk(f"d{n}", kind=kinds.get(n, "desk:analysis"), handler="h") for n in range(count)]
    edges = [(f"d{before}", f"d{after}") for after, found in upstream.items() for before in sorted(found)]
    return workflow(desks, edges)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flows(), st.none() | st.integers(0, 5))
def test_a_run_of_any_workflow_is_the_same_as_itself_and_no_desk_works_again(
    flow: Workflow, broken: int | None
) -> None:
    worked: list[str] = []

    def handler(received: Any, ctx: DeskContext) -> Any:
        worked.append(ctx.desk_id)
        if ctx.desk_id == f"d{broken}":
            raise ValueError("broken")
        return {"from": ctx.desk_id}

    async def both(root: Path) -> Replayed:
        here, runner = Here(root), coordination_runner()
        data = {"runId": RUN, "workflowId": flow.workflow_id, "workflowVersion": flow.version}
        await here.run(runner, flow, handler, data)
        assert broken is not None or sorted(worked) == [desk.desk_id for desk in flow.desks]
        worked.clear()
        return await here.replay(runner)

    with tempfile.TemporaryDirectory() as root:
        found = asyncio.run(both(Path(root)))
    assert (found.verdict, found.difference, worked) == (Verdict.SAME, None, [])
