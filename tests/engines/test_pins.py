"""Runs and the code that they began with: pinned, held while nobody has it, with other code only if told."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.model import EngineRun, EngineRunStatus, RunFilter
from rawr.execution.embedded.pins import CodeNotAcceptedError
from rawr.execution.embedded.reruns import Rerun
from rawr.storage.sqlite import rows
from rawr.wire import JsonValue

TRIGGER = inngest.TriggerEvent(event="go")
LEASE_MS = 30_000


class Code:
    """`RunCode` of a process whose function is made of these tokens."""

    def __init__(self, *tokens: str, offers: Sequence[str] = ()) -> None:
        self.tokens = frozenset(tokens)
        self.others = frozenset(offers)
        self.asked: list[Any] = []

    def offered(self) -> frozenset[str]:
        return self.tokens | self.others

    async def used(self, fn_id: str, events: Sequence[JsonValue]) -> frozenset[str] | None:
        self.asked += events
        if fn_id.endswith("-failure"):
            return frozenset()
        return self.tokens if fn_id.endswith(("fn", "child")) else None


class Story:
    """A function that does one step, waits for `on`, and does another; every step that runs is written down."""

    def __init__(self, **options: Any) -> None:
        self.ran: list[str] = []
        self.options = options

    def functions(self, client: inngest.Inngest) -> Any:
        async def note(name: str) -> str:
            self.ran.append(name)
            return name

        async def fn(ctx: inngest.Context) -> Any:
            first = await ctx.step.run("first", note, "first")
            heard = await ctx.step.wait_for_event("wait", event="on", timeout=60_000)
            return [first, None if heard is None else heard.data, await ctx.step.run("last", note, "last")]

        async def failed(ctx: inngest.Context) -> None:
            await ctx.step.run("told", note, "told")

        make = client.create_function(fn_id="fn", trigger=TRIGGER, on_failure=failed, **self.options)
        return [make(fn)]


async def begun(bench: Any, code: Code, **data: JsonValue) -> EmbeddedEngine:
    """An engine with this code that has begun a run, which waits for `on`. The bench's own engine has no code."""
    await bench.engine.stop(0)
    engine: EmbeddedEngine = await started(bench, code)
    await bench.send(**data)
    assert await engine.run_due() > 0
    return engine


async def started(bench: Any, code: Code | None) -> EmbeddedEngine:
    bench.engine = bench.another(code=code)
    await bench.engine.prepare()
    engine: EmbeddedEngine = bench.engine
    return engine


async def the_run(engine: EmbeddedEngine) -> EngineRun:
    (run,) = [run for run in await engine.runs(10) if run.fn_id == "app-fn"]
    return run


async def held(bench: Any, *, told: bool = True, **options: Any) -> EmbeddedEngine:
    """An engine with new code beside a run that began with old code, and that heard `on` meanwhile."""
    old = await begun(bench, Code("p@old", "r@1"))
    await old.stop(0)
    new = await started(bench, Code("p@new", "r@1"))
    if told:
        await bench.send("on", n=1)
    assert await new.run_due() == 0
    return new


