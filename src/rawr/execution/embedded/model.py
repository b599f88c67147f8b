"""The engine's own nouns: events as accepted, jobs as claimed, runs as asked for. Pure values."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.outcomes import Failure
from rawr.execution.embedded.protocol import Call
from rawr.wire import JsonValue

EVENT_FAILED: Final = "inngest/function.failed"
EVENT_FINISHED: Final = "inngest/function.finished"
EVENT_CANCELLED: Final = "inngest/function.cancelled"
EVENT_INVOKED: Final = "inngest/function.invoked"
EVENT_CRON: Final = "inngest/scheduled.timer"


class EngineRunStatus(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    WAITING = "waiting"
    """Only in answers, never stored: it has begun, and no process has the code that it began with."""


class StepOp(StrEnum):
    """What a step was, as it is remembered."""

    RUN = "run"
    SLEEP = "sleep"
    WAIT = "wait"
    INVOKE = "invoke"


class JobKind(StrEnum):
    CALL = "call"
    SLEEP = "sleep"


class Invocation(msgspec.Struct, frozen=True, kw_only=True):
    """Which function an event starts, and the wait that ends with the run; None when nobody waits for it."""

    fn_id: str
    wait_id: str | None


class NewEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event with everything filled in, ready to be stored."""

    ulid: str
    event_id: str
    """What it is de-duplicated by; the ULID when the sender chose none."""
    name: str
    of_function: str | None
    """`data.function_id`, when that is text."""
    body: Fragment
    starts_at_ms: int | None = None
    """When its runs start, if not at once."""
    invokes: Invocation | None = None
    """It starts this one function and nothing else."""


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request with events."""

    ids: list[str]
    """The ULIDs of the events that were accepted; all before the first bad one."""
    refusal: str | None
    """Why the rest was not."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A job that one engine holds. `owner` and `generation` fence: the result of any other claim is dropped."""

    owner: str
    job_id: str
    run_id: str
    generation: int
    call: Call
    is_pinned: bool
    """Whether it is settled which code the run belongs to."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has just been held."""

    run_id: str
    reason: str


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    owner: str
    until_ms: int


class RunFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the runs that have not ended are meant."""

    fn_id: str
    queued_from_ms: int = 0
    queued_before_ms: int = 2**62
    condition: str | None = None
    """A CEL condition over `event`, what triggered the run."""
    reason: str = "cancelled"


class EngineRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a durable function, as the engine knows it."""

    run_id: str
    fn_id: str
    event_id: str
    status: EngineRunStatus
    queued_at_ms: int
    ended_at_ms: int | None
    steps: int
    output: JsonValue
    error: Failure | None
    rerun_of: str | None
    """The run that it repeats."""
    held_reason: str | None = None
    """Why it is `waiting`, and the way out."""


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """How much was removed."""

    runs: int
    events: int
