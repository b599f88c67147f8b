"""Who an instance is. The id is made once, stays with a folder that is moved, and is made anew for a copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from rawr.clock import UlidSource
from rawr.errors import CorruptFileError, StorageError
from rawr.ids import InstanceId
from rawr.instance.layout import InstanceLayout
from rawr.storage.jsonfile import read_json, write_json
from rawr.storage.lock import FileLock

LOCK_TIMEOUT_S = 5.0


class Identity(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """`.rawr/instance.json`. Untracked by git, so every clone and worktree has its own."""

    schema: int
    id: InstanceId
    root: str
    """The real path at which the id was last seen."""
    moved_from: str | None = None
    copied_from: str | None = None


def identify(layout: InstanceLayout, ids: UlidSource) -> Identity:
    """The identity of the instance, made or corrected when it has to be; durable on return.

    A folder that was copied finds its id still in use at the old place and takes a new one; a folder that was
    moved keeps its id.

    Raises:
        CorruptFileError: the file is there and cannot be understood.
        StorageError, LockTimeoutError
    """
    known = read_identity(layout)
    if known is not None and known.root == str(layout.root):
        return known
    with FileLock(layout.run / "identity.lock").acquire(LOCK_TIMEOUT_S):
        known = read_identity(layout)  # somebody may have been faster
        if known is not None and known.root == str(layout.root):
            return known
        fresh = _corrected(known, layout, ids)
        write_json(layout.identity, fresh)
        return fresh


def read_identity(layout: InstanceLayout) -> Identity | None:
    document: Any = read_json(layout.identity)
    if document is None:
        return None
    try:
        known = msgspec.convert(document, Identity)
    except msgspec.ValidationError as error:
        raise _damaged(layout, str(error)) from error
    if known.schema != 1 or not known.id:
        raise _damaged(layout, f"schema {known.schema}")
    return known


def _corrected(known: Identity | None, layout: InstanceLayout, ids: UlidSource) -> Identity:
    root = str(layout.root)
    if known is None:
        return Identity(schema=1, id=InstanceId(ids.next()), root=root)
    if _lives_elsewhere(known, Path(known.root), layout):
        return Identity(schema=1, id=InstanceId(ids.next()), root=root, copied_from=known.root)
    return Identity(schema=1, id=known.id, root=root, moved_from=known.root)


def _lives_elsewhere(known: Identity, place: Path, here: InstanceLayout) -> bool:
    """Whether the instance of this id is still where it was, apart from here."""
    old = InstanceLayout(place)
    try:
        if old.identity.samefile(here.identity):  # the old path still leads here, by a link or a mount
            return False
        other = read_identity(old)
    except (CorruptFileError, FileNotFoundError, NotADirectoryError):
        return False
    except (StorageError, OSError):
        return True  # it cannot be told; two instances of one id would be worse than a new id
    return other is not None and other.id == known.id


def _damaged(layout: InstanceLayout, why: str) -> CorruptFileError:
    return CorruptFileError(
        f"{layout.identity} is damaged: {why}",
        details={"path": str(layout.identity)},
        fix=f"remove {layout.identity}: the instance gets a new id",
    )
