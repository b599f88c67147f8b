"""Laws of the stores over arbitrary histories: SQLite and memory give the same answers, and timelines have no gap."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from pathlib import Path

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from rawr.coordination.lifecycle import TRANSITIONS, Fact
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    TERMINAL_STATUSES,
    EventType,
    Finalization,
    FinishedHookState,
    HookOutcome,
    Run,
    RunStatus,
)
from rawr.coordination.ports import CoordinationStore
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.errors import RawrError
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.testing.clock import FakeClock
from rawr.testing.stores import MemoryCoordinationStore

RUNS = ("r1", "r2")
DESKS = ("a", "b")
AT = "2026-01-01T00:00:00.000Z"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
facts = st.builds(
    lambda kind, key, desk, output: Fact(key=key, type=kind, at=AT, desk_id=DeskId(desk), output=output),
    st.sampled_from(EventType),
    st.sampled_from([f"key-{number}" for number in range(8)]),
    st.sampled_from(DESKS),
    json_values,
)
create = st.tuples(st.just("create"), st.sampled_from(RUNS), st.sampled_from(("w1", "w2")), facts)
record = st.tuples(st.just("record"), st.sampled_from(RUNS), st.just(""), facts)
finish = st.tuples(st.just("finish"), st.sampled_from(RUNS), st.just(""), facts)
act = st.tuples(st.just("act"), st.sampled_from(RUNS), st.just(""), facts)


async def play(store: CoordinationStore, history: list[tuple[str, str, str, Fact]]) -> list[object]:
    """Everything that can be seen of a store while a history is played on it."""
    seen: list[object] = []
    for action, run_id, workflow_id, fact in history:
        try:
            if action == "create":
                run = Run(
                    run_id=RunId(run_id),
                    workflow_id=WorkflowId(workflow_id),
                    workflow_version=1,
                    status=RunStatus.QUEUED,
                    started_at=AT,
                    input=fact.output,
                    trace_links=(),
                    finalization=msgspec.UNSET if workflow_id == "w2" else Finalization(contract=FINALIZATION_CONTRACT),
                )
                created = await store.create_run(run, fact)
                seen.append((created.created, created.run))
            elif action == "finish":
                seen.append(await store.record_finished_hook(RunId(run_id), hook_state(fact.key)))
            elif action == "act":
                seen.append(await store.record_finished_effect(RunId(run_id), fact.key, fact.output))
            else:
                seen.append(await store.record(RunId(run_id), fact))
        except RawrError as error:
            seen.append((error.code, error.message))
    for run_id in RUNS:
        stored = await store.get_run(RunId(run_id))
        seen.append(stored)
        assert await store.run_json(RunId(run_id)) == (None if stored is None else msgspec.json.encode(stored))
        timeline = await store.timeline(RunId(run_id))
        seen.extend(timeline)
        as_json = await store.timeline_json(RunId(run_id))
        assert as_json == (msgspec.json.encode(timeline) if timeline else None)
        seen.extend([await store.desk_result(RunId(run_id), DeskId(desk)) for desk in DESKS])
        seen.append(await store.finished_effect(RunId(run_id), "key-0"))
    seen.append(await store.unheard_runs(9))
    seen.extend([await store.list_runs(limit=9), await store.undispatched_runs(9), await store.count_runs()])
    return seen


def hook_state(error: str) -> FinishedHookState:
    return FinishedHookState(
        attempted_at=AT,
        outcome=HookOutcome.FAILED,
        error=error,
        non_critical=True,
        idempotency_required=True,
        timeout_ms=5000,
    )


@settings(max_examples=60)
@given(st.lists(create | record | finish | act, max_size=14))
def test_both_stores_answer_the_same_to_any_history(history: list[tuple[str, str, str, Fact]]) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        SqliteCoordinationStore(Path(folder) / "coordination.sqlite", FakeClock()) as durable,
    ):
        on_sqlite = asyncio.run(play(durable, history))
    assert repr(on_sqlite) == repr(asyncio.run(play(MemoryCoordinationStore(FakeClock()), history)))


@settings(max_examples=150)
@given(st.lists(create | record, min_size=1, max_size=30))
def test_timelines_count_from_one_without_a_gap_and_follow_the_table(history: list[tuple[str, str, str, Fact]]) -> None:
    async def check() -> None:
        store = MemoryCoordinationStore(FakeClock())
        await play(store, history)
        for run_id in RUNS:
            timeline = await store.timeline(RunId(run_id))
            run = await store.get_run(RunId(run_id))
            assert [event.seq for event in timeline] == list(range(1, len(timeline) + 1))
            assert len({event.event_id for event in timeline}) == len(timeline)
            assert run is None or run.status is timeline[-1].status
            for before, event in itertools.pairwise(timeline):
                assert before.status not in TERMINAL_STATUSES
                assert TRANSITIONS[before.status][event.type] is event.status

    asyncio.run(check())
