"""`rawr workflow coord create`, `list` and `validate`."""

from __future__ import annotations

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import RawrError


class WorkflowExistsError(RawrError):
    """A workflow of that id is there. Nothing was changed."""

    code = "WORKFLOW_EXISTS"


class WorkflowHasErrorsError(RawrError):
    code = "WORKFLOW_VALIDATION_FAILED"


@command("create", "Save a new workflow of two desks to begin from.", dry_run=True)
@click.option("--id", "workflow_id", required=True, help="Its id.")
@click.option("--name", help="Its name; by default its id.")
@click.option("--description", help="What it is for.")
def create(invocation: Invocation, workflow_id: str, name: str | None, description: str | None) -> Outcome:
    """A workflow that is there is not replaced."""
    from rawr.cli.coordination import coordination_to_read, wire_form
    from rawr.coordination.desks import starter_workflow
    from rawr.coordination.runnable import workflow_id_of

    known = workflow_id_of(workflow_id)
    workflow = starter_workflow(known, name=name or known, description=description)
    if invocation.dry_run:
        planned = {
            "procedure": "coordination.saveWorkflow",
            "method": "POST",
            "rpcPath": "/rpc/coordination/saveWorkflow",
        }
        return Outcome(data={"planned": planned, "workflow": wire_form(workflow)}, text=f"would save {known}")
    with coordination_to_read(invocation, shipped=True) as coordination:
        if any(other.workflow_id == known for other in coordination.list_workflows()):
            raise WorkflowExistsError(
                f"there is a workflow {known} already", details={"workflowId": known}, fix="choose another --id"
            )
        saved = coordination.save_workflow(workflow)
    return Outcome(
        data={"workflow": wire_form(saved)}, text=f"saved {known}\n  run it: rawr workflow coord run {known}"
    )


@command("list", "List the workflows of this HQ.")
def list_(invocation: Invocation) -> Outcome:
    from rawr.cli.coordination import coordination_to_read, wire_form

    with coordination_to_read(invocation, shipped=True) as coordination:
        workflows = coordination.list_workflows()
    rows = [
        f"{workflow.workflow_id:<24} v{workflow.version}  {len(workflow.desks)} desks  {clean(workflow.name)}"
        for workflow in workflows
    ]
    return Outcome(
        data={"workflows": [wire_form(workflow) for workflow in workflows]},
        text="\n".join(rows) or "this HQ has no workflow",
    )


@command("validate", "Check a saved workflow and list every reason against it.")
@click.argument("workflow_id", metavar="ID")
def validate(invocation: Invocation, workflow_id: str) -> Outcome:
    """Exit code 1 when there is a reason against it."""
    from rawr.cli.coordination import coordination_to_read, wire_form

    with coordination_to_read(invocation, shipped=True) as coordination:
        validation = coordination.validate_workflow(workflow_id)
    data = {"workflowId": workflow_id.strip(), "validation": wire_form(validation)}
    if validation.ok:
        return Outcome(data=data, text=f"{workflow_id.strip()} is valid")
    errors = [wire_form(issue) for issue in validation.errors]
    error = WorkflowHasErrorsError(f"{workflow_id.strip()} is not valid", details={"errors": errors})
    return Outcome(data=data, error=error)
