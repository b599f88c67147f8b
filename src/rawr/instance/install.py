"""By which workspace what is installed is judged. It refuses to let another workspace decide unasked.

Plugins lie in their workspace and run from there, and nothing links them elsewhere; so there is no list of
links to compare with, and the authority is all there is to say.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import msgspec

from rawr.instance.owner import global_owner_root


class CanonicalSource(StrEnum):
    WORKSPACE_ROOT = "workspace-root"
    GLOBAL_OWNER = "global-owner"


class InstallState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    canonical_workspace_root: str
    """The real path of the workspace whose plugins count."""
    canonical_workspace_source: CanonicalSource


def assess_install_state(root: Path, *, home: Path, allow_global_owner_fallback: bool = False) -> InstallState:
    """The install state of the workspace at `root`, which is its own authority.

    With `allow_global_owner_fallback` the authority is the instance that the owner file below `home` names, also
    when that is another one; without it the file is not even opened, so that a file which every checkout of a
    user shares cannot change what one of them finds.

    Raises:
        GlobalOwnerError: the owner is allowed, and there is none. It never falls through to `root`.
    """
    if allow_global_owner_fallback:
        return _state(global_owner_root(home), CanonicalSource.GLOBAL_OWNER)
    return _state(root.resolve(), CanonicalSource.WORKSPACE_ROOT)


def _state(root: Path, source: CanonicalSource) -> InstallState:
    return InstallState(canonical_workspace_root=str(root), canonical_workspace_source=source)
