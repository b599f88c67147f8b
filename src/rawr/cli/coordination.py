"""Coordination as the commands use it, whoever does the work: the running server, or this process.

Commands see one blocking interface. With a server they call it over `/rpc` with the CLI's key. Without one they
either open the store alone, which is enough to read and to queue, or host the whole composition for as long as
a run takes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from rawr.cli.context import Invocation
from rawr.cli.server import client_of, running_server
from rawr.client.http import HqClient, ServerNotRunningError
from rawr.coordination.model import Run, TimelineEvent, ValidationResult, Workflow
from rawr.ids import RunId
from rawr.procedures import operations
from rawr.procedures.coordination_wire import (
    ListWorkflowsInput,
    QueueRunInput,
    RunInput,
    SaveWorkflowInput,
    WorkflowInput,
)
from rawr.wire import JsonValue


class Coordination(Protocol):
    """Blocking. The errors are those of the coordination service, by code, wherever it runs."""

    @property
    def runs_without_us(self) -> bool:
        """Whether a queued run goes on when this process ends."""
        ...

    def list_workflows(self) -> Sequence[Workflow]: ...

    def get_workflow(self, workflow_id: str) -> Workflow: ...

    def save_workflow(self, workflow: Workflow) -> Workflow: ...

    def validate_workflow(self, workflow_id: str) -> ValidationResult: ...

    def queue_run(self, workflow_id: str, run_id: str, run_input: JsonValue) -> Run: ...

    def get_run(self, run_id: str) -> Run: ...

    def run_timeline(self, run_id: str) -> Sequence[TimelineEvent]: ...


class RemoteCoordination:
    """The server's, over `/rpc`."""

    runs_without_us = True

    def __init__(self, client: HqClient) -> None:
        self._client = client

    def list_workflows(self) -> Sequence[Workflow]:
        return self._client.invoke(operations.LIST_WORKFLOWS, ListWorkflowsInput()).workflows

    def get_workflow(self, workflow_id: str) -> Workflow:
        return self._client.invoke(operations.GET_WORKFLOW, WorkflowInput(workflow_id=workflow_id)).workflow

    def save_workflow(self, workflow: Workflow) -> Workflow:
        return self._client.invoke(operations.SAVE_WORKFLOW, SaveWorkflowInput(workflow=workflow)).workflow

    def validate_workflow(self, workflow_id: str) -> ValidationResult:
        return self._client.invoke(operations.VALIDATE_WORKFLOW, WorkflowInput(workflow_id=workflow_id)).validation

    def queue_run(self, workflow_id: str, run_id: str, run_input: JsonValue) -> Run:
        given = QueueRunInput(workflow_id=workflow_id, run_id=run_id, input=run_input)
        return self._client.invoke(operations.QUEUE_RUN, given).run

    def get_run(self, run_id: str) -> Run:
        return self._client.invoke(operations.GET_RUN_STATUS, RunInput(run_id=run_id)).run

    def run_timeline(self, run_id: str) -> Sequence[TimelineEvent]:
        return self._client.invoke(operations.GET_RUN_TIMELINE, RunInput(run_id=run_id)).timeline


@contextlib.contextmanager
def coordination_to_read(invocation: Invocation, *, shipped: bool = False) -> Iterator[Coordination]:
    """Where runs and workflows can be read and saved: the server, else the store itself. Nothing is executed.

    `shipped` is for commands that must see the workflows of plugins, also before the first start of a server.

    Raises:
        What `running_server` raises; RawrError when the store cannot be opened.
    """
    server = running_server(invocation.instance)
    if server is not None:
        yield RemoteCoordination(client_of(server, invocation.instance))
        return
    from rawr.cli.in_process import store_only

    with store_only(invocation, shipped=shipped) as local:
        yield local


@contextlib.contextmanager
def coordination_to_run(invocation: Invocation) -> Iterator[Coordination]:
    """Where a run makes progress: the server, else this process, which then hosts the same composition.

    Raises:
        ServerNotRunningError: an Inngest server is the engine, which cannot call a process without a socket.
    """
    server = running_server(invocation.instance)
    if server is not None:
        yield RemoteCoordination(client_of(server, invocation.instance))
        return
    if invocation.config().engine.mode == "inngest":
        raise ServerNotRunningError(
            'the server is not running, and an Inngest server can only call a server ([engine] mode = "inngest")',
            fix="rawr up",
        )
    from rawr.cli.in_process import hosted

    invocation.say("no server runs: working in this process until the run has ended")
    with hosted(invocation) as local:
        yield local


def fresh_run_id() -> RunId:
    """A run id made here and not by the server, so that asking twice cannot start two runs."""
    from rawr.clock import RunIdSource, SystemClock

    return RunIdSource(SystemClock()).next()


def wire_form(value: msgspec.Struct) -> JsonValue:
    """The value as it stands on the wire."""
    return msgspec.to_builtins(value)
