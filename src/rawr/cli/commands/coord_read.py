"""`rawr workflow coord status` and `trace`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from rawr.cli.coordination import Coordination
    from rawr.coordination.model import Run, Workflow
    from rawr.telemetry.checker import Finding

_run_id = click.argument("run_id", metavar="RUNID")


@command("status", "Show a run.")
@_run_id
def status(invocation: Invocation, run_id: str) -> Outcome:
    """Exit code 0 whatever the run's status is; `data.run.status` says it."""
    from rawr.cli.coordination import coordination_to_read, wire_form
    from rawr.cli.timeline import run_text

    with coordination_to_read(invocation) as coordination:
        run = coordination.get_run(run_id)
    return Outcome(data={"run": wire_form(run)}, text=run_text(run))


@command("trace", "Show the timeline of a run and check that it is complete.")
@_run_id
def trace(invocation: Invocation, run_id: str) -> Outcome:
    """Findings say what is wrong with the timeline itself: a gap, a missing end, a desk that ran too early."""
    from rawr.cli.coordination import coordination_to_read, wire_form
    from rawr.cli.timeline import findings_of, run_text, timeline_text

    with coordination_to_read(invocation) as coordination:
        # First the timeline: a run that ends in between would seem to lack its last event.
        timeline = coordination.run_timeline(run_id)
        run = coordination.get_run(run_id)
        if len(timeline) < len(later := coordination.run_timeline(run_id)):
            timeline = later
        workflow = _workflow_that_ran(coordination, run)
    findings = findings_of(run, timeline, workflow)
    data = {
        "run": wire_form(run),
        "timeline": [wire_form(event) for event in timeline],
        "findings": [msgspec.to_builtins(finding) for finding in findings],
    }
    return Outcome(data=data, text=f"{run_text(run)}\n\n{timeline_text(timeline)}\n\n{_findings_text(findings)}")


def _workflow_that_ran(coordination: Coordination, run: Run) -> Workflow | None:
    """The version of the run, if it is still the newest; older ones cannot be asked for."""
    workflow = coordination.get_workflow(run.workflow_id)
    return workflow if workflow.version == run.workflow_version else None


def _findings_text(findings: list[Finding]) -> str:
    if not findings:
        return "the timeline is complete"
    return "\n".join(f"{finding.severity}: {finding.code}: {clean(finding.message)}" for finding in findings)
