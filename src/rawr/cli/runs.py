"""Starting a run and following it to its end. Decides nothing about runs: it asks, shows and reports."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import msgspec

from rawr.cli.coordination import Coordination
from rawr.cli.output import LeftRunningError
from rawr.cli.progress import Progress
from rawr.client.http import ServerNotRunningError, ServerTimeoutError
from rawr.coordination.model import TERMINAL_STATUSES, EventType, Run, RunStatus, TimelineEvent
from rawr.errors import RawrError
from rawr.ids import RunId

POLL_MIN_S: Final = 0.05
POLL_MAX_S: Final = 0.5
SERVER_GRACE_S: Final = 3.0
"""A server that is restarted on the same address is found again within this time."""


class RunFailedError(RawrError):
    """The run ended as failed."""

    code = "RUN_FAILED"


class RunWaitTimeoutError(RawrError):
    """The run did not end in the time that was given. It is not affected."""

    code = "RUN_WAIT_TIMEOUT"


class Followed(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    timeline: tuple[TimelineEvent, ...]


def follow(coordination: Coordination, run_id: RunId, progress: Progress, *, timeout_s: float) -> Followed:
    """Show the events of the run as they come, until it has ended.

    Raises:
        RunWaitTimeoutError, ServerNotRunningError: the run is kept; the message says how it goes on.
        LeftRunningError: Ctrl-C, likewise.
    """
    try:
        with progress:
            return _follow(coordination, run_id, progress, timeout_s)
    except KeyboardInterrupt as interrupt:
        raise _left(coordination, run_id) from interrupt


def failure_of(followed: Followed) -> RunFailedError | None:
    """Why the run failed, with the desks that did; None when it completed."""
    run = followed.run
    if run.status is not RunStatus.FAILED:
        return None
    desks = failed_desks(followed.timeline)
    why = run.error if isinstance(run.error, str) else "the run failed"
    return RunFailedError(
        f"run {run.run_id} failed: {why}",
        details={"run": msgspec.to_builtins(run), "failedDesks": desks},
        fix=f"rawr workflow coord trace {run.run_id}",
    )


def failed_desks(timeline: Sequence[TimelineEvent]) -> list[dict[str, object]]:
    """Desks whose last attempt failed, with what each said."""
    last: dict[str, TimelineEvent] = {}
    for event in timeline:
        if isinstance(event.desk_id, str):
            last[event.desk_id] = event
    return [
        {"deskId": desk, "detail": event.detail if isinstance(event.detail, str) else None}
        for desk, event in last.items()
        if event.type is EventType.DESK_FAILED
    ]


def _follow(coordination: Coordination, run_id: RunId, progress: Progress, timeout_s: float) -> Followed:
    deadline_s = time.monotonic() + timeout_s
    seen = 0
    pause_s = POLL_MIN_S
    while True:
        timeline = _timeline(coordination, run_id, deadline_s)
        for event in timeline[seen:]:
            progress.event(event)
        pause_s = POLL_MIN_S if len(timeline) > seen else min(pause_s * 1.5, POLL_MAX_S)
        seen = len(timeline)
        if timeline and timeline[-1].status in TERMINAL_STATUSES:
            return Followed(run=coordination.get_run(run_id), timeline=tuple(timeline))
        if time.monotonic() + pause_s >= deadline_s:
            raise _waited_too_long(coordination, run_id, timeout_s)
        time.sleep(pause_s)


def _timeline(coordination: Coordination, run_id: RunId, deadline_s: float) -> Sequence[TimelineEvent]:
    give_up_s = min(deadline_s, time.monotonic() + SERVER_GRACE_S)
    while True:
        try:
            return coordination.run_timeline(run_id)
        except (ServerNotRunningError, ServerTimeoutError) as error:
            if time.monotonic() < give_up_s:
                time.sleep(POLL_MAX_S)
                continue
            raise ServerNotRunningError(
                f"the server went away while run {run_id} was under way; the run is kept and goes on "
                "when the server is started again",
                details={"runId": run_id},
                fix=f"rawr up, then: rawr workflow coord status {run_id}",
            ) from error


def _waited_too_long(coordination: Coordination, run_id: RunId, timeout_s: float) -> RunWaitTimeoutError:
    what, fix = _how_it_goes_on(coordination, run_id)
    return RunWaitTimeoutError(
        f"run {run_id} has not ended within {timeout_s:g} s; {what}", details={"runId": run_id}, fix=fix
    )


def _left(coordination: Coordination, run_id: RunId) -> LeftRunningError:
    what, fix = _how_it_goes_on(coordination, run_id)
    return LeftRunningError(f"no longer waiting for run {run_id}; {what}", details={"runId": run_id}, fix=fix)


def _how_it_goes_on(coordination: Coordination, run_id: RunId) -> tuple[str, str]:
    if coordination.runs_without_us:
        return "it goes on in the server", f"rawr workflow coord status {run_id}"
    return (
        "it is kept and goes on where it stopped when the server is started",
        f"rawr up, then: rawr workflow coord status {run_id}",
    )
