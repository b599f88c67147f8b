"""`rawr up`: have the server running; with `--run`, show a first workflow at work."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from rawr.cli.bind_options import host_option, insecure_bind_option
from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from rawr.cli.runs import Followed
    from rawr.cli.start import Started

RUN_TIMEOUT_S: Final = 3600.0


@command("up", "Start the server of this HQ in the background.")
@click.option("--port", type=click.IntRange(0, 65535), help="Instead of the configured one; 0 takes a free one.")
@host_option
@insecure_bind_option
@click.option(
    "--run", "workflow_id", metavar="WORKFLOW", help="Run this workflow too, if the server had to be started."
)
def up(
    invocation: Invocation, port: int | None, host: str | None, insecure_bind: bool, workflow_id: str | None
) -> Outcome:
    """Returns when the server answers. Starting one that is up already changes nothing."""
    from rawr.cli.start import Wanted, start_server

    started = start_server(invocation, Wanted(port=port, host=host, insecure_bind=insecure_bind))
    _say_where(invocation, started, port)
    if workflow_id is not None and started.fresh:
        return _first_run(invocation, started, workflow_id)
    rows = [] if started.fresh else ["this HQ is already up"]
    return Outcome(data=_data(started), text="\n".join([*rows, _where(invocation, started, None)]))


def _say_where(invocation: Invocation, started: Started, port: int | None) -> None:
    if started.fresh:
        invocation.say(f"the server is up at {started.server.url}")
    elif port not in (None, 0) and not started.server.url.endswith(f":{port}"):
        invocation.warn(f"the server was already up at {started.server.url}; --port {port} has no effect")


def _first_run(invocation: Invocation, started: Started, workflow_id: str) -> Outcome:
    from rawr.cli.coordination import RemoteCoordination, fresh_run_id, wire_form
    from rawr.cli.progress import progress_for
    from rawr.cli.runs import failure_of, follow
    from rawr.cli.server import client_of

    coordination = RemoteCoordination(client_of(started.server, invocation.instance))
    workflow = coordination.get_workflow(workflow_id)
    run = coordination.queue_run(workflow_id, fresh_run_id(), {})
    invocation.say(f"running {workflow.workflow_id} on {invocation.instance.root} ({run.run_id})")
    followed = follow(coordination, run.run_id, progress_for(invocation, workflow), timeout_s=RUN_TIMEOUT_S)
    data = {
        **_data(started),
        "run": wire_form(followed.run),
        "timeline": [wire_form(event) for event in followed.timeline],
    }
    return Outcome(data=data, text=_run_text(invocation, started, followed), error=failure_of(followed))


def _data(started: Started) -> dict[str, Any]:
    from rawr.cli.coordination import wire_form

    return {"alreadyUp": not started.fresh, "server": wire_form(started.server), "url": started.server.url}


def _where(invocation: Invocation, started: Started, run_id: str | None) -> str:
    server = started.server
    rows = [f"{click.style('HQ', bold=True)}  {click.style(server.url, fg='cyan')}  (pid {server.pid})", "", "next:"]
    return "\n".join([*rows, *(f"  {row}" for row in next_commands(invocation, run_id))])


def _run_text(invocation: Invocation, started: Started, followed: Followed) -> str:
    from rawr.cli.timeline import timeline_text

    rows = [f"timeline of {followed.run.run_id}", timeline_text(followed.timeline), ""]
    if path := _written_path(followed):
        rows.append(f"{click.style('written', bold=True)}  {clean(path)}")
    return "\n".join([*rows, _where(invocation, started, followed.run.run_id)])


def _written_path(followed: Followed) -> str | None:
    """Where the run says that it wrote something."""
    output = followed.run.output
    path = output.get("path") if isinstance(output, dict) else None
    return path if isinstance(path, str) else None


def next_commands(invocation: Invocation, run_id: str | None) -> list[str]:
    """Three commands that work as they stand in the current folder."""
    rawr = _how_to_call_us(invocation)
    look = f"{rawr} workflow coord trace {run_id}" if run_id else f"{rawr} workflow coord list"
    return [f"{rawr} open", look, f"{rawr} down"]


def _how_to_call_us(invocation: Invocation) -> str:
    from rawr.workspace.root import nearest_instance

    root = invocation.instance.root
    from_here = nearest_instance(invocation.cwd) == root and invocation.instance.source == "cwd"
    return _program(invocation) if from_here else f"{_program(invocation)} -I {shlex.quote(str(root))}"


def _program(invocation: Invocation) -> str:
    script = Path(sys.argv[0])
    folders = invocation.environ.get("PATH", "").split(os.pathsep)
    if script.name != "rawr":
        return f"{shlex.quote(sys.executable)} -m rawr"
    if any(Path(folder) == script.parent for folder in folders):
        return "rawr"
    absolute = invocation.cwd / script
    shortest = absolute.relative_to(invocation.cwd) if absolute.is_relative_to(invocation.cwd) else absolute
    return shlex.quote(str(shortest))
