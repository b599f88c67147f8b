"""How a run's timeline becomes rows of time: one per desk, with a segment for each attempt. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

from rawr.coordination.model import TERMINAL_STATUSES, EventType, Run, TimelineEvent, Workflow
from rawr.wire import JsonValue


class DeskStatus(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    RETRYING = "retrying"
    """An attempt failed, and the run has not ended."""
    STOPPED = "stopped"
    """The run ended before the desk did."""
    SKIPPED = "not reached"


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt. Times count from the start of the run."""

    start_ms: int
    end_ms: int
    status: DeskStatus


class DeskRow(msgspec.Struct, frozen=True, kw_only=True):
    desk_id: str
    name: str
    status: DeskStatus
    segments: tuple[Segment, ...]
    input: JsonValue | msgspec.UnsetType
    output: JsonValue | msgspec.UnsetType
    failure: str | None

    @property
    def start_ms(self) -> int | None:
        return self.segments[0].start_ms if self.segments else None

    @property
    def duration_ms(self) -> int | None:
        """From its first start to its last end, waiting for retries included."""
        return self.segments[-1].end_ms - self.segments[0].start_ms if self.segments else None


def span_ms(run: Run, now_ms: int) -> int:
    """How long the run took, or has taken so far."""
    end_ms = ms_of(run.finished_at) if isinstance(run.finished_at, str) else now_ms
    return max(0, end_ms - ms_of(run.started_at))


def desk_rows(run: Run, workflow: Workflow | None, timeline: Sequence[TimelineEvent], now_ms: int) -> list[DeskRow]:
    """Every desk of the workflow, and any other that the timeline names; those that started come first, in order."""
    names = {str(desk.desk_id): desk.name for desk in workflow.desks} if workflow is not None else {}
    events: dict[str, list[TimelineEvent]] = {desk_id: [] for desk_id in names}
    for event in timeline:
        if isinstance(event.desk_id, str):
            events.setdefault(event.desk_id, []).append(event)
    rows = [_row(run, desk_id, names.get(desk_id, desk_id), events[desk_id], now_ms) for desk_id in events]
    never = span_ms(run, now_ms) + 1
    return sorted(rows, key=lambda row: never if row.start_ms is None else row.start_ms)


def ms_of(iso: str) -> int:
    return round(datetime.datetime.fromisoformat(iso).timestamp() * 1000)


def _row(run: Run, desk_id: str, name: str, events: Sequence[TimelineEvent], now_ms: int) -> DeskRow:
    segments = tuple(_segments(run, events, now_ms))
    failures = [event.detail for event in events if event.type is EventType.DESK_FAILED]
    status = _status(run, segments)
    return DeskRow(
        desk_id=desk_id,
        name=name,
        status=status,
        segments=segments,
        input=next((event.input for event in events if event.input is not msgspec.UNSET), msgspec.UNSET),
        output=next((event.output for event in reversed(events) if event.output is not msgspec.UNSET), msgspec.UNSET),
        failure=failures[-1] if failures and isinstance(failures[-1], str) else None,
    )


def _segments(run: Run, events: Iterable[TimelineEvent], now_ms: int) -> Iterable[Segment]:
    """Attempts in order. One without an end lasts until now, or until the run ended."""
    origin_ms = ms_of(run.started_at)
    started_ms: int | None = None
    for event in events:
        at_ms = max(0, ms_of(event.ts) - origin_ms)
        match event.type:
            case EventType.DESK_STARTED:
                if started_ms is not None:  # a start whose end nobody recorded: its host died
                    yield Segment(start_ms=started_ms, end_ms=max(started_ms, at_ms), status=DeskStatus.STOPPED)
                started_ms = at_ms
            case EventType.DESK_COMPLETED | EventType.DESK_FAILED:
                completed = event.type is EventType.DESK_COMPLETED
                start_ms = at_ms if started_ms is None else started_ms
                status = DeskStatus.COMPLETED if completed else DeskStatus.FAILED
                yield Segment(start_ms=start_ms, end_ms=max(start_ms, at_ms), status=status)
                started_ms = None
            case _:
                pass  # events of the run itself name no desk
    if started_ms is not None:
        status = DeskStatus.STOPPED if run.status in TERMINAL_STATUSES else DeskStatus.RUNNING
        yield Segment(start_ms=started_ms, end_ms=max(started_ms, span_ms(run, now_ms)), status=status)


def _status(run: Run, segments: Sequence[Segment]) -> DeskStatus:
    ended = run.status in TERMINAL_STATUSES
    if not segments:
        return DeskStatus.SKIPPED if ended else DeskStatus.WAITING
    if segments[-1].status is DeskStatus.FAILED and not ended:
        return DeskStatus.RETRYING
    return segments[-1].status
