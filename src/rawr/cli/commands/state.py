"""`rawr state show` and `rawr state path`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome

if TYPE_CHECKING:
    from rawr.state.store import RepoStateStore


@command("show", "Show which plugins are enabled.")
def show(invocation: Invocation) -> Outcome:
    store = _store(invocation)
    state = store.get()
    plugins = state.plugins
    rows = [f"enabled   {', '.join(plugins.enabled) or 'none'}"]
    if plugins.disabled:
        rows.append(f"disabled  {', '.join(plugins.disabled)}")
    return Outcome(data={"state": msgspec.to_builtins(state), "statePath": str(store.path)}, text="\n".join(rows))


@command("path", "Show where the state is kept.")
def path(invocation: Invocation) -> Outcome:
    store = _store(invocation)
    data = {"statePath": str(store.path), "lockPath": str(store.files.lock_file), "exists": store.path.exists()}
    return Outcome(data=data, text=str(store.path))


def _store(invocation: Invocation) -> RepoStateStore:
    from rawr.clock import SystemClock
    from rawr.state.store import RepoStateStore

    return RepoStateStore(invocation.instance.root, SystemClock())
