"""The plugin author's door: everything a plugin may import from rawr, and nothing else. Re-exports only."""

from __future__ import annotations

from rawr.coordination.model import Desk, DeskKind, Handoff, MemoryScope, RuntimePolicy, Workflow
from rawr.execution.ports import DeskContext
from rawr.plugins.authoring import DeskFailed, desk_handler, workflow_from
from rawr.wire import JsonValue

__all__ = [
    "Desk",
    "DeskContext",
    "DeskFailed",
    "DeskKind",
    "Handoff",
    "JsonValue",
    "MemoryScope",
    "RuntimePolicy",
    "Workflow",
    "desk_handler",
    "workflow_from",
]
