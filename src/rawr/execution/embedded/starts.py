"""Starting runs: which function, for which events. Part of one transition inside the caller's transaction."""

from __future__ import annotations

import msgspec

from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.steps import discover
from rawr.execution.embedded.transition import Transition
from rawr.storage.sqlite import run


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is started with."""

    event_ulid: str
    due_ms: int
    run_id: str
    parent_wait: str | None = None


def start_run(at: Transition, function: RegisteredFunction, start: Start) -> None:
    run(
        at.connection,
        "INSERT INTO runs (run_id, fn_id, event_ulid, status, queued_at, parent_wait) VALUES (?, ?, ?, ?, ?, ?)",
        (
            start.run_id,
            function.fn_id,
            start.event_ulid,
            EngineRunStatus.QUEUED.value,
            at.now_ms,
            start.parent_wait,
        ),
    )
    for cancel in function.cancels:
        until_ms = None if cancel.timeout_ms is None else at.now_ms + cancel.timeout_ms
        values = (start.run_id, cancel.event_name, cancel.condition, until_ms)
        run(at.connection, "INSERT INTO cancels VALUES (?, ?, ?, ?)", values)
    discover(at, start.run_id, function.fn_id, after_steps=0, due_ms=start.due_ms)
