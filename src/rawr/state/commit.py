"""One commit of the repo state, by who holds its locks: see what stands, apply, write ahead, replace.

The order is what makes it survive any crash: the journal's line, on disk; the new file under another name, on
disk; the fence; the rename; the directory. Before the rename nothing has happened, after it everything has.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from rawr import wire
from rawr.clock import Clock
from rawr.errors import StorageError
from rawr.state import model
from rawr.state.changes import Change, QueuePosition
from rawr.state.faults import ForkedInChangeError
from rawr.state.files import StateFiles
from rawr.state.journal import Entry, Journal, sha_of
from rawr.state.model import Document, RepoState, StateCorruptError
from rawr.state.stamp import Stamped, stamp, stamped_revision
from rawr.storage.atomic import create_exclusive, leftovers_of, remove, write_durable
from rawr.storage.faults import DurabilityUnknownError, StorageIsDirectoryError, in_preparation, storage_fault

SIZE_MAX: Final = 16 << 20


class StateTooLargeError(StorageError):
    """The state file is far larger than any state. It is left as it is."""

    code = "STATE_TOO_LARGE"


class Operation(msgspec.Struct, frozen=True):
    """What somebody wants: how the journal calls it, and what it makes of a document, given the time."""

    change: Change
    apply: Callable[[Document, str], Document]


class Done(msgspec.Struct, frozen=True):
    revision: int
    make_state: Callable[[], RepoState]

    @property
    def state(self) -> RepoState:
        """After the change. Made by who asks for it, so that a commit for many does not take time for each."""
        return self.make_state()


class Failed(msgspec.Struct, frozen=True):
    error: BaseException


Outcome = Done | Failed


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What a writer finds: the state that counts, and what the journal has to say before the next change."""

    document: Document
    sha: str | None
    """Of the file as it is; None when there is none."""
    revision: int
    """Of the file as it is, 0 when there never was one; 1 more than the journal's when somebody else wrote it."""
    upto: QueuePosition | None = None
    unknown: str | None = None
    """The text of a file that the journal does not know, for the journal."""
    unknown_op: str = "adopt"
    """Why it does not know it: somebody else wrote it, or a power cut took the line (`recall`)."""
    restored: Entry | None = None
    """Where `document` comes from when the file is corrupt."""
    corrupt: bytes = b""


