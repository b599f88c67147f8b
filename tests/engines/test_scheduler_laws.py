"""Whatever comes, in whatever order: limits are never exceeded, nothing is lost, nothing happens twice.

A state machine drives the engine's store by a clock of its own: events come, engines claim, answer, die and are
cancelled under. It keeps its own books of who holds what; the laws compare the two.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import hypothesis.strategies as st
import msgspec
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from rawr.execution.embedded.fragment import NULL, Fragment, fragment
from rawr.execution.embedded.functions import (
    Batch,
    Concurrency,
    ConcurrencyScope,
    Debounce,
    RateLimit,
    RegisteredFunction,
    Singleton,
    SingletonMode,
    Throttle,
    Trigger,
)
from rawr.execution.embedded.ingestion import new_event
from rawr.execution.embedded.memory import NOTHING, Memory
from rawr.execution.embedded.model import Claim, EngineRun, EngineRunStatus, Lease
from rawr.execution.embedded.outcomes import (
    CallFailed,
    EventAwaited,
    Failure,
    FunctionFinished,
    FunctionInvoked,
    OpsAnswered,
    Outcome,
    Sleeping,
    StepErrored,
    StepPlanned,
    StepRan,
)
from rawr.execution.embedded.protocol import ROOT_STEP
from rawr.execution.embedded.runs import memory_of, run_events
from rawr.execution.embedded.store import EngineStore
from rawr.execution.ports import OutgoingEvent
from rawr.storage.sqlite import Connection, rows
from rawr.testing.clock import FakeClock

T = TypeVar("T")
USER = "event.data.user"
SHARED = Concurrency(limit=2, key=USER, scope=ConcurrencyScope.ENVIRONMENT)
OPEN = (EngineRunStatus.QUEUED, EngineRunStatus.RUNNING)


def function(name: str, **limits: Any) -> RegisteredFunction:
    return RegisteredFunction(fn_id=name, name=name, max_attempts=3, triggers=(Trigger(event_name=name),), **limits)


FUNCTIONS = {
    made.fn_id: made
    for made in (
        function("plain"),
        function("limited", concurrency=(Concurrency(limit=3), Concurrency(limit=1, key=USER))),
        function("shared1", concurrency=(SHARED,)),
        function("shared2", concurrency=(SHARED, Concurrency(limit=2))),
        function("throttled", throttle=Throttle(limit=2, period_ms=20_000, burst=2, key=USER)),
        function(
            "throttled_limited",
            throttle=Throttle(limit=3, period_ms=9_000),
            concurrency=(Concurrency(limit=1, key=USER),),
        ),
        function("rated", rate_limit=RateLimit(limit=2, period_ms=30_000, key=USER)),
        function("skipping", singleton=Singleton(mode=SingletonMode.SKIP, key=USER)),
        function("replacing", singleton=Singleton(mode=SingletonMode.CANCEL, key=USER)),
        function("batched", batch=Batch(max_size=3, timeout_ms=10_000, key=USER)),
        function("debounced", debounce=Debounce(period_ms=5_000, timeout_ms=12_000, key=USER)),
    )
}
ALWAYS_RUNS = {"plain", "limited", "shared1", "shared2", "throttled", "throttled_limited", "replacing"}
OWNERS = ("one", "two")
VALUES = (None, 1.5, 2**60, "\U0001f600", "\uffee")
"""Some are written in one way and signed in another."""


class Engines(RuleBasedStateMachine):
    @initialize(names=st.lists(st.sampled_from(sorted(FUNCTIONS)), min_size=1, max_size=3, unique=True))
    def open(self, names: list[str]) -> None:
        self.names = names
        self.folder = tempfile.TemporaryDirectory()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.store = EngineStore(
            Path(self.folder.name) / "engine.sqlite", clock=self.clock, backoff=lambda _attempt: 3_000
        )
        self.wait_for(self.store.register("app", list(FUNCTIONS.values())))
        self.sent: dict[str, tuple[str, str]] = {}
        self.held: dict[str, Claim] = {}
        self.started: dict[str, int] = {}
        self.remembered: dict[tuple[str, str], Any] = {}
        self.answers = 0

    def wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        try:
            self.come_to_an_end()
            self.check_the_end()
        finally:
            self.store.close()
            self.loop.close()
            self.folder.cleanup()

    @rule(data=st.data(), users=st.text("ab", min_size=1, max_size=5), times=st.integers(1, 2))
    def send(self, data: st.DataObject, users: str, times: int) -> None:
        name = data.draw(st.sampled_from(self.names))
        for user in users:
            event_id = f"e{len(self.sent)}"
            self.sent[event_id] = (name, user)
            event = OutgoingEvent(name=name, data={"user": user}, event_id=event_id)
            for _ in range(times):
                new = new_event(event, ulid=self.store.new_ulid(), now_ms=self.clock.now_ms())
                self.wait_for(self.store.accept([new], route_now=True))
        self.drop_ended()

    @rule(owner=st.sampled_from(OWNERS), limit=st.integers(1, 6))
    def claim(self, owner: str, limit: int) -> None:
        lease = Lease(owner=owner, until_ms=2**60)
        for claim in self.wait_for(self.store.claim(lease, dict.fromkeys(FUNCTIONS, ""), limit)):
            self.hold(claim)
            self.started.setdefault(claim.run_id, self.clock.now_ms())

    def hold(self, claim: Claim) -> None:
        assert claim.job_id not in self.held, "a job is held by one engine at a time"
        self.held[claim.job_id] = claim
        memory, (_, events) = self.wait_for(self.store._database.read(lambda c: read_afresh(c, claim.run_id)))
        assert claim.call.memory == memory, "what is kept from call to call is what is stored"
        assert claim.call.events == tuple(body for _, body in events)

    @precondition(lambda self: self.held)
    @rule(
        data=st.data(),
        what=st.sampled_from(["finish", "step", "fan", "fail", "error", "sleep", "wait", "invoke"]),
        goes_on=st.booleans(),
        gives_way=st.booleans(),
    )
    def answer(self, data: st.DataObject, what: str, goes_on: bool, gives_way: bool) -> None:
        claim = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        self.settle(claim, self.outcome(claim, what), goes_on=goes_on, gives_way=gives_way)

    @rule(owner=st.sampled_from(OWNERS))
    def die(self, owner: str) -> None:
        lost = [job_id for job_id, claim in self.held.items() if claim.owner == owner]
        stale = [self.held.pop(job_id) for job_id in lost]
        self.wait_for(self.store.reclaim(dead=[owner], alive=[]))
        for claim in stale:
            settled = self.wait_for(self.store.settle(claim, FunctionFinished(output=NULL), next_lease=None))
            assert settled.stale, "who lost a lease cannot write"

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        runs = self.runs()
        if runs:
            run_id = data.draw(st.sampled_from(sorted(run.run_id for run in runs)))
            self.wait_for(self.store.cancel(run_id, "the test says so"))
            self.drop_ended()

    @rule(ms=st.sampled_from([1, 500, 3_000, 5_000, 11_000, 31_000]))
    def advance(self, ms: int) -> None:
        self.clock.advance(ms)

    @rule()
    def news(self) -> None:
        event = OutgoingEvent(name="news", data={})
        new = new_event(event, ulid=self.store.new_ulid(), now_ms=self.clock.now_ms())
        self.wait_for(self.store.accept([new], route_now=True))

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        if not hasattr(self, "store"):
            return
        under_way = Counter[tuple[str, str]]()
        for claim in self.held.values():
            user = claim.call.events[0].value()["data"]["user"]
            under_way[(claim.call.fn_id, "")] += 1
            under_way[(claim.call.fn_id, user)] += 1
            if claim.call.fn_id.startswith("shared"):
                under_way[("shared", user)] += 1
        assert under_way[("limited", "")] <= 3
        assert under_way[("shared2", "")] <= 2
        for user in "ab":
            assert under_way[("limited", user)] <= 1
            assert under_way[("throttled_limited", user)] <= 1
            assert under_way[("shared", user)] <= 2

    @invariant()
    def there_is_one_run_of_a_singleton(self) -> None:
        if not hasattr(self, "store"):
            return
        found = Counter(
            (run.fn_id, self.sent[run.event_id][1])
            for run in self.runs()
            if run.status in OPEN and run.fn_id in ("skipping", "replacing")
        )
        assert max(found.values(), default=0) <= 1

    def outcome(self, claim: Claim, what: str) -> Outcome:
        """An answer as a function could give it here: a targeted call answers with its step."""
        if claim.call.step_id != ROOT_STEP:
            return self.step_outcome(claim, claim.call.step_id, what)
        self.answers += 1
        fresh = f"s{self.answers}"
        match what:
            case "finish":
                return FunctionFinished(output=fragment(claim.call.memory.steps))
            case "fail":
                return CallFailed(failure=Failure(name="E", message="m"), retriable=True)
            case "fan":
                names = [f"{fresh}{letter}" for letter in "abc"]
                return OpsAnswered(ops=tuple(StepPlanned(step_id=n, name=n, race=n == names[0]) for n in names))
            case "sleep":
                return OpsAnswered(ops=(Sleeping(step_id=fresh, name=fresh, until="4s", race=False),))
            case "invoke":
                user = claim.call.events[0].value()["data"]["user"]
                invoked = FunctionInvoked(
                    step_id=fresh,
                    name=fresh,
                    fn_id="plain",
                    data={"user": user},
                    version=None,
                    timeout=None,
                    race=False,
                )
                return OpsAnswered(ops=(invoked,))
            case "wait":
                wait = EventAwaited(
                    step_id=fresh, name=fresh, event_name="news", condition=None, timeout="7s", race=False
                )
                return OpsAnswered(ops=(wait,))
            case _:
                return self.step_outcome(claim, fresh, what)

    def step_outcome(self, claim: Claim, step_id: str, what: str) -> Outcome:
        if what == "fail":
            return CallFailed(failure=Failure(name="E", message="m"), retriable=True)
        if what == "error":
            failure = Failure(name="E", message="m")
            return OpsAnswered(ops=(StepErrored(step_id=step_id, name=step_id, failure=failure, final=False),))
        key = (claim.run_id, step_id)
        assert key not in self.remembered, "a step that is remembered does not run again"
        self.remembered[key] = value = [self.answers, VALUES[self.answers % len(VALUES)]]
        return OpsAnswered(ops=(StepRan(step_id=step_id, name=step_id, memo=fragment({"data": value})),))

    def settle(self, claim: Claim, outcome: Outcome, *, goes_on: bool = False, gives_way: bool = False) -> None:
        lease = Lease(owner=claim.owner, until_ms=2**60) if goes_on else None
        settled = self.wait_for(self.store.settle(claim, outcome, next_lease=lease, gives_way=gives_way))
        assert not settled.stale
        if settled.next_claim is not None:
            self.hold(settled.next_claim)
            assert not (gives_way and self.due_runs() - {claim.run_id}), "who waits longer goes first"
        self.drop_ended()

    def due_runs(self) -> set[str]:
        sql = (
            "SELECT run_id FROM queue WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = 'call' AND due_at <= "
        )
        return {run_id for (run_id,) in self.query(f"{sql}{self.clock.now_ms()}")}

    def drop_ended(self) -> None:
        """A run that ended (cancelled, or replaced) takes its calls with it; their answers are dropped."""
        ended = {run.run_id for run in self.runs() if run.status not in OPEN}
        self.held = {job_id: claim for job_id, claim in self.held.items() if claim.run_id not in ended}

    def runs(self) -> list[EngineRun]:
        return self.wait_for(self.store.runs(10_000))

    def come_to_an_end(self) -> None:
        for _ in range(500):
            self.drop_ended()
            for job_id in sorted(self.held):
                if job_id in self.held:
                    self.settle(self.held.pop(job_id), FunctionFinished(output=NULL))
            self.claim("one", 10)
            self.no_limit_is_exceeded()
            if not self.held and self.wait_for(self.store.pending_count()) == 0:
                return
            if not self.held:
                self.clock.advance(1_000)
        raise AssertionError("what was accepted is never done")

    def check_the_end(self) -> None:
        runs = self.runs()
        assert not [run for run in runs if run.status in OPEN], "every run ends"
        by_event = Counter(run.event_id for run in runs if run.event_id in self.sent)
        assert max(by_event.values(), default=0) <= 1, "an event starts a function once"
        for event_id, (name, _) in self.sent.items():
            if name in ALWAYS_RUNS:
                assert by_event[event_id] == 1, f"{event_id} of {name} is lost"
        self.check_batches()
        self.check_steps()
        self.check_starts(runs)

    def check_batches(self) -> None:
        sql = "SELECT e.event_id FROM run_events r JOIN events e ON e.ulid = r.event_ulid"
        together = [row[0] for row in self.query(sql)]
        sql = (
            "SELECT e.event_id FROM runs r JOIN events e ON e.ulid = r.event_ulid"
            " WHERE r.fn_id = 'batched' AND r.is_batch = 0"
        )
        alone = [row[0] for row in self.query(sql)]
        assert sorted(together + alone) == sorted(e for e, (name, _) in self.sent.items() if name == "batched")

    def check_steps(self) -> None:
        for run_id, step_id, memo in self.query("SELECT run_id, step_id, memo FROM steps"):
            if (run_id, step_id) in self.remembered:
                assert msgspec.json.decode(memo) == {"data": self.remembered[(run_id, step_id)]}

    def check_starts(self, runs: list[EngineRun]) -> None:
        users = {run.run_id: (run.fn_id, self.sent[run.event_id][1]) for run in runs if run.event_id in self.sent}
        begun = sorted((at_ms, *users[run_id]) for run_id, at_ms in self.started.items() if run_id in users)
        for user in "ab":
            times = [at_ms for at_ms, name, whose in begun if (name, whose) == ("throttled", user)]
            assert at_most(times, 3, within_ms=20_000)  # two by the limit, and one more by the burst
        assert at_most([at_ms for at_ms, name, _ in begun if name == "throttled_limited"], 3, within_ms=9_000)
        queued = [(run.queued_at_ms, users[run.run_id][1]) for run in runs if run.fn_id == "rated"]
        for user in "ab":
            assert at_most(sorted(at_ms for at_ms, whose in queued if whose == user), 2, within_ms=30_000)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        return self.store._database.read_sync(lambda c: rows(c, sql))


def read_afresh(connection: Connection, run_id: str) -> tuple[Memory, tuple[str, list[tuple[str, Fragment]]]]:
    return memory_of(connection, run_id, NOTHING), run_events(connection, run_id)


def at_most(times_ms: list[int], count: int, *, within_ms: int) -> bool:
    """Whether no window of this length has more than `count` of the sorted times."""
    return all(later - earlier >= within_ms for earlier, later in zip(times_ms, times_ms[count:], strict=False))


def test_whatever_comes_limits_hold_and_nothing_is_lost_or_done_twice() -> None:
    checks = (HealthCheck.too_slow, HealthCheck.filter_too_much)
    run_state_machine_as_test(
        Engines,
        settings=settings(max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=checks),
    )
