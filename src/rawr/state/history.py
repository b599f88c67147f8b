"""The past of a repo state: its revisions, as the journal has them. Reads without a lock, and changes nothing."""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.state import model
from rawr.state.commit import read_state, was_intention
from rawr.state.files import StateFiles
from rawr.state.journal import Change, Entry, Journal, sha_of
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
    """None, as the next, when the journal has no line of it yet: somebody else wrote the file."""
    pid: int | None
    changes: tuple[Change, ...]
    text: str
    is_adopted: bool = True


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
        entries = tuple(Journal(files.journal).entries())
        if _is_known(present, entries) or read_state(files.state) == present:
            break
    return Past(files=files, present=present, revisions=_revisions(files, present, entries))


def _is_known(present: bytes | None, entries: tuple[Entry, ...]) -> bool:
    """Whether the newest line was carried out, or is what is going to be."""
    return bool(entries) and _sha(present) in (entries[0].sha, entries[0].prev)


def _revisions(files: StateFiles, present: bytes | None, entries: tuple[Entry, ...]) -> tuple[Revision, ...]:
    sha = _sha(present)
    durable = read_mark(files.kernel_lock) or 0
    committed = entries[1:] if entries and was_intention(entries[0], sha, durable=durable) else entries
    recorded = tuple(
        Revision(revision=entry.rev, at=entry.at, pid=entry.pid, changes=entry.ops, text=entry.text)
        for entry in committed
    )
    if present is None or (committed and committed[0].sha == sha) or not _is_usable(present, str(files.state)):
        return recorded
    newest = committed[0].rev if committed else 0
    number = max(newest + 1, stamped_revision(files.state, sha_of(present)) or 0)
    written = Revision(revision=number, at=None, pid=None, changes=(), text=present.decode(), is_adopted=False)
    return (written, *recorded)


def _is_usable(present: bytes, path: str) -> bool:
    try:
        model.decode(present, path=path)
    except (StateCorruptError, StateVersionError):
        return False
    return True


def _sha(raw: bytes | None) -> str | None:
    return None if raw is None else sha_of(raw)
