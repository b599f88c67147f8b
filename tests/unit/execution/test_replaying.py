"""Functions in a replay: what they reach for outside of their steps is refused, and what is in steps never begins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.unit.execution.test_program import desk, workflow

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.history import read_history, run_ids
from rawr.execution.embedded.replay import Replayed, Verdict
from rawr.execution.ingest import make_ingress
from rawr.execution.ports import DurableFunction, FunctionDeps, IngressRequest, IngressResponse, OutgoingEvent, Steps
from rawr.execution.replaying import open_replayer
from rawr.ids import RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.wire import JsonValue

KEY = "signkey-test-" + "0f" * 32
Body = Callable[[FunctionDeps, Steps, Mapping[str, JsonValue]], Any]
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
        store = SqliteCoordinationStore(self.root / "coordination.sqlite", self.clock)
        await store.save_workflow(FLOW)
        deps = FunctionDeps(
            store=store,
            desk_handlers={"h": lambda received, ctx: received},
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
            [function_of(body)], deps, signing_key=KEY, event_sink=engine, serve_origin="http://127.0.0.1"
        )
        await engine.prepare()
        await engine.send([OutgoingEvent(name="go", data={"x": 1})])
        await engine.run_due()
        await engine.stop(0)
        store.close()

    async def _call(self, method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        url = "http://127.0.0.1/api/inngest"
        return await self.ingress.handle(
            IngressRequest(method=method, url=url, query=query, headers=headers, body=body)
        )

    async def replay(self, body: Body) -> Replayed:
        replayer = await open_replayer(
            [function_of(body)],
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
        return await here.replay(now)

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
