"""Replaying what has run against the code that there is: the same is the same, every edit is found, nothing acts."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import inngest
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.engines.conftest import BACKOFF_MS, KEY, Bench, Wire

from rawr.execution.embedded.history import read_history, run_ids
from rawr.execution.embedded.replay import Replayed, Verdict, synced
from rawr.execution.embedded.schema import MIGRATIONS
from rawr.storage.sqlite import Database, run
from rawr.testing.clock import FakeClock

TRIGGER = inngest.TriggerEvent(event="go")
Body = Callable[[inngest.Context, "Acts"], Any]
Node = tuple[Any, ...]
DAY_MS = 24 * 3600 * 1000


class Acts:
    """What the steps of a function do: each writes a line, so that what acts is seen."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def do(self, name: str) -> str:
        self.done.append(name)
        return f"did {name}"

    async def fail(self, name: str) -> None:
        self.done.append(name)
        raise ValueError(f"{name} is broken")

    async def refuse(self, name: str) -> None:
        self.done.append(name)
        raise inngest.NonRetriableError(f"{name} will never do")


def functions_of(body: Body, acts: Acts, **options: Any) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        return await body(ctx, acts)

    async def child(ctx: inngest.Context) -> str:
        return await ctx.step.run("inner", acts.do, "inner")

    def functions(client: inngest.Inngest) -> Sequence[inngest.Function[Any]]:
        never = inngest.TriggerEvent(event="never")
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER, **{"retries": 1, **options})(fn),
            client.create_function(fn_id="child", trigger=never)(child),
        ]

    return functions


async def replays(root: Path, body: Body, **options: Any) -> list[Replayed]:
    """All runs in the file of `root` against `body`. Fails if anything acts or any byte changes."""
    acts = Acts()
    before = bytes_of(root)
    replayer = await synced(
        Wire(functions_of(body, acts, **options)), signing_key=KEY, clock=FakeClock(), serve_url="http://x/api/inngest"
    )
    database = root / "engine.sqlite"
    replayed = [await replayer.replay(read_history(database, run_id)) for run_id in list(run_ids(database))]
    assert acts.done == []
    assert bytes_of(root) == before
    return replayed


