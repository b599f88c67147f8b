"""`rawr engine runs|run`: the runs of durable functions, as the engine knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import RawrError

if TYPE_CHECKING:
    from rawr.execution.embedded.admin import EngineAdmin
    from rawr.execution.embedded.listing import Job, RunDetail, RunRow, StepRow, Wait

LIMIT: Final = 20
STATUSES: Final = ("queued", "running", "waiting", "completed", "failed", "cancelled")
_ENDED: Final = ("completed", "failed", "cancelled")


class EngineRunFailedError(RawrError):
    """The run that was watched to its end did not end well."""

    code = "ENGINE_RUN_FAILED"


@command("runs", "List the runs of durable functions.")
@click.option("--status", "of_status", type=click.Choice(STATUSES), help="Only these.")
@click.option("--function", "fn_id", metavar="ID", help="Only runs of this function.")
@click.option("--since", metavar="AGE|TIME", help="Only those queued since: 2h, 30d, 2026-01-31T12:00:00Z.")
@click.option("--limit", type=click.IntRange(1, 1000), default=LIMIT, show_default=True, help="At most so many.")
@click.option("--cursor", metavar="RUN", help="Go on after this run of the last page.")
@click.option("--watch", is_flag=True, help="Show them again whenever they change, until Ctrl-C.")
def runs(
    invocation: Invocation,
    *,
    of_status: str | None,
    fn_id: str | None,
    since: str | None,
    limit: int,
    cursor: str | None,
    watch: bool,
) -> Outcome:
    """Newest first. Runs of workflows are here under the engine's own ids; EVENT is the id that you know them by."""
    from rawr.cli.engine import warn_elsewhere, watched, with_engine
    from rawr.cli.moment import moment_ms
    from rawr.clock import SystemClock
    from rawr.execution.embedded.listing import RunsWanted
    from rawr.execution.embedded.model import EngineRunStatus

    warn_elsewhere(invocation)
    wanted = RunsWanted(
        status=None if of_status is None else EngineRunStatus(of_status),
        fn_id=fn_id,
        before=cursor,
        queued_from_ms=None if since is None else moment_ms(since, name="--since", now_ms=SystemClock().now_ms()),
        limit=limit,
    )

    async def question(admin: EngineAdmin) -> Outcome:
        return _runs(await admin.runs(wanted), limit)

    return watched(invocation, question) if watch else with_engine(invocation, question)


@command("run", "Show a run: its steps, and what it waits for.")
@click.argument("run_id", metavar="RUN")
@click.option("--full", is_flag=True, help="Do not cut long values.")
@click.option("--watch", is_flag=True, help="Show it again whenever it changes, until it has ended.")
def run(invocation: Invocation, *, run_id: str, full: bool, watch: bool) -> Outcome:
    """RUN is the engine's id or the id of the event, which is the id of a workflow's run.

    With --watch the exit code is 1 when the run did not complete.
    """
    from rawr.cli.engine import warn_elsewhere, watched, with_engine

    warn_elsewhere(invocation)

    async def question(admin: EngineAdmin) -> Outcome:
        return _run(await admin.run(run_id), full=full, is_watched=watch)

    if not watch:
        return with_engine(invocation, question)
    return watched(invocation, question, is_over=lambda outcome: outcome.data["run"]["status"] in _ENDED)


def _runs(found: list[RunRow], limit: int) -> Outcome:
    from rawr.cli.engine import columns, wire

    cursor = found[-1].run_id if len(found) == limit else None
    data = {"runs": [wire(row) for row in found], "cursor": cursor}
    if not found:
        return Outcome(data=data, text="no runs")
    rows = [
        (row.run_id, row.status.value, _took(row), str(row.steps), _short_function(row.fn_id), clean(row.event_id))
        for row in found
    ]
    text = columns(rows, ("RUN", "STATUS", "QUEUED", "STEPS", "FUNCTION", "EVENT"))
    more = "" if cursor is None else f"\n\nmore: rawr engine runs --cursor {cursor}"
    return Outcome(data=data, text=text + more)


def _run(found: RunDetail, *, full: bool, is_watched: bool) -> Outcome:
    from rawr.cli.engine import wire

    error = None
    if is_watched and found.run.status in ("failed", "cancelled"):
        error = EngineRunFailedError(f"run {found.run.run_id} has {found.run.status}")
    return Outcome(data=wire(found), text=_run_text(found, full=full), error=error)


def _run_text(found: RunDetail, *, full: bool) -> str:
    from rawr.cli.engine import shortened, span, when

    row = found.run
    lines = [
        f"run       {row.run_id}",
        f"function  {row.fn_id}",
        f"status    {row.status}",
        f"event     {clean(row.event_name)} {clean(row.event_id)}",
        f"queued    {when(row.queued_at_ms)}",
    ]
    if row.ended_at_ms is not None:
        lines.append(f"ended     {when(row.ended_at_ms)}, after {span(row.ended_at_ms - row.queued_at_ms)}")
    if row.held_reason is not None:
        lines.append(f"held      {clean(row.held_reason)}")
    if row.rerun_of is not None:
        lines.append(f"rerun of  {row.rerun_of}")
    lines.append(f"given     {shortened(found.event, full=full)}")
    lines += [_step(step, full=full) for step in found.steps]
    lines += [f"  {_job(job)}" for job in found.jobs]
    lines += [f"  {_wait(wait)}" for wait in found.waits]
    if row.error is not None:
        lines.append(f"error     {shortened(row.error, full=full)}")
    elif row.status == "completed":
        lines.append(f"output    {shortened(found.output, full=full)}")
    return "\n".join(lines)


def _step(step: StepRow, *, full: bool) -> str:
    from rawr.cli.engine import shortened

    tries = f" (attempt {step.attempts})" if step.attempts > 1 else ""
    if step.error is not None:
        return f"  {click.style('✗', fg='red')} {clean(step.name)}{tries}  {shortened(step.error, full=full)}"
    value = "" if step.output is None else f"  {shortened(step.output, full=full)}"
    return f"  {click.style('✓', fg='green')} {clean(step.name)}{tries}{value}"


def _job(job: Job) -> str:
    from rawr.cli.engine import when
    from rawr.execution.embedded.jobs import HELD_ON

    name = clean(job.name) or "the function"
    if job.is_under_way:
        return f"… {name}: under way, attempt {job.attempt}"
    if job.parked_on is not None and job.parked_on.startswith(HELD_ON):
        return f"· {name}: held until its code is there, or other code is accepted"
    if job.parked_on is not None:
        return f"· {name}: waits for room under {clean(job.parked_on)}"
    if job.kind == "sleep":
        return f"· {name}: sleeps until {when(job.due_at_ms)}"
    return f"· {name}: attempt {job.attempt}, due at {when(job.due_at_ms)}"


def _wait(wait: Wait) -> str:
    from rawr.cli.engine import when

    of = "the function that it invoked" if wait.event_name is None else f"the event {wait.event_name}"
    condition = f" where {wait.condition}" if wait.condition else ""
    until = "" if wait.until_ms is None else f", until {when(wait.until_ms)}"
    return clean(f"· {wait.name}: waits for {of}{condition}{until}")


def _took(row: RunRow) -> str:
    from rawr.cli.engine import span, when

    took = "" if row.ended_at_ms is None else f" ({span(row.ended_at_ms - row.queued_at_ms)})"
    return f"{when(row.queued_at_ms)}{took}"


def _short_function(fn_id: str) -> str:
    return clean(fn_id.removeprefix("rawr-coordination-"))
