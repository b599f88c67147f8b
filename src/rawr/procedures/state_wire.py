"""What the state procedure takes and answers, as it stands on the wire. Pure values."""

from __future__ import annotations

from rawr.state.model import RepoState
from rawr.wire import Wire


class GetRuntimeStateInput(Wire, frozen=True, kw_only=True):
    pass


class GetRuntimeStateOutput(Wire, frozen=True, kw_only=True):
    state: RepoState