def bytes_of(root: Path) -> dict[str, str]:
    """Every file by its content, without what SQLite keeps for the processes that have a file open."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.endswith("-shm")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.stat().st_size}


async def recorded(root: Path, body: Body, *, calls: int | None = None, **options: Any) -> None:
    """The history of one run of `body`: to its end, or after this many calls, and then left by its engine."""
    bench = Bench(root, functions_of(body, Acts(), **options))
    await bench.engine.prepare()
    await bench.send(x=1)
    if calls is None:
        for _ in range(60):
            await bench.engine.run_due()
            if await bench.engine.pending_count() == 0:
                break
            bench.clock.advance(BACKOFF_MS)
    else:
        for _ in range(calls):
            for claim in await bench.engine._worker._claim(1):
                outcome = await bench.engine._worker._make(claim)
                await bench.engine._store.settle(claim, outcome, next_lease=None)
    await bench.engine.stop(0)


def verdicts(replayed: Sequence[Replayed]) -> list[tuple[str, Verdict, str]]:
    return [(one.fn_id, one.verdict, str(one.difference or one.reason or "")) for one in replayed]


# Workflow shapes. A node is one of: ("run"|"fail"|"refuse"|"wait"|"invoke", name), ("try", nodes), (mode, branches).


async def walk(ctx: inngest.Context, acts: Acts, nodes: Sequence[Node]) -> list[Any]:
    given: list[Any] = []
    for node in nodes:
        match node:
            case ("run", name):
                given.append(await ctx.step.run(name, acts.do, name))
            case ("fail", name):
                given.append(await ctx.step.run(name, acts.fail, name))
            case ("refuse", name):
                given.append(await ctx.step.run(name, acts.refuse, name))
            case ("wait", name):
                heard = await ctx.step.wait_for_event(name, event="never", timeout=BACKOFF_MS)
                given.append(heard is None)
            case ("nap", name):
                await ctx.step.sleep_until(name, datetime.fromtimestamp(FakeClock().now_ms() / 1000 + 30, UTC))
            case ("invoke", name):
                given.append(await ctx.step.invoke_by_id(name, app_id="app", function_id="child"))
            case ("raise", name):
                raise ValueError(f"{name} is wrong")
            case ("flaky", name):
                if ctx.attempt == 0:
                    raise ValueError(name)
            case ("try", inner):
                try:
                    given += await walk(ctx, acts, inner)
                except inngest.StepError as error:
                    given.append(error.message)
            case (("wait_all" | "race") as mode, branches):
                kind = inngest.ParallelMode.RACE if mode == "race" else inngest.ParallelMode.WAIT
                together = tuple(partial(walk, ctx, acts, branch) for branch in branches)
                given += await ctx.group.parallel(together, parallel_mode=kind)
    return given


def body_of(nodes: Sequence[Node]) -> Body:
    return lambda ctx, acts: walk(ctx, acts, nodes)


SHAPES: list[list[Node]] = [
    [],
    [("run", "a")],
    [("run", "a"), ("run", "a"), ("run", "b"), ("run", "a")],
    [("run", "a"), ("wait", "w"), ("nap", "n"), ("invoke", "i"), ("run", "b")],
    [("wait_all", [[("run", "a")], [("run", "b"), ("run", "c")], [("wait", "w")]]), ("run", "d")],
    [("race", [[("run", "a"), ("run", "b")], [("run", "c")]]), ("run", "d")],
    [("try", [("fail", "a")]), ("run", "b")],
    [("run", "a"), ("fail", "b"), ("run", "c")],
    [("run", "a"), ("refuse", "b")],
    [("run", "a"), ("raise", "r")],
    [("flaky", "f"), ("run", "a"), ("flaky", "f")],
    [("try", [("wait_all", [[("run", "a"), ("run", "c")], [("fail", "b")]])]), ("run", "d")],
    [("try", [("race", [[("wait", "a"), ("run", "c")], [("fail", "b")]])]), ("run", "d")],
]


@pytest.mark.parametrize("nodes", SHAPES, ids=lambda nodes: " ".join(str(node[0]) for node in nodes) or "empty")
def test_the_same_code_is_the_same_wherever_the_run_is(tmp_path: Path, nodes: list[Node]) -> None:
    async def scenario() -> None:
        for calls in (None, 0, 1, 2, 3, 5):
            root = tmp_path / str(calls)
            root.mkdir()
            await recorded(root, body_of(nodes), calls=calls)
            replayed = await replays(root, body_of(nodes))
            assert [one.verdict for one in replayed] == [Verdict.SAME] * len(replayed), verdicts(replayed)
            assert replayed

    asyncio.run(scenario())


PLAIN = st.sampled_from(["run", "fail", "wait", "invoke"]).flatmap(
    lambda op: st.tuples(st.just(op), st.sampled_from("abcde"))
)
SEQUENCES = st.lists(PLAIN, max_size=3)
GROUPS = st.tuples(st.sampled_from(["wait_all", "race"]), st.lists(SEQUENCES, min_size=1, max_size=3))
TRIED = st.tuples(st.just("try"), st.lists(PLAIN | GROUPS, max_size=3))
WORKFLOWS = st.lists(PLAIN | GROUPS | TRIED, max_size=5)


def told_apart(nodes: Sequence[Node], place: str = "") -> list[Node]:
    """The same nodes, each step with an id of its own: branches that share one have no order that could be kept."""
    made: list[Node] = []
    for number, node in enumerate(nodes):
        here = f"{place}.{number}"
        match node:
            case ("try", inner):
                made.append(("try", told_apart(inner, here)))
            case (("wait_all" | "race") as mode, branches):
                made.append((mode, [told_apart(branch, f"{here}.{n}") for n, branch in enumerate(branches)]))
            case (op, name):
                made.append((op, f"{name}{here}"))
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(WORKFLOWS, st.none() | st.integers(0, 12))
@example([("race", [[("run", "a"), ("run", "b")], [("fail", "c")]]), ("run", "d")], 3)
@example([("try", [("wait_all", [[("wait", "a"), ("run", "b")], [("fail", "c")]])]), ("run", "d")], None)
def test_no_workflow_differs_from_itself(nodes: list[Node], calls: int | None) -> None:
    async def scenario(root: Path) -> None:
        await recorded(root, body_of(told_apart(nodes)), calls=calls)
        replayed = await replays(root, body_of(told_apart(nodes)))
        assert {one.verdict for one in replayed} == {Verdict.SAME}, verdicts(replayed)

    with tempfile.TemporaryDirectory() as root:
        asyncio.run(scenario(Path(root)))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(["run", "wait"]), st.sampled_from("abc")), min_size=1, max_size=5), st.data())
def test_every_edit_of_a_line_of_steps_is_found(nodes: list[Node], data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(nodes) - 1))
    op, name = nodes[place]
    other = "wait" if op == "run" else "run"
    edits = [
        [*nodes[:place], ("run", "new"), *nodes[place:]],
        [*nodes[:place], (op, "new"), *nodes[place + 1 :]],
        [*nodes[:place], (other, name), *nodes[place + 1 :]],
        [*nodes[:place], *nodes[place + 1 :]],
    ]

    async def scenario(root: Path) -> None:
        await recorded(root, body_of(nodes))
        for edit in edits:
            (replayed,) = await replays(root, body_of(edit))
            assert replayed.verdict is Verdict.DIFFERENT, edit

    with tempfile.TemporaryDirectory() as root:
        asyncio.run(scenario(Path(root)))


GROUP: list[Node] = [("run", "a"), ("wait_all", [[("run", "b")], [("run", "c")]]), ("run", "d")]
EDITS: list[tuple[list[Node], list[Node], int | None, str]] = [
    (
        [("run", "a"), ("run", "b")],
        [("run", "new"), ("run", "a"), ("run", "b")],
        None,
        "after 0 steps the history has run 'a', and the code asks for run 'new'",
    ),
    (
        [("run", "a"), ("run", "b")],
        [("run", "a"), ("run", "b"), ("run", "new")],
        None,
        "after 2 steps the history has no such step, and the code asks for run 'new'",
    ),
    (
        [("run", "a"), ("run", "b")],
        [("run", "a")],
        None,
        "after 1 steps the history has run 'b', and the code ends with [\"did a\"]",
    ),
    (
        [("run", "a"), ("run", "b")],
        [("run", "b"), ("run", "a")],
        None,
        "after 0 steps the history has run 'a', and the code asks for run 'b'",
    ),
    (
        [("run", "a"), ("wait", "b")],
        [("run", "a"), ("run", "b")],
        None,
        "after 1 steps the history has wait 'b', and the code asks for run 'b'",
    ),
    (
        [("run", "a"), ("run", "b")],
        [("run", "a"), ("raise", "r"), ("run", "b")],
        None,
        "after 1 steps the history has run 'b', and the code fails with ValueError: r is wrong",
    ),
    (
        GROUP,
        [("run", "a"), ("wait_all", [[("run", "b")]]), ("run", "d")],
        None,
        "after 2 steps the history has run 'c'",
    ),
    (
        GROUP,
        [("run", "a"), ("wait_all", [[("run", "b")], [("run", "c")], [("run", "new")]]), ("run", "d")],
        None,
        "after 3 steps the history has run 'd', and the code asks for run 'new'",
    ),
    (
        [("run", "a"), ("race", [[("run", "b")], [("wait", "w")]])],
        [("run", "a"), ("race", [[("run", "b")], [("wait", "w")], [("run", "new")]])],
        4,
        "after 1 steps the history has no such step, and the code asks for run 'new'",
    ),
    (
        [("run", "a"), ("wait", "w"), ("run", "b")],
        [("run", "a"), ("wait", "other"), ("run", "b")],
        2,
        "after 1 steps the history has wait 'w', and the code asks for wait 'other'",
    ),
    (
        [("run", "a"), ("fail", "b")],
        [("run", "a"), ("try", [("fail", "b")])],
        None,
        "after 2 steps the history has the failure ValueError: b is broken, and the code ends with",
    ),
    (
        [("run", "a"), ("raise", "r")],
        [("run", "a"), ("raise", "other")],
        None,
        "after 1 steps the history has the failure ValueError: r is wrong, and the code fails with ValueError: other",
    ),
]


@pytest.mark.parametrize(("before", "after", "calls", "difference"), EDITS)
def test_the_first_difference_of_an_edit_is_named(
    tmp_path: Path, before: list[Node], after: list[Node], calls: int | None, difference: str
) -> None:
    async def scenario() -> None:
        await recorded(tmp_path, body_of(before), calls=calls)
        (replayed,) = await replays(tmp_path, body_of(after))
        assert replayed.verdict is Verdict.DIFFERENT
        assert str(replayed.difference).startswith(difference), str(replayed.difference)

    asyncio.run(scenario())


def test_another_output_is_a_difference(tmp_path: Path) -> None:
    async def one(ctx: inngest.Context, acts: Acts) -> Any:
        return {"n": 1}

    async def two(ctx: inngest.Context, acts: Acts) -> Any:
        return {"n": 2}

    async def scenario() -> None:
        await recorded(tmp_path, one)
        (replayed,) = await replays(tmp_path, two)
        assert (
            str(replayed.difference)
            == 'after 0 steps the history has the output {"n":1}, and the code ends with {"n":2}'
        )

    asyncio.run(scenario())


def test_a_run_of_a_function_that_is_gone_cannot_be_replayed(tmp_path: Path) -> None:
    async def scenario() -> None:
        await recorded(tmp_path, body_of([("run", "a")]))
        replayer = await synced(
            Wire(lambda client: [client.create_function(fn_id="other", trigger=TRIGGER)(nothing)]),
            signing_key=KEY,
            clock=FakeClock(),
            serve_url="http://x/api/inngest",
        )
        (run_id,) = run_ids(tmp_path / "engine.sqlite")
        replayed = await replayer.replay(read_history(tmp_path / "engine.sqlite", run_id))
        assert (replayed.verdict, replayed.reason) == (Verdict.CANNOT, "the code that there is has no function app-fn")

    async def nothing(ctx: inngest.Context) -> None:
        return None

    asyncio.run(scenario())


def test_runs_are_replayed_beside_the_engine_that_works_on_them(tmp_path: Path) -> None:
    nodes: list[Node] = [("run", "a"), ("wait", "w"), ("run", "b")]

    async def scenario() -> None:
        bench = Bench(tmp_path, functions_of(body_of(nodes), Acts()))
        await bench.engine.prepare()
        await bench.send()
        await bench.engine.run_due()
        assert [one.verdict for one in await replays(tmp_path, body_of(nodes))] == [Verdict.SAME]
        bench.clock.advance(BACKOFF_MS)
        await bench.engine.run_due()
        assert (await bench.only_run()).output == ["did a", True, "did b"]
        await bench.engine.stop(0)

    asyncio.run(scenario())


def test_a_run_from_before_steps_were_told_apart_is_replayed_too(tmp_path: Path) -> None:
    async def same(ctx: inngest.Context, acts: Acts) -> Any:
        return await ctx.step.run("a", acts.do, "a")

    async def other(ctx: inngest.Context, acts: Acts) -> Any:
        return await ctx.step.run("b", acts.do, "b")

    async def scenario() -> None:
        await recorded(tmp_path, same)
        database = Database(tmp_path / "engine.sqlite", MIGRATIONS)
        database.write_sync(lambda c: run(c, "ALTER TABLE steps DROP COLUMN op; DROP TABLE unfinished"))
        database.close()
        assert [one.verdict for one in await replays(tmp_path, same)] == [Verdict.SAME]
        assert [one.verdict for one in await replays(tmp_path, other)] == [Verdict.DIFFERENT]

    asyncio.run(scenario())
