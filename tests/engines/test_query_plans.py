"""What a statement of the engine costs depends on neither the history nor the length of the queue.

A scenario that uses whatever the engine can do is watched by SQLite itself: every statement with its plan, and with
the number of steps that its program took. No time is measured.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import apsw
import apsw.ext
import inngest
import msgspec
from tests.engines.conftest import Bench

from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.fragment import NULL
from rawr.execution.embedded.functions import RegisteredFunction, Trigger
from rawr.execution.embedded.ingestion import new_events
from rawr.execution.embedded.model import Lease, RunFilter
from rawr.execution.embedded.outcomes import FunctionFinished, OpsAnswered, StepRan
from rawr.execution.embedded.reruns import Rerun
from rawr.execution.embedded.store import EngineStore
from rawr.execution.ports import OutgoingEvent
from rawr.testing.clock import FakeClock

Costs = dict[str, int]
"""The most steps that one execution of each statement took."""

NAP_ENDS = datetime(2026, 1, 1, 0, 0, 5, tzinfo=UTC)
"""By the engine's clock."""

SELDOM = {
    "SELECT (SELECT count(*) FROM queue) + (SELECT count(*) FROM waits)": "somebody asks how much is left",
    "DELETE FROM event_keys WHERE seen_at": "somebody lets the engine forget",
    "DELETE FROM rate_starts WHERE until": "somebody lets the engine forget",
    "DELETE FROM throttles WHERE full_at": "somebody lets the engine forget",
    "UPDATE queue SET due_at = due_at - added_at": "an engine starts, or the clock was set; looks at what is open",
    "UPDATE timers SET due_at = due_at - set_at": "an engine starts, or the clock was set; looks at what is open",
}
"""How the statements begin that may look at everything, and when they are made."""
MANY = 3_000

SMALL = {"triggers", "t", "functions", "f", "crons", "offers", "o", "owners", "apps", "json_each", "rawr_migration"}
"""As many rows as there are functions and processes, however long they have been at work."""


@contextmanager
def watched() -> Iterator[Costs]:
    """Watch all statements of all connections that are opened meanwhile."""
    costs: Costs = defaultdict(int)

    def seen(event: dict[str, Any]) -> None:
        costs[event["sql"]] = max(costs[event["sql"]], event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"])

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, seen)

    apsw.connection_hooks.append(watch)
    try:
        yield costs
    finally:
        apsw.connection_hooks.remove(watch)


def functions(client: inngest.Inngest) -> Sequence[inngest.Function[Any]]:
    """One for every kind of step and every setting."""

    async def give() -> int:
        return 1

    async def steps(ctx: inngest.Context) -> Any:
        await ctx.step.run("first", give)
        await ctx.group.parallel((lambda: ctx.step.run("a", give), lambda: ctx.step.run("b", give)))
        await ctx.step.sleep_until("nap", NAP_ENDS)
        return await ctx.step.run("last", give)

    async def waiting(ctx: inngest.Context) -> Any:
        condition = "event.data.n == async.data.n"
        news = await ctx.step.wait_for_event("news", event="news", if_exp=condition, timeout=timedelta(seconds=20))
        return news is not None

    async def parent(ctx: inngest.Context) -> Any:
        return await ctx.step.invoke_by_id("call", function_id="plain", timeout=timedelta(minutes=5))

    async def plain(ctx: inngest.Context) -> Any:
        return await ctx.step.run("only", give)

    async def failing(ctx: inngest.Context) -> Any:
        raise ValueError(ctx.run_id)

    def function(name: str, body: Any, **settings: Any) -> inngest.Function[Any]:
        return client.create_function(fn_id=name, trigger=inngest.TriggerEvent(event=name), **settings)(body)

    second = timedelta(seconds=1)
    return [
        function("steps", steps),
        function("waiting", waiting),
        function("parent", parent),
        function("plain", plain),
        function("failing", failing, retries=1, on_failure=plain),
        function(
            "cancelled",
            waiting,
            cancel=[inngest.Cancel(event="stop", if_exp="event.data.n == async.data.n", timeout=60 * second)],
            timeouts=inngest.Timeouts(start=60 * second, finish=60 * second),
        ),
        function("limited", plain, concurrency=[inngest.Concurrency(limit=1, key="event.data.n")]),
        function("throttled", plain, throttle=inngest.Throttle(limit=1, period=second)),
        function("rated", plain, rate_limit=inngest.RateLimit(limit=2, period=second)),
        function("debounced", plain, debounce=inngest.Debounce(period=second)),
        function("batched", plain, batch_events=inngest.Batch(max_size=2, timeout=second)),
        function("single", plain, singleton=inngest.Singleton(mode="cancel", key="event.data.n")),
        function("important", plain, priority=inngest.Priority(run="event.data.n")),
        client.create_function(fn_id="hourly", trigger=inngest.TriggerCron(cron="0 * * * *"))(plain),
    ]