class Committer:
    """For who holds the kernel lock and the lock file."""

    def __init__(self, files: StateFiles, clock: Clock, notify: Callable[[str], None]) -> None:
        self._files = files
        self._clock = clock
        self._notify = notify
        self._may_have_orphans = True  # of writers that were killed before we came
        self.journal = Journal(files.journal)

    def standing(self, mark: int | None) -> Standing:
        """What stands, given the mark. Raises what reading raises: nothing can be changed then."""
        raw = read_state(self._files.state)
        at = self._now() if raw is None else ""
        return standing_in(self._files, raw, self.journal, durable=mark or 0, at=at)

    def expect_orphans(self) -> None:
        """Somebody has died while writing."""
        self._may_have_orphans = True

    def commit(
        self,
        standing: Standing,
        operations: Sequence[Operation],
        *,
        upto: QueuePosition | None,
        fence: Callable[[], None],
    ) -> list[Outcome]:
        """Apply `operations` in their order; what succeeded is durable on return. One that fails changes nothing.

        `fence` is called at the last moment. What it raises leaves everything as it was.

        Raises:
            DurabilityUnknownError: it is visible, but a power cut may undo it.
            StorageError: nothing was changed.
        """
        at, pid = self._now(), os.getpid()
        document, outcomes = _applied(standing, operations, at)
        if os.getpid() != pid:
            raise ForkedInChangeError("the function that changes the state has forked, and the child returned from it")
        changes = tuple(
            operation.change
            for operation, outcome in zip(operations, outcomes, strict=True)
            if isinstance(outcome, Done)
        )
        if not changes:
            return outcomes
        if self._may_have_orphans:
            self._collect_orphans()
        changes = (*self._recovery(standing), *changes)
        raw = model.encode(document)
        entries = _entries(standing, changes, raw.decode(), upto or standing.upto, at)
        with self._written_ahead(entries):
            write_durable(
                self._files.state,
                raw,
                mode=None,
                before_flushing=lambda descriptor: self._stamp(descriptor, entries[-1]),
                before_replacing=fence,
            )
        self._compact()
        return outcomes

    def _stamp(self, descriptor: int, entry: Entry) -> None:
        """See that a power cut cannot take the revision: the file carries it, or the journal is on disk first."""
        if not stamp(descriptor, entry.rev, entry.sha):
            self.journal.flush()

    @contextlib.contextmanager
    def _written_ahead(self, entries: Sequence[Entry]) -> Iterator[None]:
        """The journal says what will be; it says so no longer if that is given up."""
        size = self.journal.append(entries)
        try:
            yield
        except DurabilityUnknownError:
            raise  # it has happened
        except BaseException:
            if not self._has_happened(entries[-1]):
                self.journal.take_back(size)
            raise

    def _has_happened(self, entry: Entry) -> bool:
        raw = read_state(self._files.state)
        return raw is not None and sha_of(raw) == entry.sha

    def _recovery(self, standing: Standing) -> tuple[Change, ...]:
        """Put the bytes of a corrupt file away, unchanged, before they are replaced."""
        if standing.restored is None:
            return ()
        with in_preparation():
            path = _quarantined(self._files, standing.corrupt, self._clock.now_ms())
        revision = standing.restored.rev
        self._notify(f"{self._files.state} was corrupt: revision {revision} was restored, its bytes are in {path}")
        return (Change(op="recover", rev=revision, quarantine=path.name),)

    def _collect_orphans(self) -> None:
        """Remove the unfinished files of writers that were killed. Whoever could still use one is locked out."""
        for orphan in orphans_of(self._files):
            remove(orphan)
        self._may_have_orphans = False

    def _compact(self) -> None:
        try:
            self.journal.compact()
        except StorageError as error:  # the change itself is safe
            self._notify(f"the journal could not be shortened: {error.message}")

    def _now(self) -> str:
        return wire.iso_from_ms(self._clock.now_ms())


def standing_in(files: StateFiles, raw: bytes | None, journal: Journal, *, durable: int, at: str) -> Standing:
    """`standing_of` by the journal as it is now, which belongs to `raw` for who holds the locks."""
    return standing_of(
        raw,
        journal.entries(),
        durable=durable,
        stamped=lambda sha: stamped_revision(files.state, sha),
        path=files.state,
        at=at,
    )


def standing_of(
    raw: bytes | None,
    entries: Iterator[Entry],
    *,
    durable: int,
    stamped: Callable[[str], Stamped | None],
    path: Path,
    at: str,
) -> Standing:
    """Judge the bytes of the state file by the journal, which is given newest first.

    `durable` is a revision that is known to have been carried out; later ones may have been, too. `stamped` gives
    the revision that the file itself carries, and whether it is that of content of a hash.

    Raises:
        StateCorruptError: it is corrupt, and the journal holds nothing to restore.
        StateVersionError
    """
    sha = None if raw is None else sha_of(raw)
    last = next(entries, None)
    if last is not None and was_intention(last, sha, durable=durable):
        last = next(entries, None)
    revision = 0 if last is None else last.rev
    upto = None if last is None else last.upto
    if raw is None:
        return Standing(document=model.empty(at=at), sha=None, revision=revision, upto=upto)
    try:
        document = model.decode(raw, path=str(path))
    except StateCorruptError:
        for entry in [] if last is None else [last, *entries]:
            with contextlib.suppress(StateCorruptError):
                document = model.decode(entry.text.encode(), path=str(path))
                return Standing(document=document, sha=sha, revision=revision, upto=upto, restored=entry, corrupt=raw)
        raise
    if last is not None and last.sha == sha:
        return Standing(document=document, sha=sha, revision=revision, upto=upto)
    own = None if sha is None else stamped(sha)
    if own is not None and own.is_of_content and own.revision > revision:
        revision, op = own.revision, "recall"
    else:
        revision, op = max(revision, 0 if own is None else own.revision) + 1, "adopt"
    return Standing(document=document, sha=sha, revision=revision, upto=upto, unknown=raw.decode(), unknown_op=op)


