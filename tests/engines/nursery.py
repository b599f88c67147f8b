"""A program that is killed again and again: it forks a child that works on one run, and kills it at random moments.

    nursery.py <root> <seed> <kills>

The child sends the run's event (a second one is a no-op), works until nothing is left, and exits with 0. After
each kill the parent notes which steps and desks were remembered; a log, appended to by the code under test, says
what ran in which life. One JSON document on stdout tells the test what happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from rawr.clock import SystemClock
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import Desk, EventType, Handoff, MemoryScope, Run, RunStatus, Workflow
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.schema import MIGRATIONS
from rawr.execution.ingest import make_ingress
from rawr.execution.ports import (
    DeskContext,
    DurableFunction,
    EventSink,
    FunctionDeps,
    IngressRequest,
    IngressResponse,
    OutgoingEvent,
    Steps,
)
from rawr.execution.program import EVENT_NAME, coordination_runner
from rawr.ids import DeskId, HandoffId, RunId, WorkflowId
from rawr.storage.sqlite import Database, rows
from rawr.wire import JsonValue, iso_from_ms

KEY = "signkey-prod-" + "5a" * 32
RUN = RunId("run-1")
STEPS = 40
DESKS = ("a", "b", "c", "d", "e")
EDGES = (("a", "b"), ("a", "c"), ("a", "d"), ("b", "e"), ("c", "e"), ("d", "e"))


class World:
    def __init__(self, root: Path, life: int) -> None:
        self.root = root
        self.life = life

    def log(self, what: str) -> None:
        with (self.root / "log").open("a") as file:
            file.write(f"{self.life} {what}\n")

    def counting_function(self) -> DurableFunction:
        async def step(number: int) -> int:
            self.log(f"step {number}")
            await asyncio.sleep(0.002)
            return number

        async def later(number: int, _attempt: int) -> int:
            return await step(number)

        async def body(_deps: FunctionDeps, steps: Steps, _data: Any) -> JsonValue:
            total = 0
            for number in range(STEPS):
                total += await steps.run(f"step {number}", partial(later, number))
            return total

        async def on_failure(_deps: FunctionDeps, _data: Any, error: str) -> None:
            self.log(f"failed: {error}")

        return DurableFunction(
            function_id="count", name="Count", event_name="count", retries=3, body=body, on_failure=on_failure
        )

    def desk(self, given: JsonValue, ctx: DeskContext) -> JsonValue:
        self.log(f"desk {ctx.desk_id}")
        time.sleep(0.005)
        return {"desk": ctx.desk_id, "given": given}


def workflow() -> Workflow:
    desks = [
        Desk(
            desk_id=DeskId(name),
            kind="desk:join" if name == "e" else "desk:analysis",
            name=name,
            responsibility="r",
            domain="d",
            input_schema={},
            output_schema={},
            memory_scope=MemoryScope(persist=True),
            handler="work",
        )
        for name in DESKS
    ]
    handoffs = [Handoff(handoff_id=HandoffId(a + b), from_desk_id=DeskId(a), to_desk_id=DeskId(b)) for a, b in EDGES]
    return Workflow(
        workflow_id=WorkflowId("flow"),
        version=1,
        name="Flow",
        entry_desk_id=DeskId("a"),
        desks=tuple(desks),
        handoffs=tuple(handoffs),
    )


async def live(world: World, started: int) -> None:
    """One life of the process: open everything, queue the work, and work until nothing is left."""
    clock = SystemClock()
    store = SqliteCoordinationStore(world.root / "coordination.sqlite", clock)
    deps = FunctionDeps(store=store, desk_handlers={"work": world.desk}, clock=clock, instance_root=world.root)

    class Sink:
        async def send(self, events: Any) -> list[str]:
            return await engine.send(events)

    sink: EventSink = Sink()
    functions = [world.counting_function(), coordination_runner()]
    ingress = make_ingress(functions, deps, signing_key=KEY, event_sink=sink, serve_origin="http://127.0.0.1:1")

    async def call(method: str, query: Any, headers: Any, body: bytes) -> IngressResponse:
        url = "http://127.0.0.1:1/api/inngest"
        return await ingress.handle(IngressRequest(method=method, url=url, query=query, headers=headers, body=body))

    engine = EmbeddedEngine(
        database=world.root / "engine.sqlite",
        run_dir=world.root / "run",
        call=call,
        signing_key=KEY,
        clock=clock,
        crashes_max=1000,
    )
    at = iso_from_ms(clock.now_ms())
    run = Run(
        run_id=RUN,
        workflow_id=WorkflowId("flow"),
        workflow_version=1,
        status=RunStatus.QUEUED,
        started_at=at,
        input=1,
        trace_links=(),
    )
    await store.save_workflow(workflow())
    await store.create_run(run, Fact(key="run.started/queued", type=EventType.RUN_STARTED, at=at))
    data = {"runId": RUN, "workflowId": "flow", "workflowVersion": 1}
    await engine.send(
        [
            OutgoingEvent(name="count", data={}, event_id="count-1"),
            OutgoingEvent(name=EVENT_NAME, data=data, event_id=RUN),
        ]
    )
    await engine.start()
    os.write(started, b"!")
    while await engine.pending_count():  # noqa: ASYNC110 - the engine is the thing under test
        await asyncio.sleep(0.01)
    await engine.stop(1)
    store.close()


def in_a_child(world: World) -> tuple[int, int]:
    """The child's process id, and the end of a pipe on which it says that its engine has started."""
    listening, started = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(live(world, started))
            code = 0
        finally:
            os._exit(code)
    os.close(started)
    return child, listening


