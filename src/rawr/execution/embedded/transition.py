"""What every transition of the engine works on: one transaction, one time, and what it gives rise to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.model import Held, JobKind, NewEvent
from rawr.execution.expressions import Expressions
from rawr.storage.sqlite import Connection, run

JOB: Final = "job_id, run_id, fn_id, kind, step_id, name, attempt, generation, crashes, code"
"""The columns of a `Job`, in order."""


class TimerKind(StrEnum):
    WAIT = "wait"
    START = "start"
    FINISH = "finish"
    CRON = "cron"
    DEBOUNCE = "debounce"
    BATCH = "batch"
    THROTTLE = "throttle"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the queue."""

    job_id: str
    run_id: str
    fn_id: str
    kind: JobKind
    step_id: str
    name: str
    attempt: int
    generation: int
    crashes: int
    code: str | None


class Transition(msgspec.Struct, frozen=True, kw_only=True):
    """The surroundings of a transition.

    Events that it gives rise to are only collected: whoever began the transaction routes them in it, last. So
    the end of a run can start others, which end others, without one transition inside the other.
    """

    connection: Connection
    now_ms: int
    new_ulid: Callable[[], str]
    expressions: Expressions
    emitted: list[NewEvent] = msgspec.field(default_factory=list)
    held: list[Held] = msgspec.field(default_factory=list)
    """Runs that were held in it: whoever began the transaction tells people, once it is durable."""


def set_timer(at: Transition, timer_id: str, kind: TimerKind, due_ms: int, *, run_id: str | None = None) -> None:
    """Let it fire at `due_ms`, also when it was set for another time before. It ends with its run, if it has one."""
    values = (timer_id, kind.value, run_id, due_ms, at.now_ms)
    run(
        at.connection,
        "INSERT OR REPLACE INTO timers (timer_id, kind, run_id, due_at, set_at) VALUES (?, ?, ?, ?, ?)",
        values,
    )


def job_of(row: Sequence[Any]) -> Job:
    job_id, run_id, fn_id, kind, step_id, name, attempt, generation, crashes, code = row
    return Job(
        job_id=job_id,
        run_id=run_id,
        fn_id=fn_id,
        kind=JobKind(kind),
        step_id=step_id,
        name=name,
        attempt=attempt,
        generation=generation,
        crashes=crashes,
        code=code,
    )


def stored_fragment(text: str, canonical: str | None) -> Fragment:
    return Fragment(text.encode(), None if canonical is None else canonical.encode())


def stored_texts(fragment: Fragment) -> tuple[str, str | None]:
    """Text and canonical form as they are stored."""
    return fragment.text.decode(), None if fragment.canonical is None else fragment.canonical.decode()