def was_intention(newest: Entry, sha: str | None, *, durable: int) -> bool:
    """Whether the newest line of the journal was never carried out: what it was to replace, of hash `sha`, is there."""
    return newest.rev > durable and newest.prev == sha != newest.sha


def read_state(path: Path) -> bytes | None:
    """The bytes of the state file; None only when there is none.

    Raises:
        StorageError: something is there and cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise StorageIsDirectoryError(f"cannot read {path}: it is no file", details={"path": str(path)})
        if status.st_size > SIZE_MAX:
            raise StateTooLargeError(f"{path} has {status.st_size} bytes, a state has at most {SIZE_MAX}")
        return _read_all(descriptor, status.st_size)
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    finally:
        os.close(descriptor)


def orphans_of(files: StateFiles) -> list[Path]:
    """Unfinished files, beside the state and beside what it links to. Some writer may be at work on one.

    Raises:
        StorageError
    """
    try:
        names = [name for name in os.listdir(str(files.folder)) if name.endswith(".tmp")]
    except OSError as error:
        raise storage_fault(files.folder, "list", error) from error
    orphans = [files.folder / name for name in names if is_orphan(name)]
    return [*orphans, *leftovers_of(files.state)] if os.path.islink(files.state) else orphans


def is_orphan(name: str) -> bool:
    """Whether a file in the folder of the state is an unfinished one: `.state.…tmp`, or `state.<pid>.<ms>.<n>.tmp`."""
    if name.startswith(".state."):
        return name.endswith(".tmp")
    return name.startswith("state.") and name.endswith(".tmp") and name[6:-4].replace(".", "").isdigit()


def _read_all(descriptor: int, size: int) -> bytes:
    raw = os.read(descriptor, size + 1)
    if len(raw) == size:  # one more was asked for, so this is the end
        return raw
    while part := os.read(descriptor, size + 1):
        raw += part
    return raw


def _applied(standing: Standing, operations: Sequence[Operation], at: str) -> tuple[Document, list[Outcome]]:
    document = standing.document
    outcomes: list[Outcome] = []
    for operation in operations:
        try:
            document = operation.apply(document, at)
        # Whatever one caller's function raises is that caller's; the others' changes go on.
        except Exception as error:  # noqa: BLE001
            outcomes.append(Failed(error))
        else:
            outcomes.append(Done(standing.revision + 1, partial(model.state_of, document, at=at)))
    return document, outcomes


def _entries(
    standing: Standing, changes: tuple[Change, ...], text: str, upto: QueuePosition | None, at: str
) -> list[Entry]:
    pid = os.getpid()
    entry = Entry(
        rev=standing.revision + 1,
        at=at,
        pid=pid,
        ops=changes,
        prev=standing.sha,
        sha=sha_of(text.encode()),
        text=text,
        upto=upto,
    )
    if standing.unknown is None or standing.sha is None:
        return [entry]
    unknown = Entry(
        rev=standing.revision,
        at=at,
        pid=pid,
        ops=(Change(op=standing.unknown_op),),
        prev=None,
        sha=standing.sha,
        text=standing.unknown,
        upto=standing.upto,
    )
    return [unknown, entry]


def _quarantined(files: StateFiles, corrupt: bytes, at_ms: int) -> Path:
    """The file that holds those bytes, which may be there from an attempt that was interrupted."""
    try:
        for known in sorted(files.folder.glob(f"{files.quarantine(0).name[:-1]}*")):
            if known.stat().st_size == len(corrupt) and known.read_bytes() == corrupt:
                return known
    except OSError as error:
        raise storage_fault(files.folder, "look through", error) from error
    while not create_exclusive(files.quarantine(at_ms), corrupt, mode=0o600):
        at_ms += 1
    return files.quarantine(at_ms)
