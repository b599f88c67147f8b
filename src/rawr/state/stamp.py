"""The revision that a state file carries outside of its content, in an extended attribute.

It reaches the disk together with the content, at no extra cost. So a power cut that takes the journal's last lines,
which are not forced to disk one by one, does not take the knowledge which revision the file is: no revision is ever
given twice. The hash beside it ties it to the content, which somebody else may change in place.

It is short, to fit into the inode: an attribute that needs a block of its own makes the commit a tenth slower.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_NAME: Final = "user.rawr"
_HASH_LENGTH: Final = 16


def stamp(descriptor: int, revision: int, sha: str) -> bool:
    """Whether the open file carries the revision now. Not every system and file system can do that."""
    try:
        os.setxattr(descriptor, _NAME, f"{revision} {sha[:_HASH_LENGTH]}".encode())
    except (AttributeError, OSError):
        return False
    return True


class Stamped(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    is_of_content: bool
    """Whether the file still has the content that the revision was given to."""


def stamped_revision(path: Path, sha: str) -> Stamped | None:
    """The revision that the file at `path`, with content of that hash, carries, if it carries one."""
    try:
        revision, _, of = os.getxattr(path, _NAME).decode("ascii").partition(" ")
    except (AttributeError, OSError, UnicodeDecodeError):
        return None
    return Stamped(revision=int(revision), is_of_content=of == sha[:_HASH_LENGTH]) if revision.isdecimal() else None
