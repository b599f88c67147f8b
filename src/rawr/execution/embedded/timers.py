"""What happens because its time has come. Part of one transition inside the caller's transaction."""

from __future__ import annotations

from typing import Final, assert_never

from rawr.execution.embedded import waits
from rawr.execution.embedded.admission import end_throttle
from rawr.execution.embedded.gathering import end_batch, end_debounce
from rawr.execution.embedded.model import JobKind
from rawr.execution.embedded.runs import end_late, end_sleep
from rawr.execution.embedded.schedules import fire_cron
from rawr.execution.embedded.transition import JOB, TimerKind, Transition, job_of
from rawr.storage.sqlite import rows

TIMERS_PER_CLAIM: Final = 256
# Constant texts; nothing from outside is ever put into SQL.
_OVER: Final = (
    f"SELECT {JOB} FROM queue WHERE lease_owner IS NULL AND parked_on IS NULL AND kind = ? AND due_at <= ?"  # noqa: S608
    " ORDER BY due_at LIMIT ?"
)
_DUE: Final = (
    "DELETE FROM timers WHERE timer_id IN (SELECT timer_id FROM timers WHERE due_at <= ? ORDER BY due_at LIMIT ?)"
    " RETURNING due_at, timer_id, kind, run_id"
)


def fire_due(at: Transition) -> None:
    """End the sleeps and fire the timers whose time has come, the longest due first."""
    for row in rows(at.connection, _OVER, (JobKind.SLEEP.value, at.now_ms, TIMERS_PER_CLAIM)):
        end_sleep(at, job_of(row))
    for _, timer_id, kind, run_id in sorted(rows(at.connection, _DUE, (at.now_ms, TIMERS_PER_CLAIM))):
        _fire(at, timer_id, TimerKind(kind), run_id)


def _fire(at: Transition, timer_id: str, kind: TimerKind, run_id: str | None) -> None:
    match kind:
        case TimerKind.WAIT:
            waits.expire(at, timer_id)
        case TimerKind.START | TimerKind.FINISH:
            assert run_id is not None
            end_late(at, run_id, to_start=kind is TimerKind.START)
        case TimerKind.CRON:
            fire_cron(at, timer_id)
        case TimerKind.DEBOUNCE:
            end_debounce(at, timer_id)
        case TimerKind.BATCH:
            end_batch(at, timer_id)
        case TimerKind.THROTTLE:
            end_throttle(at, timer_id)
        case _:
            assert_never(kind)
