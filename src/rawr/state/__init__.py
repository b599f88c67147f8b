"""Which plugins of an instance are enabled. The functions work on any folder, by its real path.

They are for one change now and then; who makes many keeps a `RepoStateStore`, whose waiting threads share commits.
"""

from __future__ import annotations

from pathlib import Path

from rawr.state.files import files_of
from rawr.state.model import PluginState, RepoState
from rawr.state.store import Mutator, RepoStateMutationOptions, RepoStateMutationResult, RepoStateStore

__all__ = [
    "Mutator",
    "PluginState",
    "RepoState",
    "RepoStateMutationOptions",
    "RepoStateMutationResult",
    "RepoStateStore",
    "disable_plugin",
    "enable_plugin",
    "get_repo_state",
    "mutate_repo_state_atomically",
    "set_repo_state",
    "state_lock_path",
    "state_path",
]


def get_repo_state(root: Path | str) -> RepoState:
    """As `RepoStateStore.get`."""
    return RepoStateStore(root).get()


def enable_plugin(root: Path | str, plugin_id: str) -> RepoState:
    """As `RepoStateStore.enable`."""
    return RepoStateStore(root).enable(plugin_id)


def disable_plugin(root: Path | str, plugin_id: str) -> RepoState:
    """As `RepoStateStore.disable`."""
    return RepoStateStore(root).disable(plugin_id)


def set_repo_state(root: Path | str, state: RepoState) -> RepoStateMutationResult:
    """As `RepoStateStore.set`."""
    return RepoStateStore(root).set(state)


def mutate_repo_state_atomically(
    root: Path | str, mutator: Mutator, options: RepoStateMutationOptions | None = None
) -> RepoStateMutationResult:
    """As `RepoStateStore.mutate`."""
    return RepoStateStore(root).mutate(mutator, options)


def state_path(root: Path | str) -> Path:
    return files_of(root).state


def state_lock_path(root: Path | str) -> Path:
    """The lock file of the TypeScript rawr, which is held during every change."""
    return files_of(root).lock_file
