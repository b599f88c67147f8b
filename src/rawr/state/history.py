"""The past of a repo state: its revisions, as the journal has them. Reads without a lock, and changes nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.state import model
from rawr.state.changes import Change
from rawr.state.commit import Standing, read_state, standing_of, was_intention
from rawr.state.files import StateFiles
from rawr.state.journal import Journal, sha_of
from rawr.state.mark import read_mark
from rawr.state.model import Document, StateCorruptError, StateVersionError
from rawr.state.stamp import stamped_revision

LOOKS: Final = 20
"""How often to look again when somebody commits between our look at the file and at the journal."""


class UnknownRevisionError(RawrError):
    """The journal does not have that revision: never made, or forgotten."""

    code = "STATE_REVISION_UNKNOWN"


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    revision: int
    at: str | None
    """None, as `pid`, for a file that the journal does not know yet."""
    pid: int | None
    changes: tuple[Change, ...]
    text: str
    is_recorded: bool = True


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """One consistent look."""

    files: StateFiles
    present: bytes | None
    """The file as it is; None when there is none."""
    revisions: tuple[Revision, ...]
    """Newest first. What was only intended is not among them."""

    def revision(self, number: int) -> Revision:
        """Raises UnknownRevisionError."""
        for revision in self.revisions:
            if revision.revision == number:
                return revision
        raise self._unknown(number)

    def document(self, number: int | None) -> Document:
        """Of a revision, or of the file as it is. What was before the first change is revision 0.

        Raises:
            UnknownRevisionError
            StateCorruptError, StateVersionError: the file as it is cannot be used.
        """
        if number == 0 or (number is None and self.present is None):
            return model.empty(at="")
        if number is not None:
            text = self.revision(number).text.encode()
            return model.decode(text, path=f"revision {number} in {self.files.journal}")
        assert self.present is not None
        return model.decode(self.present, path=str(self.files.state))

    def _unknown(self, number: int) -> UnknownRevisionError:
        if not self.revisions:
            return UnknownRevisionError(
                f"there is no revision {number}: {self.files.journal} has none", details={"revision": number}
            )
        oldest, newest = self.revisions[-1].revision, self.revisions[0].revision
        return UnknownRevisionError(
            f"there is no revision {number} in {self.files.journal}, which has {oldest} to {newest}",
            details={"revision": number, "oldest": oldest, "newest": newest},
            fix="rawr state history",
        )


def past_of(files: StateFiles) -> Past:
    """Raises StorageError."""
    for _ in range(LOOKS):
        present = read_state(files.state)
        revisions = _revisions(files, present)
        if read_state(files.state) == present:  # so the journal that was read is that of this file
            break
    return Past(files=files, present=present, revisions=revisions)


def _revisions(files: StateFiles, present: bytes | None) -> tuple[Revision, ...]:
    entries, durable = tuple(Journal(files.journal).entries()), read_mark(files.kernel_lock) or 0
    sha = None if present is None else sha_of(present)
    is_intention = bool(entries) and was_intention(entries[0], sha, durable=durable)
    recorded = tuple(
        Revision(revision=entry.rev, at=entry.at, pid=entry.pid, changes=entry.ops, text=entry.text)
        for entry in entries[is_intention:]
    )
    try:
        standing = standing_of(
            present,
            iter(entries),
            durable=durable,
            stamped=lambda sha: stamped_revision(files.state, sha),
            path=files.state,
            at="",
        )
    except (StateCorruptError, StateVersionError):
        return recorded
    return recorded if standing.unknown is None else (_unrecorded(standing, standing.unknown), *recorded)


def _unrecorded(standing: Standing, text: str) -> Revision:
    """The file as it is, which the journal does not know: written by somebody else, or its line went in a power cut."""
    changes = (Change(op=standing.unknown_op),)
    return Revision(revision=standing.revision, at=None, pid=None, changes=changes, text=text, is_recorded=False)
