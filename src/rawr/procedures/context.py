"""What a procedure may reach while it handles one call. Built anew for every request; nothing here is global."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

import msgspec

from rawr.coordination.model import TimelineEvent, ValidationResult, Workflow
from rawr.coordination.service import QueuedRun
from rawr.ids import RunId
from rawr.security.policy import Caller
from rawr.state.model import RepoState
from rawr.wire import JsonValue


class Coordination(Protocol):
    """The coordination service as the procedures use it. Ids come as the caller wrote them."""

    async def workflows_json(self) -> bytes: ...

    async def save_workflow(self, workflow: Workflow) -> Workflow: ...

    async def get_workflow(self, workflow_id: str) -> Workflow: ...

    async def validate_workflow(self, workflow_id: str) -> ValidationResult: ...

    async def queue_run(
        self, workflow_id: str, run_id: str | None, run_input: JsonValue, *, correlation_id: str | None
    ) -> QueuedRun: ...

    async def run_json(self, run_id: str) -> bytes: ...

    async def run_timeline_json(self, run_id: str) -> tuple[RunId, bytes]: ...

    async def watch_run(self, run_id: str, *, after_seq: int) -> AsyncGenerator[TimelineEvent, None]: ...


class StateReader(Protocol):
    async def get(self) -> RepoState:
        """The repo state as it is on disk now, with the real path of the instance it is authoritative for."""
        ...


class Context(msgspec.Struct, frozen=True, kw_only=True):
    coordination: Coordination
    state: StateReader
    caller: Caller
    request_id: str
    correlation_id: str
    """The request id, unless the caller ties several requests together."""
    last_event_id: str | None = None
    """The last event of a stream that the caller has seen, when it goes on with one."""
