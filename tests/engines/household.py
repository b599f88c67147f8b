"""Hosts that share one instance and are killed; a program, because only a process can be killed with -9.

    household.py kill <root> <seed> <kills>     two hosts; again and again one of them is killed at a random moment
    household.py codes <root> <seed> <kills>    the same, and each of the two has code of its own
    household.py deadly <root>                  one host, with a function that exits its process
    household.py boundaries <root>              one host; killed before and after each of its transactions in turn

Every step that runs is written to a log with the life it ran in, and so is every death, before it happens. One JSON
document on stdout tells the test what happened.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import inngest
from tests.engines.conftest import KEY, Wire

from rawr.clock import SystemClock
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.schema import MIGRATIONS
from rawr.execution.embedded.store import CRASHES_MAX
from rawr.execution.embedded.worker import EngineTimes
from rawr.execution.ports import OutgoingEvent
from rawr.storage.sqlite import Database, rows

COUNTS, FAMILIES = 90, 30
LIMIT = 3


class Life:
    """One life of one host: what it does is written down under its number."""

    def __init__(self, root: Path, number: int, crashes_max: int = 1000, code: str | None = None) -> None:
        self.root = root
        self.code = code
        self.number = number
        self.crashes_max = crashes_max

    def log(self, what: str) -> None:
        descriptor = os.open(self.root / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, f"{self.number} {what}\n".encode())
        os.close(descriptor)

    async def step(self, run_id: str, name: str) -> str:
        self.log(f"enter {run_id} {name}")
        await asyncio.sleep(0.002)
        self.log(f"leave {run_id} {name}")
        return name

    async def exit(self) -> None:
        os._exit(1)

    def functions(self, client: inngest.Inngest) -> Sequence[inngest.Function[Any]]:
        """Steps one after another under a limit; and a parent with parallel steps, a sleep, a wait and a child."""

        async def count(ctx: inngest.Context) -> list[str]:
            names = [f"count{number}" for number in range(4)]
            return [await ctx.step.run(name, self.step, ctx.run_id, name) for name in names]

        async def parent(ctx: inngest.Context) -> list[Any]:
            branches = tuple(partial(ctx.step.run, name, self.step, ctx.run_id, name) for name in ("a", "b", "c"))
            together = await ctx.group.parallel(branches)
            await ctx.step.sleep("nap", 20)
            await ctx.step.send_event("tell", inngest.Event(name="told", data={"run": ctx.run_id}))
            child = await ctx.step.invoke_by_id("call", function_id="child", data={"n": 1})
            return [*together, child]

        async def child(ctx: inngest.Context) -> str:
            return await ctx.step.run("child", self.step, ctx.run_id, "child")

        async def deadly(ctx: inngest.Context) -> None:
            await ctx.step.run("die", self.exit)

        async def listener(ctx: inngest.Context) -> str:
            return await ctx.step.run("heard", self.step, ctx.run_id, "heard")

        trigger = inngest.TriggerEvent
        limit = [inngest.Concurrency(limit=LIMIT)]
        return [
            client.create_function(fn_id="count", trigger=trigger(event="count"), concurrency=limit)(count),
            client.create_function(fn_id="parent", trigger=trigger(event="parent"))(parent),
            client.create_function(fn_id="deadly", trigger=trigger(event="deadly"))(deadly),
            client.create_function(fn_id="child", trigger=trigger(event="never"))(child),
            client.create_function(fn_id="listener", trigger=trigger(event="told"))(listener),
        ]


class HouseCode:
    """`RunCode` of a host: everything is made of one plugin."""

    def __init__(self, version: str) -> None:
        self._tokens = frozenset({f"plugin@{version}"})

    def offered(self) -> frozenset[str]:
        return self._tokens

    async def used(self, _fn_id: str, _events: Sequence[Any]) -> frozenset[str]:
        return self._tokens


def engine_of(life: Life) -> EmbeddedEngine:
    engine: list[EmbeddedEngine] = []

    class Client(inngest.Inngest):
        async def send(self, events: Any, *, skip_middleware: bool = False) -> list[str]:
            (event,) = events if isinstance(events, list) else [events]
            key = f"told by {event.data['run']}"  # the step may run twice; what it tells, counts once
            return await engine[0].send([OutgoingEvent(name=event.name, data=event.data, event_id=key)])

    engine.append(
        EmbeddedEngine(
            database=life.root / "engine.sqlite",
            run_dir=life.root / "run",
            call=Wire(life.functions, Client),
            signing_key=KEY,
            clock=SystemClock(),
            backoff=lambda _attempt: 50,
            times=EngineTimes(sweep_s=0.1),
            crashes_max=life.crashes_max,
            code=None if life.code is None else HouseCode(life.code),
        )
    )
    return engine[0]


async def live(life: Life, started: int) -> None:
    """Work until nothing is left."""
    engine = engine_of(life)
    await engine.start()
    os.write(started, b"!")
    while await engine.pending_count():  # noqa: ASYNC110 - the engine is the thing under test
        await asyncio.sleep(0.02)
    await engine.stop(1)


async def send_all(root: Path, counts: int, families: int, deadly: int = 0) -> None:
    engine = engine_of(Life(root, 0))
    events = [OutgoingEvent(name="count", data={}, event_id=f"c{n}") for n in range(counts)]
    events += [OutgoingEvent(name="parent", data={}, event_id=f"p{n}") for n in range(families)]
    events += [OutgoingEvent(name="deadly", data={}) for _ in range(deadly)]
    await engine.send(events)
    await engine.stop(0)


def in_a_child(life: Life, prepare: Callable[[], None] = lambda: None) -> tuple[int, int]:
    """The child's process id, and the end of a pipe on which it says that its engine has started."""
    listening, started = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            prepare()
            asyncio.run(live(life, started))
            code = 0
        finally:
            os._exit(code)
    os.close(started)
    return child, listening