def wait_and_kill(child: int, listening: int, dice: random.Random, log: Path) -> None:
    """One in five dies while it starts, the others after they got some steps further."""
    if dice.random() < 0.2:
        time.sleep(dice.uniform(0.0, 0.25))
    else:
        goal_bytes = _size_bytes(log) + dice.randrange(40)
        os.read(listening, 1)
        deadline = time.monotonic() + 10
        while _size_bytes(log) < goal_bytes and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(dice.uniform(0.0, 0.02))
    os.kill(child, signal.SIGKILL)


def _size_bytes(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def remembered(root: Path) -> list[str]:
    """The names of the steps that have a memo."""
    if not (root / "engine.sqlite").exists():
        return []
    database = Database(root / "engine.sqlite", MIGRATIONS)
    try:
        return [name for (name,) in database.read_sync(lambda c: rows(c, "SELECT name FROM steps"))]
    finally:
        database.close()


async def verdict(root: Path) -> dict[str, Any]:
    store = SqliteCoordinationStore(root / "coordination.sqlite", SystemClock())
    run = await store.get_run(RUN)
    timeline = await store.timeline(RUN)
    store.close()
    assert run is not None
    return {
        "status": run.status.value,
        "output": None if run.status is not RunStatus.COMPLETED else run.output,
        "error": str(run.error),
        "seqs": [event.seq for event in timeline],
        "types": [event.type.value for event in timeline],
        "completed": sorted(str(event.desk_id) for event in timeline if event.type is EventType.DESK_COMPLETED),
    }


def main(root: Path, seed: int, kills: int) -> None:
    dice = random.Random(seed)
    lives: list[dict[str, Any]] = []
    for life in range(kills + 1):
        before = remembered(root)
        child, listening = in_a_child(World(root, life))
        if life < kills:
            wait_and_kill(child, listening, dice, root / "log")
        _, status = os.waitpid(child, 0)
        os.close(listening)
        lives.append({"remembered_before": before, "killed": os.WIFSIGNALED(status), "status": status})
    database = Database(root / "engine.sqlite", MIGRATIONS)
    engine_runs = database.read_sync(lambda c: rows(c, "SELECT fn_id, status, output, error FROM runs"))
    database.close()
    log = (root / "log").read_text().splitlines()
    print(json.dumps({"lives": lives, "log": log, "runs": engine_runs, "coordination": asyncio.run(verdict(root))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
