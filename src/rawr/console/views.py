"""What each page of the console shows, as plain values. No HTML, no I/O.

A part that could not be read is a `Failed`, so that one broken store leaves the rest of a page standing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from rawr.coordination.model import Run, TimelineEvent, Workflow
from rawr.hq import PluginFault, WebMount

T_co = TypeVar("T_co", covariant=True)


class Loaded(msgspec.Struct, Generic[T_co], frozen=True):
    value: T_co


class Failed(msgspec.Struct, frozen=True):
    message: str


Part = Loaded[T_co] | Failed


class LoginView(msgspec.Struct, frozen=True, kw_only=True):
    next_path: str
    """Where to go after signing in: a path of the console, checked already."""


class OverviewView(msgspec.Struct, frozen=True, kw_only=True):
    root: str
    instance_id: str
    version: str
    now_ms: int
    workflows: Part[Sequence[Workflow]]
    runs: Part[Sequence[Run]]
    """Newest first."""
    web_plugins: Part[Sequence[WebMount]]
    """The enabled ones."""
    faults: Sequence[PluginFault]


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    run: Run
    workflow: Workflow | None
    """The version that runs; None when only another one can be read."""
    timeline: Sequence[TimelineEvent]
    now_ms: int


class ProblemView(msgspec.Struct, frozen=True, kw_only=True):
    """Instead of a page: it does not exist, or it could not be made."""

    heading: str
    message: str
    request_id: str | None = None


View = LoginView | OverviewView | RunView | ProblemView