def kill(root: Path, seed: int, kills: int, codes: Sequence[str | None] = (None, None)) -> None:
    dice = random.Random(seed)
    asyncio.run(send_all(root, COUNTS, FAMILIES))
    lives = [Life(root, number, code=code) for number, code in enumerate(codes, start=1)]
    told = {life.number: life.code for life in lives}
    children = [in_a_child(life) for life in lives]
    for number in range(3, 3 + kills):
        which = dice.randrange(2)
        child, listening = children[which]
        os.read(listening, 1)
        wait_for_progress(root / "log", dice.randrange(1, 1200))
        time.sleep(dice.uniform(0.0, 0.01))
        lives[which].log("dies")
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(listening)
        lives[which] = Life(root, number, code=codes[which])
        told[number] = codes[which]
        children[which] = in_a_child(lives[which])
    statuses = [os.waitpid(child, 0)[1] for child, _ in children]
    print(json.dumps({"statuses": statuses, "codes": told, **result(root)}))


def wait_for_progress(log: Path, size_bytes: int) -> None:
    """Until the log has grown so far, or nothing more will be written."""
    goal_bytes = log.stat().st_size + size_bytes if log.exists() else size_bytes
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (not log.exists() or log.stat().st_size < goal_bytes):
        time.sleep(0.001)


def deadly(root: Path) -> None:
    asyncio.run(send_all(root, 10, 0, 1))
    lives = 1
    while wait_for(in_a_child(Life(root, lives, CRASHES_MAX))) != 0:
        lives += 1
    print(json.dumps({"lives": lives, **result(root)}))


def boundaries(root: Path) -> None:
    """The same work again and again: its host dies at the n-th transaction, and another one goes on."""
    told: list[dict[str, Any]] = []
    while not told or told[-1]["killed"]:
        count, after = 1 + len(told) // 2, bool(len(told) % 2)
        folder = root / str(len(told))
        folder.mkdir()
        asyncio.run(send_all(folder, 0, 1))
        doomed = Life(folder, 1)
        killed = os.WIFSIGNALED(wait_for(in_a_child(doomed, partial(die_at, doomed, count, after=after))))
        status = wait_for(in_a_child(Life(folder, 2)))
        told.append({"killed": killed, "statuses": [status], **result(folder)})
    print(json.dumps(told))


def wait_for(child: tuple[int, int]) -> int:
    _, status = os.waitpid(child[0], 0)
    os.close(child[1])
    return status


def die_at(life: Life, count: int, *, after: bool) -> None:
    """Make this process kill itself before or after it commits its `count`-th group of writes."""
    commit = Database._transaction
    seen = 0

    def counting(self: Database, units: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == count and not after:
            die(life)
        outcome = commit(self, units)
        if seen == count:
            die(life)
        return outcome

    Database._transaction = counting  # type: ignore[method-assign]  # in a process of its own


def die(life: Life) -> None:
    life.log("dies")
    os.kill(os.getpid(), signal.SIGKILL)


def result(root: Path) -> dict[str, Any]:
    database = Database(root / "engine.sqlite", MIGRATIONS)
    runs = database.read_sync(lambda c: rows(c, "SELECT run_id, fn_id, status, output, error FROM runs"))
    database.close()
    log = [line.split(" ", 3) for line in (root / "log").read_text().splitlines()]
    return {"runs": runs, "log": log}


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["kill", root, seed, kills]:
            kill(Path(root), int(seed), int(kills))
        case ["codes", root, seed, kills]:
            kill(Path(root), int(seed), int(kills), ("old", "new"))
        case ["deadly", root]:
            deadly(Path(root))
        case ["boundaries", root]:
            boundaries(Path(root))