EVENTS = ["steps", "waiting", "parent", "plain", "failing", "cancelled", "limited", "throttled", "rated", "debounced"]
EVENTS += ["batched", "single", "important"]


async def everything(bench: Bench) -> None:
    """Whatever the engine can do, at least once."""
    engine = bench.engine
    for number in range(3):
        await engine.send([OutgoingEvent(name=name, data={"n": number}) for name in EVENTS])
    await engine.ingest({"name": "plain", "data": {}}, "1,AAAAAAAAAAAAAA==")
    await engine.run_due()
    await engine.send([OutgoingEvent(name="news", data={"n": 1}), OutgoingEvent(name="stop", data={"n": 2})])
    for seconds in (1, 5, 10, 30, 3600):
        bench.clock.advance(seconds * 1000)
        await engine.run_due()
    waiting = await engine.send([OutgoingEvent(name="waiting", data={"n": 9})])
    await engine.run_due()
    assert waiting
    open_run = next(run for run in await engine.runs(5) if run.ended_at_ms is None)
    assert await engine.cancel(open_run.run_id)
    await engine.send([OutgoingEvent(name="waiting", data={"n": n}) for n in (7, 8)])
    assert len(await engine.cancel_where(RunFilter(fn_id="app-waiting", condition="event.data.n == 7"))) == 1
    ended = next(run for run in await engine.runs(60) if run.fn_id == "app-steps")
    assert await engine.run(ended.run_id) is not None
    assert await engine.run_events(ended.run_id)
    assert await engine.run_memos(ended.run_id)
    await engine.rerun(Rerun(run_id=ended.run_id, from_step="last", data={"n": 5}))
    await engine.run_due()
    await engine.is_idle()
    await engine.pending_count()
    other = bench.another()
    await other.prepare()
    await other.run_due()
    await other.stop(0)
    await engine.sweep()
    await works_in_the_background(bench.another())


async def works_in_the_background(engine: EmbeddedEngine) -> None:
    await engine.start()
    await engine.send([OutgoingEvent(name="plain", data={"n": 1})])
    async with asyncio.timeout(60):
        while (await engine.runs(1))[0].ended_at_ms is None:  # noqa: ASYNC110 - the engine is the thing under test
            await asyncio.sleep(0.005)
    await engine.stop(5)


HISTORY = """
CREATE TEMP TABLE n AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {many})
  SELECT i, printf('00000000000000000000%06d', i) AS id FROM n;
INSERT INTO events (ulid, event_id, name, body, received_at, routed)
  SELECT id, id, 'plain', '{{"data":{{"n":1}},"name":"plain"}}', 1, 1 FROM n;
INSERT INTO event_keys SELECT 'app-plain', id, id, {far_ms} FROM n;
INSERT INTO runs (run_id, fn_id, event_ulid, status, steps, queued_at, started_at, ended_at, output)
  SELECT n.id, 'app-' || value, n.id, 'completed', 1, 1, 1, {far_ms}, '1'
  FROM n JOIN json_each('{names}') ON key = i % 13;
INSERT INTO steps (run_id, step_id, seq, name, memo, attempt, ended_at) SELECT id, 's', 1, 's', 'null', 0, 1 FROM n;
UPDATE runs SET ended_at = NULL, status = 'running' WHERE run_id IN (SELECT id FROM n WHERE i % 3 = 0);
INSERT INTO queue (job_id, run_id, fn_id, kind, step_id, name, due_at, parked_on) SELECT id, id, 'app-plain',
  iif(i % 2, 'sleep', 'call'), 'x', 'x', {far_ms}, iif(i % 4 = 0, 'nobody', NULL) FROM n;
INSERT INTO waits SELECT id || '|wait', id, 'w', 'w', 'news', NULL, 'data.n', 'n' || i FROM n;
INSERT INTO cancels SELECT id, 'stop', NULL, NULL, 'data.n', 'n' || i FROM n;
INSERT INTO timers (timer_id, kind, run_id, due_at) SELECT id || '|wait', 'wait', id, {far_ms} FROM n;
INSERT INTO rate_starts (key, started_at, until) SELECT 'k' || i, 1, {far_ms} FROM n;
"""
"""Runs that have ended, sleep, wait, are parked, and begin in years. No two wait for the same."""


