"""`rawr engine status|drain`: what the embedded engine has to do, and letting it do it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from rawr.execution.embedded.admin import EngineAdmin
    from rawr.execution.embedded.overview import Ahead, Overview

DRAIN_S: Final = 600.0
DRAIN_LOOK_S: Final = 0.1
STOP_S: Final = 10.0


@command("status", "Show what the engine has to do, and who works.")
@click.option("--watch", is_flag=True, help="Show it again whenever it changes, until Ctrl-C.")
@click.option("--check", is_flag=True, help="First read all of the file, and refuse it when it is damaged.")
def status(invocation: Invocation, *, watch: bool, check: bool) -> Outcome:
    """Runs that have not ended, calls that are due, under way or wait, and the processes that work on them.

    With --watch and --json each change is one line.
    """
    from rawr.cli.engine import warn_elsewhere, watched, with_engine

    warn_elsewhere(invocation)
    if check:
        from rawr.execution.embedded.damage import refuse_damaged

        refuse_damaged(invocation.instance.layout.engine_database)

    async def question(admin: EngineAdmin) -> Outcome:
        return _status(invocation, await admin.overview())

    return watched(invocation, question) if watch else with_engine(invocation, question)


@command("drain", "Let everything that is left run to its end.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=DRAIN_S,
    metavar="SECONDS",
    help="How long to wait for what is under way or due soon; 10 minutes by default.",
)
@click.option("--cancel-rest", is_flag=True, help="End what does not end by itself in that time.")
def drain(invocation: Invocation, timeout_s: float, cancel_rest: bool) -> Outcome:
    """The running server does the work. Without one this process does.

    What waits for a time after the timeout, for an event or for room is not waited for: it is listed, and the exit
    code is 3. New runs are still accepted; stop what sends them first. Do this before [engine] mode = "inngest".
    """
    from rawr.cli.engine import interrupted_is

    with interrupted_is("what is left goes on at the next `rawr up`", fix="rawr engine drain"):
        return asyncio.run(_drained(invocation, timeout_s, cancel_rest=cancel_rest))


async def _drained(invocation: Invocation, timeout_s: float, *, cancel_rest: bool) -> Outcome:
    from rawr.cli.engine import opened

    async with opened(invocation) as admin:
        with contextlib.nullcontext() if await _is_not_for_us(invocation, admin) else _working(invocation):
            ahead = await _wait_for_the_end(invocation, admin, time.monotonic() + timeout_s)
            cancelled: list[str] = []
            if cancel_rest and _is_left(ahead, await _open_runs(admin)):
                cancelled = await admin.cancel_all("the engine was drained")
                ahead = await _wait_for_the_end(invocation, admin, time.monotonic() + max(timeout_s, STOP_S))
            return _drain_outcome(ahead, await _open_runs(admin), cancelled)


async def _is_not_for_us(invocation: Invocation, admin: EngineAdmin) -> bool:
    """Whether another process works, or there is nothing to work on.

    Where an Inngest server has the runs, an empty engine must not begin: it would take theirs for what was lost.
    """
    found = await admin.overview()
    if any(worker.is_alive for worker in found.workers):
        return True
    is_elsewhere = invocation.config().engine.mode == "inngest"
    return is_elsewhere and not _is_left(found.ahead, sum(found.open_runs.values()))


def _working(invocation: Invocation) -> contextlib.AbstractContextManager[None]:
    """This process works for as long as the block lasts."""
    from rawr.cli.in_process import hosted_embedded

    invocation.say("no server runs: working in this process until nothing is left")
    return hosted_embedded(invocation)


async def _wait_for_the_end(invocation: Invocation, admin: EngineAdmin, until_s: float) -> Ahead:
    """Until nothing is ahead, nothing will happen in time, or the time is over."""
    said = ""
    while True:
        ahead = await admin.ahead()
        left_ms = (until_s - time.monotonic()) * 1000
        now_ms = time.time() * 1000
        comes_in_time = ahead.next_at_ms is not None and ahead.next_at_ms - now_ms <= left_ms
        if left_ms <= 0 or not (ahead.is_busy or comes_in_time):
            return ahead
        text = _left(ahead)
        if text != said:
            invocation.say(text)
            said = text
        await asyncio.sleep(DRAIN_LOOK_S)


async def _open_runs(admin: EngineAdmin) -> int:
    return sum((await admin.overview()).open_runs.values())


def _drain_outcome(ahead: Ahead, open_runs: int, cancelled: list[str]) -> Outcome:
    from rawr.cli.engine import wire
    from rawr.execution.pending import EngineNotDrainedError

    data = {"openRuns": open_runs, "cancelled": cancelled, "ahead": wire(ahead)}
    ended = f", {len(cancelled)} runs were cancelled" if cancelled else ""
    if not _is_left(ahead, open_runs):
        return Outcome(data=data, text=f"nothing is left{ended}")
    error = EngineNotDrainedError(
        f"{open_runs} runs have not ended: {_left(ahead)}",
        details={"openRuns": open_runs},
        fix="rawr engine runs --status running, or end them: rawr engine drain --cancel-rest",
    )
    return Outcome(data=data, error=error)


def _is_left(ahead: Ahead, open_runs: int) -> bool:
    return bool(open_runs or ahead.unrouted or ahead.gathering)


def _left(ahead: Ahead) -> str:
    from rawr.cli.engine import when

    parts = [
        (ahead.due, "due"),
        (ahead.under_way, "under way"),
        (ahead.parked, "without room or held"),
        (ahead.held_runs, "runs held because their code has changed"),
        (ahead.later, "later"),
        (ahead.sleeping, "asleep"),
        (ahead.waiting, "waiting for something"),
        (ahead.gathering, "gathering events"),
        (ahead.unrouted, "events not looked at"),
    ]
    text = ", ".join(f"{count} {what}" for count, what in parts if count) or "nothing ahead"
    return text if ahead.next_at_ms is None else f"{text}; next at {when(ahead.next_at_ms)}"


def _status(invocation: Invocation, found: Overview) -> Outcome:
    from rawr.cli.engine import wire

    layout = invocation.instance.layout
    engine = invocation.config().engine
    files = {
        suffix or "main": path.stat().st_size
        for suffix in ("", "-wal")
        if (path := layout.engine_database.with_name(layout.engine_database.name + suffix)).exists()
    }
    data = {"mode": engine.mode, "server": engine.base_url, "path": str(layout.engine_database), "sizeBytes": files}
    # The time of the question is no part of the answer: it would be another one each time.
    answer: dict[str, Any] = {key: value for key, value in wire(found).items() if key != "now"}
    return Outcome(data={**data, **answer}, text=clean(_status_text(found, engine.mode, sum(files.values()))))


def _status_text(found: Overview, mode: str, size_bytes: int) -> str:
    from rawr.cli.engine import span, when

    open_runs = ", ".join(f"{count} {status}" for status, count in sorted(found.open_runs.items())) or "none"
    ended = ", ".join(f"{count} {status}" for status, count in sorted(found.ended_last_day.items())) or "none"
    lines = [f"engine     {mode}, {size_bytes / 2**20:.1f} MiB", f"runs open  {open_runs}", f"ended 24h  {ended}"]
    lines.append(f"ahead      {_left(found.ahead)}")
    if found.ahead.oldest_due_ms is not None:
        lines.append(f"lag        {span(found.now_ms - found.ahead.oldest_due_ms)}")
    if not found.workers:
        lines.append("working    nobody: rawr up")
    for worker in found.workers:
        pids = f"pid {', '.join(map(str, worker.pids))}" if worker.pids else worker.owner
        state = "alive" if worker.is_alive else "dead, its work is taken over by the next engine"
        lines.append(f"working    {pids} ({state}), {len(worker.serves)} functions, {worker.leases} calls")
    lines += [f"cron       {tick.fn_id}: {tick.expression}, next at {when(tick.next_at_ms)}" for tick in found.crons]
    return "\n".join(lines)
