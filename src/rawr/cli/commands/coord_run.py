"""`rawr workflow coord run`: by the running server, or in this process when there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rawr.cli.context import Invocation, command
from rawr.cli.json_argument import json_argument
from rawr.cli.output import Outcome
from rawr.wire import JsonValue

if TYPE_CHECKING:
    from rawr.cli.coordination import Coordination
    from rawr.cli.runs import Followed
    from rawr.coordination.model import Run

TIMEOUT_S: Final = 86_400.0


@command("run", "Run a workflow durably.")
@click.argument("workflow_id", metavar="ID")
@click.option("--input", "given", metavar="JSON|@FILE|@-", help="What the first desk is given; {} by default.")
@click.option("--run-id", help="Your own id for the run. The same id again is the same run.")
@click.option("--wait/--no-wait", default=True, help="Wait until the run has ended (the default), or only queue it.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=TIMEOUT_S,
    metavar="SECONDS",
    help="How long to wait; a day by default. The run itself is not affected.",
)
def run(
    invocation: Invocation, *, workflow_id: str, given: str | None, run_id: str | None, wait: bool, timeout_s: float
) -> Outcome:
    """The running server does the work. Without one this process does, until the run has ended.

    With --no-wait and without a server the run is stored as queued, and begins at the next `rawr up`.
    Exit code 1 when the run failed, 75 when it has not ended in time.
    """
    from rawr.cli.coordination import coordination_to_read, coordination_to_run, fresh_run_id

    limit_bytes = invocation.config().limits.body_bytes
    run_input = {} if given is None else json_argument(given, name="--input", limit_bytes=limit_bytes)
    wanted = run_id if run_id is not None and run_id.strip() else fresh_run_id()
    if not wait:
        with coordination_to_read(invocation, shipped=True) as coordination:
            return _queued(invocation, coordination, coordination.queue_run(workflow_id, wanted, run_input))
    with coordination_to_run(invocation) as coordination:
        followed = _run_to_its_end(
            invocation,
            coordination,
            workflow_id=workflow_id,
            run_id=wanted,
            run_input=run_input,
            timeout_s=timeout_s,
        )
    return _ended(followed)


def _run_to_its_end(
    invocation: Invocation,
    coordination: Coordination,
    *,
    workflow_id: str,
    run_id: str,
    run_input: JsonValue,
    timeout_s: float,
) -> Followed:
    from rawr.cli.progress import progress_for
    from rawr.cli.runs import follow

    workflow = coordination.get_workflow(workflow_id)
    queued = coordination.queue_run(workflow_id, run_id, run_input)
    invocation.say(f"run {queued.run_id} of {workflow.workflow_id} version {queued.workflow_version}")
    return follow(coordination, queued.run_id, progress_for(invocation, workflow), timeout_s=timeout_s)


def _queued(invocation: Invocation, coordination: Coordination, queued: Run) -> Outcome:
    from rawr.cli.coordination import wire_form

    text = f"queued {queued.run_id}\n  look at it: rawr workflow coord status {queued.run_id}"
    if not coordination.runs_without_us and queued.status == "queued":
        invocation.warn(f"no server runs: {queued.run_id} is kept and begins at the next `rawr up`")
    return Outcome(data={"run": wire_form(queued)}, text=text)


def _ended(followed: Followed) -> Outcome:
    from rawr.cli.coordination import wire_form
    from rawr.cli.runs import failure_of
    from rawr.cli.timeline import run_text

    return Outcome(data={"run": wire_form(followed.run)}, text=run_text(followed.run), error=failure_of(followed))
