"""The plugin author's door: everything a plugin may import from rawr, and nothing else. Re-exports only."""

from __future__ import annotations

from rawr.coordination.model import Desk, DeskKind, Handoff, MemoryScope, Run, RunStatus, RuntimePolicy, Workflow
from rawr.execution.ports import DeskContext, FinishedEffects
from rawr.plugins.authoring import DeskFailed, desk_handler, on_finished, workflow_from
from rawr.wire import JsonValue

__all__ = [
    "Desk",
    "DeskContext",
    "DeskFailed",
    "DeskKind",
    "FinishedEffects",
    "Handoff",
    "JsonValue",
    "MemoryScope",
    "Run",
    "RunStatus",
    "RuntimePolicy",
    "Workflow",
    "desk_handler",
    "on_finished",
    "workflow_from",
]
