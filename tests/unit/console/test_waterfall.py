"""Rows of time from timelines that a run can have, and how pages write them."""

from __future__ import annotations

import msgspec
import pytest

from rawr.console.pages import BAR_WIDTH_MIN, CHART_WIDTH, bar, duration, json_text
from rawr.console.waterfall import DeskRow, DeskStatus, Segment, desk_rows
from rawr.coordination.model import EventType, Run, RunStatus, TimelineEvent
from rawr.ids import DeskId, EventId, RunId, WorkflowId
from rawr.wire import iso_from_ms

START_MS = 1_767_225_600_000
STARTED, COMPLETED, FAILED = EventType.DESK_STARTED, EventType.DESK_COMPLETED, EventType.DESK_FAILED


def rows(*events: tuple[str, EventType, int], ended_ms: int | None = None) -> list[DeskRow]:
    """Of a run with these events, `(desk, type, ms after the start)`, looked at ten seconds after it began."""
    status = RunStatus.RUNNING if ended_ms is None else RunStatus.FAILED
    run = Run(
        run_id=RunId("run-1"),
        workflow_id=WorkflowId("w"),
        workflow_version=1,
        status=status,
        started_at=iso_from_ms(START_MS),
        trace_links=(),
        finished_at=msgspec.UNSET if ended_ms is None else iso_from_ms(START_MS + ended_ms),
    )
    timeline = [
        TimelineEvent(
            event_id=EventId(f"e-{seq}"),
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            desk_id=DeskId(desk),
            type=type_,
            ts=iso_from_ms(START_MS + at_ms),
            status=status,
            seq=seq,
        )
        for seq, (desk, type_, at_ms) in enumerate(events, 1)
    ]
    return desk_rows(run, None, timeline, START_MS + 10_000)


def test_desks_stand_in_the_order_of_their_starts() -> None:
    found = rows(("b", STARTED, 10), ("a", STARTED, 5), ("a", COMPLETED, 30))
    assert [(row.desk_id, row.start_ms, row.duration_ms) for row in found] == [("a", 5, 25), ("b", 10, 9990)]


@pytest.mark.parametrize(
    ("events", "ended_ms", "status", "times"),
    [
        ([(STARTED, 5)], None, DeskStatus.RUNNING, [(5, 10_000)]),
        ([(STARTED, 5)], 700, DeskStatus.STOPPED, [(5, 700)]),
        ([(STARTED, 5), (COMPLETED, 8)], None, DeskStatus.COMPLETED, [(5, 8)]),
        ([(STARTED, 5), (FAILED, 8)], None, DeskStatus.RETRYING, [(5, 8)]),
        ([(STARTED, 5), (FAILED, 8)], 9, DeskStatus.FAILED, [(5, 8)]),
        ([(STARTED, 5), (FAILED, 8), (STARTED, 50), (COMPLETED, 60)], 70, DeskStatus.COMPLETED, [(5, 8), (50, 60)]),
        ([(STARTED, 5), (STARTED, 50), (COMPLETED, 60)], 70, DeskStatus.COMPLETED, [(5, 50), (50, 60)]),
        ([(COMPLETED, 8)], 70, DeskStatus.COMPLETED, [(8, 8)]),
        ([(STARTED, 9), (COMPLETED, 3)], 70, DeskStatus.COMPLETED, [(9, 9)]),
        ([(STARTED, -4), (COMPLETED, 3)], 70, DeskStatus.COMPLETED, [(0, 3)]),
    ],
)
def test_attempts_become_segments(
    events: list[tuple[EventType, int]], ended_ms: int | None, status: DeskStatus, times: list[tuple[int, int]]
) -> None:
    (row,) = rows(*(("a", type_, at_ms) for type_, at_ms in events), ended_ms=ended_ms)
    assert row.status is status
    assert [(segment.start_ms, segment.end_ms) for segment in row.segments] == times


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "total_ms"), [(0, 0, 0), (0, 1, 10**9), (10**9, 10**9, 10**9), (5, 5, 5), (0, 100, 100)]
)
def test_a_bar_can_be_seen_and_stays_inside(start_ms: int, end_ms: int, total_ms: int) -> None:
    drawn = bar(Segment(start_ms=start_ms, end_ms=end_ms, status=DeskStatus.RUNNING), total_ms)
    assert drawn.width >= BAR_WIDTH_MIN
    assert drawn.x >= 0
    assert drawn.x + drawn.width <= CHART_WIDTH


@pytest.mark.parametrize(
    ("ms", "text"),
    [(0, "0 ms"), (999, "999 ms"), (2410, "2.41 s"), (187_000, "3 min 07 s"), (7_500_000, "2 h 05 min")],
)
def test_durations_are_written_for_people(ms: int, text: str) -> None:
    assert duration(ms) == text


def test_a_very_long_value_is_cut_and_says_so() -> None:
    text = json_text(["x" * 50_000])
    assert len(text) < 21_000
    assert "the first 20000 are shown" in text