def costs_of(root: Path, *, history: bool) -> Costs:
    async def whole() -> Costs:
        bench = Bench(root, functions)
        await bench.engine.prepare()
        await bench.engine.stop(0)
        if history:
            connection = apsw.Connection(str(root / "engine.sqlite"))
            script = HISTORY.format(many=MANY, far_ms=2 * 10**12, names=msgspec.json.encode(EVENTS).decode())
            list(connection.execute(script))
            connection.close()
        with watched() as costs:
            bench.engine = bench.another()
            await bench.engine.prepare()
            await everything(bench)
            await bench.engine.forget(bench.clock.now_ms() - 1)
            await bench.engine.stop(0)
        return costs

    return asyncio.run(whole())


def plans(root: Path, statements: Iterable[str]) -> dict[str, list[str]]:
    connection = apsw.Connection(str(root / "engine.sqlite"))
    asked = [sql for sql in statements if sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))]
    return {sql: _plan(connection, sql) for sql in asked if not sql.startswith(tuple(SELDOM))}


def _plan(connection: apsw.Connection, sql: str) -> list[str]:
    nothing = (None,) * apsw.ext.query_info(connection, sql).bindings_count
    return [str(row[3]) for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", nothing)]


def is_scan(sql: str, place: str) -> bool:
    """Whether this part of a plan looks at rows without being led to them."""
    if not place.startswith("SCAN") or "CONSTANT ROW" in place or "SCAN (" in place:
        return False
    if "events_unrouted" in place or "runs_held" in place:  # all that is in these has to be looked at
        return False
    in_order_and_few = "USING INDEX" in place and sql.endswith("DESC LIMIT ?")
    return place.split()[1] not in SMALL and not in_order_and_few


def test_no_statement_looks_through_a_table_that_grows(tmp_path: Path) -> None:
    found = plans(tmp_path, costs_of(tmp_path, history=False))
    assert len(found) > 90, "the scenario does not use the engine any more"
    assert {sql: plan for sql, plan in found.items() if any(is_scan(sql, place) for place in plan)} == {}


def test_no_statement_costs_more_for_a_long_history_and_a_long_queue(tmp_path: Path) -> None:
    fresh = costs_of(tmp_path / "fresh", history=False)
    long = costs_of(tmp_path / "long", history=True)
    grown = {sql: (fresh[sql], steps) for sql, steps in long.items() if steps > max(3 * fresh[sql], MANY)}
    assert {sql: steps for sql, steps in grown.items() if not sql.startswith(tuple(SELDOM))} == {}


def test_a_run_goes_on_at_the_same_cost_however_many_others_are_due(tmp_path: Path) -> None:
    few, many = (costs_of_one_run(tmp_path / str(others), others) for others in (5, MANY))
    assert {sql: (few[sql], steps) for sql, steps in many.items() if steps > 3 * few[sql] + 50} == {}


def costs_of_one_run(folder: Path, others: int) -> Costs:
    """Of its calls, from the first to the last, while `others` are due before it."""
    plain = RegisteredFunction(fn_id="plain", name="plain", max_attempts=3, triggers=(Trigger(event_name="go"),))

    async def whole(store: EngineStore, costs: Costs) -> None:
        await store.register("app", [plain])
        asked = [OutgoingEvent(name="go", data={}) for _ in range(others + 1)]
        await store.accept(new_events(asked, new_ulid=store.new_ulid, now_ms=1), route_now=True)
        lease = Lease(owner="me", until_ms=2**60)
        costs.clear()
        (claim,) = await store.claim(lease, {"plain": ""}, 1)
        for number in range(5):
            ran = StepRan(step_id=str(number), name="s", memo=NULL)
            settled = await store.settle(claim, OpsAnswered(ops=(ran,)), next_lease=lease)
            assert settled.next_claim is not None
            claim = settled.next_claim
        await store.settle(claim, FunctionFinished(output=NULL), next_lease=lease)

    with watched() as costs:
        store = EngineStore(folder / "engine.sqlite", clock=FakeClock(), backoff=lambda _: 1)
        try:
            asyncio.run(whole(store, costs))
        finally:
            store.close()
    return costs