def test_a_run_goes_on_in_a_process_that_has_the_code_that_it_began_with(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        await (await begun(bench, Code("p@1", "r@1"))).stop(0)
        again = await started(bench, Code("p@1", "r@1", offers=["q@7"]))
        await bench.send("on", n=1)
        assert await again.run_due() > 0
        assert (await the_run(again)).output == ["first", {"n": 1}, "last"]

    on_bench(story.functions, scenario)


def test_a_run_whose_code_has_changed_waits_and_says_why_once(on_bench: Any, caplog: pytest.LogCaptureFixture) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        new = await held(bench)
        run = await the_run(new)
        assert run.status is EngineRunStatus.WAITING
        assert run.held_reason is not None
        assert "p was old and is new now" in run.held_reason
        assert "r was" not in run.held_reason
        assert f"rawr engine accept-code {run.run_id}" in run.held_reason
        assert f"rawr engine rerun {run.run_id}" in run.held_reason
        bench.clock.advance(1000)
        assert await new.run_due() == 0
        assert await new.pending_count() > 0
        assert [record.message for record in caplog.records].count(f"run {run.run_id} waits: {run.held_reason}") == 1

    with caplog.at_level(logging.WARNING):
        on_bench(story.functions, scenario)
    assert story.ran == ["first"]


def test_what_is_not_there_at_all_is_named_so(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await (await begun(bench, Code("@org/p@0123456789abcdef"))).stop(0)
        engine = await started(bench, Code("q@1"))
        await bench.send("on")
        await engine.run_due()
        assert "@org/p was 0123456789ab and is not there now" in str((await the_run(engine)).held_reason)

    on_bench(Story().functions, scenario)


def test_held_runs_go_on_by_themselves_when_the_old_code_is_back(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        new = await held(bench)
        await new.stop(0)
        old = await started(bench, Code("p@old", "r@1"))
        assert await old.run_due() > 0
        run = await the_run(old)
        assert (run.status, run.output, run.held_reason) == (
            EngineRunStatus.COMPLETED,
            ["first", {"n": 1}, "last"],
            None,
        )

    on_bench(story.functions, scenario)
    assert story.ran == ["first", "last"]


def test_of_two_live_processes_each_goes_on_with_the_runs_of_its_code(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        old = await begun(bench, Code("p@old"))
        new = bench.another(code=Code("p@new"))
        await new.prepare()
        await bench.send(who="new")
        assert await new.run_due() == 2  # its two steps of the run that it began
        await bench.send("on")
        assert await new.run_due() == 2
        assert {run.status for run in await new.runs(10)} == {EngineRunStatus.COMPLETED, EngineRunStatus.RUNNING}
        assert await old.run_due() == 2
        assert {run.status for run in await new.runs(10)} == {EngineRunStatus.COMPLETED}
        await old.stop(0)

    def counted(client: inngest.Inngest) -> Any:
        async def fn(ctx: inngest.Context) -> str:
            await ctx.step.run("first", note, ctx.run_id)
            await ctx.step.wait_for_event("wait", event="on", timeout=60_000)
            return await ctx.step.run("last", note, ctx.run_id)

        async def note(run_id: str) -> str:
            story.ran.append(run_id)
            return run_id

        return [client.create_function(fn_id="fn", trigger=TRIGGER)(fn)]

    on_bench(counted, scenario)
    assert len(story.ran) == 4


@pytest.mark.parametrize("how", ["stops", "dies"])
def test_a_run_is_left_to_the_process_that_has_its_code_until_that_is_gone(on_bench: Any, how: str) -> None:
    async def scenario(bench: Any) -> None:
        old = await begun(bench, Code("p@old"))
        await bench.send("on")
        new = await started(bench, Code("p@new"))
        assert await new.run_due() == 0
        assert (await the_run(new)).status is EngineRunStatus.RUNNING
        if how == "stops":
            await old.stop(0)
        else:
            old._slot.free()  # what the kernel does when the process dies
        assert await new.run_due() == 0
        assert (await the_run(new)).status is EngineRunStatus.WAITING
        await old.stop(0)

    on_bench(Story().functions, scenario)


def test_a_process_with_one_of_two_plugins_does_not_take_a_run_of_both(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await (await begun(bench, Code("p@1", "q@1"))).stop(0)
        one = await started(bench, Code("p@1", "q@2"))
        other = bench.another(code=Code("p@2", "q@1"))
        await other.prepare()
        await bench.send("on")
        assert (await one.run_due(), await other.run_due()) == (0, 0)
        assert (await the_run(one)).status is EngineRunStatus.WAITING
        await other.stop(0)

    on_bench(Story().functions, scenario)


def test_a_run_that_has_not_begun_is_pinned_to_nothing(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        old = await started(bench, Code("p@old"))
        await bench.send()
        await old.stop(0)
        new = await started(bench, Code("p@new"))
        assert await new.run_due() > 0
        assert (await the_run(new)).status is EngineRunStatus.RUNNING

    on_bench(Story().functions, scenario)


def test_a_run_is_pinned_before_its_first_call_can_act(on_bench: Any) -> None:
    """The process dies in the first step, which may have acted: it is not done again by other code."""
    story = Story()

    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        old = await started(bench, Code("p@old"))
        await bench.send()
        worker = old._worker
        (claim,) = await worker._claim(10)
        assert await worker._pinned(claim)
        old._slot.free()  # what the kernel does when the process dies
        new = await started(bench, Code("p@new"))
        assert await new.run_due() == 0
        assert (await the_run(new)).status is EngineRunStatus.WAITING
        await old.stop(0)

    on_bench(story.functions, scenario)
    assert story.ran == []


def test_accepted_code_lets_the_run_go_on_where_it_was_and_is_noted(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        new = await held(bench)
        run = await the_run(new)
        await new.accept_code(run.run_id, by="somebody")
        assert (await the_run(new)).status is EngineRunStatus.RUNNING
        assert await new.run_due() > 0
        assert (await the_run(new)).output == ["first", {"n": 1}, "last"]
        noted = await new._store._database.read(lambda c: rows(c, "SELECT * FROM accepted_code"))
        assert noted == [(run.run_id, bench.clock.now_ms(), "somebody", '["p@old","r@1"]', '["p@new","r@1"]')]

    on_bench(story.functions, scenario)
    assert story.ran == ["first", "last"]


def test_accepted_code_is_a_pin_too(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        new = await held(bench, told=False)
        await bench.send("on")
        await new.run_due()
        await new.accept_code((await the_run(new)).run_id, by="somebody")
        await new.stop(0)
        newest = await started(bench, Code("p@newest", "r@1"))
        assert await newest.run_due() == 0
        assert "p was new and is newest now" in str((await the_run(newest)).held_reason)

    on_bench(Story().functions, scenario)


def test_code_is_accepted_only_for_a_held_run_and_only_if_somebody_has_it(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        old = await begun(bench, Code("p@old"))
        run_id = (await the_run(old)).run_id
        with pytest.raises(CodeNotAcceptedError, match="there is no run nobody"):
            await old.accept_code("nobody", by="me")
        with pytest.raises(CodeNotAcceptedError, match="does not wait for code"):
            await old.accept_code(run_id, by="me")
        await old.stop(0)
        new = await started(bench, Code("p@new"))
        await bench.send("on")
        await new.run_due()
        without = bench.another()
        with pytest.raises(CodeNotAcceptedError, match="nobody has code for app-fn"):
            await without.accept_code(run_id, by="me")
        edited = bench.another(code=Code("p@edited since"))
        with pytest.raises(CodeNotAcceptedError, match="has other code than is on the disk now"):
            await edited.accept_code(run_id, by="me")
        assert (await the_run(new)).status is EngineRunStatus.WAITING
        await new.cancel(run_id)
        with pytest.raises(CodeNotAcceptedError, match="has ended"):
            await new.accept_code(run_id, by="me")
        await without.stop(0)
        await edited.stop(0)

    on_bench(Story().functions, scenario)


def test_code_can_be_accepted_while_no_process_works(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        new = await held(bench)
        run_id = (await the_run(new)).run_id
        new._slot.free()  # what the kernel does when the process dies
        command = bench.another(code=Code("p@fixed", "r@1"))
        await command.accept_code(run_id, by="me")
        await command.stop(0)
        fixed = await started(bench, Code("p@fixed", "r@1"))
        assert await fixed.run_due() > 0
        assert (await the_run(fixed)).status is EngineRunStatus.COMPLETED
        await new.stop(0)

    on_bench(Story().functions, scenario)


def test_waits_of_a_held_run_end_in_time_and_it_goes_on_only_with_its_code(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        new = await held(bench, told=False)
        bench.clock.advance(60_001)
        assert await new.run_due() == 0
        run = await the_run(new)
        assert (run.status, run.steps) == (EngineRunStatus.WAITING, 2)
        await new.accept_code(run.run_id, by="me")
        await new.run_due()
        assert (await the_run(new)).output == ["first", None, "last"]

    on_bench(Story().functions, scenario)


@pytest.mark.parametrize("how", ["by hand", "in bulk", "by an event", "in time"])
def test_a_held_run_ends_when_it_is_cancelled_or_out_of_time(on_bench: Any, how: str) -> None:
    options = {"cancel": [inngest.Cancel(event="stop")], "timeouts": inngest.Timeouts(finish=90_000)}

    async def scenario(bench: Any) -> None:
        new = await held(bench)
        run_id = (await the_run(new)).run_id
        match how:
            case "by hand":
                assert await new.cancel(run_id)
            case "in bulk":
                assert await new.cancel_where(RunFilter(fn_id="app-fn")) == [run_id]
            case "by an event":
                await bench.send("stop")
            case "in time":
                bench.clock.advance(90_001)
        await new.run_due()
        run = await the_run(new)
        assert (run.status, run.held_reason) == (EngineRunStatus.CANCELLED, None)
        assert await new.pending_count() == 0

    on_bench(Story(**options).functions, scenario)


def test_a_failure_handler_is_not_held_by_the_code_of_the_run_that_failed(on_bench: Any) -> None:
    told: list[str] = []

    def functions(client: inngest.Inngest) -> Any:
        async def fn(ctx: inngest.Context) -> None:
            raise inngest.NonRetriableError("broken")

        async def note() -> None:
            told.append("told")

        async def failed(ctx: inngest.Context) -> None:
            await ctx.step.wait_for_event("pause", event="on", timeout=60_000)
            await ctx.step.run("tell", note)

        return [client.create_function(fn_id="fn", trigger=TRIGGER, on_failure=failed)(fn)]

    async def scenario(bench: Any) -> None:
        await (await begun(bench, Code("p@old"))).stop(0)
        new = await started(bench, Code("p@new"))
        await bench.send("on")
        await new.run_due()
        assert await new.pending_count() == 0

    on_bench(functions, scenario)
    assert told == ["told"]


def test_a_held_run_that_is_run_again_begins_with_the_code_that_there_is(on_bench: Any) -> None:
    story = Story()

    async def scenario(bench: Any) -> None:
        new = await held(bench)
        old_id = (await the_run(new)).run_id
        again = await new.rerun(Rerun(run_id=old_id, from_step="wait"))
        await new.run_due()
        run = await new.run(again)
        assert run is not None
        assert (run.status, run.steps) == (EngineRunStatus.RUNNING, 1)
        still = await new.run(old_id)
        assert still is not None
        assert still.status is EngineRunStatus.WAITING

    on_bench(story.functions, scenario)
    assert story.ran == ["first"]


def test_who_invoked_a_held_run_waits_for_it_and_goes_on_after_it(on_bench: Any) -> None:
    def functions(client: inngest.Inngest) -> Any:
        async def fn(ctx: inngest.Context) -> Any:
            return await ctx.step.invoke_by_id("call", app_id="app", function_id="child")

        async def child(ctx: inngest.Context) -> str:
            await ctx.step.wait_for_event("wait", event="on", timeout=60_000)
            return "child"

        never = inngest.TriggerEvent(event="never")
        return [
            client.create_function(fn_id="fn", trigger=TRIGGER)(fn),
            client.create_function(fn_id="child", trigger=never)(child),
        ]

    async def scenario(bench: Any) -> None:
        await (await begun(bench, Code("p@old"))).stop(0)
        new = await started(bench, Code("p@new"))
        await bench.send("on")
        await new.run_due()
        statuses = {run.fn_id: run.status for run in await new.runs(10)}
        assert statuses == {"app-fn": EngineRunStatus.RUNNING, "app-child": EngineRunStatus.WAITING}
        await new.stop(0)
        old = await started(bench, Code("p@old"))
        await old.run_due()
        assert (await the_run(old)).output == "child"

    on_bench(functions, scenario)


def test_many_held_runs_are_not_looked_at_by_claims(on_bench: Any) -> None:
    """They are parked: no claim that comes after sees them among what is due."""

    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        old = await started(bench, Code("p@old"))
        for n in range(150):
            await bench.send(n=n)
        await old.run_due()
        await old.stop(0)
        new = await started(bench, Code("p@new"))
        await bench.send("on")
        await new.run_due()
        assert {run.status for run in await new.runs(200)} == {EngineRunStatus.WAITING}
        due = "SELECT count(*) FROM queue WHERE parked_on IS NULL"
        assert await new._store._database.read(lambda c: rows(c, due)) == [(0,)]
        await bench.send(n=-1)
        assert await new.run_due() > 0

    on_bench(Story().functions, scenario)


def test_what_waits_for_room_under_a_limit_gets_it_although_a_held_run_was_before_it(on_bench: Any) -> None:
    def functions(client: inngest.Inngest) -> Any:
        async def fn(ctx: inngest.Context) -> str:
            await ctx.step.wait_for_event("wait", event="on", timeout=60_000)
            return "done"

        limit = [inngest.Concurrency(limit=1)]
        return [client.create_function(fn_id="fn", trigger=TRIGGER, concurrency=limit)(fn)]

    async def scenario(bench: Any) -> None:
        await (await begun(bench, Code("p@old"))).stop(0)
        new = await started(bench, Code("p@new"))
        for n in range(5):
            await bench.send(n=n)
        await new.run_due()
        await bench.send("on")
        await new.run_due()
        statuses = sorted(run.status.value for run in await new.runs(10))
        assert statuses == ["completed"] * 5 + ["waiting"]

    on_bench(functions, scenario)


def test_a_port_that_cannot_say_fails_the_call_and_not_the_run(on_bench: Any) -> None:
    class Doubtful(Code):
        doubts = True

        async def used(self, fn_id: str, events: Sequence[JsonValue]) -> frozenset[str] | None:
            if self.doubts:
                raise OSError("the disk is away")
            return await super().used(fn_id, events)

    async def scenario(bench: Any) -> None:
        await bench.engine.stop(0)
        code = Doubtful("p@1")
        engine = await started(bench, code)
        await bench.send(x=1)
        assert await engine.run_due() == 0
        code.doubts = False
        bench.clock.advance(10_000)
        assert await engine.run_due() > 0
        ((event,),) = [code.asked]
        assert event["data"] == {"x": 1}

    on_bench(Story().functions, scenario)
