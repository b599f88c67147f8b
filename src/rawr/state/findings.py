"""What is wrong with the files of a repo state. Looks, takes no lock and changes nothing.

A change that is under way leaves the folder in states that would be wrong if nobody were at work: what one could be
at is reported only when nobody holds the kernel lock.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from rawr.clock import Clock
from rawr.errors import RawrError
from rawr.state import model, requests
from rawr.state.commit import orphans_of, read_state
from rawr.state.files import StateFiles
from rawr.state.history import past_of
from rawr.state.journal import Journal
from rawr.state.lockfile import look_at
from rawr.state.model import StateCorruptError, StateVersionError
from rawr.state.mounts import mount_of, without_locks
from rawr.state.stale import ORIGINAL_STALE_MS, OWNER, Seen, described, holder_seen, staleness
from rawr.storage.faults import storage_fault
from rawr.storage.lock import FileLock, pids_holding

Severity: TypeAlias = Literal["error", "warning", "info"]
HELD_LONG_MS: Final = 10_000
"""A change takes milliseconds; whoever is at it for longer was stopped, or its disk was."""
REPAIR: Final = "rawr state repair"
_MOUNTINFO: Final = Path("/proc/self/mountinfo")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`id` is stable. Of severity `info` is what needs nobody."""

    id: str
    severity: Severity
    title: str
    fix: str
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)


def findings(files: StateFiles, clock: Clock) -> tuple[Finding, ...]:
    """Raises StorageError when the folder or a file cannot even be looked at, other than the state itself."""
    checks = _CHECKS if files.folder.is_dir() else (_mount,)
    try:
        return tuple(finding for check in checks for finding in check(files, clock))
    except OSError as error:
        raise storage_fault(files.folder, "look at", error) from error


def is_locked(files: StateFiles) -> bool:
    """Whether somebody holds the kernel lock right now."""
    pids = pids_holding(files.kernel_lock)
    return FileLock(files.kernel_lock).is_held() if pids is None else bool(pids)


def _content(files: StateFiles, _: Clock) -> Iterator[Finding]:
    try:
        raw = read_state(files.state)
        if raw is not None:
            model.decode(raw, path=str(files.state))
            yield from _written_by_others(files)
    except StateCorruptError as error:
        newest = next(Journal(files.journal).entries(), None)
        fix = error.fix if newest is None else f"{REPAIR}, which restores the newest revision it can"
        yield _of(error, "state.corrupt", fix)
    except StateVersionError as error:
        yield _of(error, "state.version_unknown", error.fix)
    except RawrError as error:
        yield _of(error, "state.unreadable", error.fix)


def _written_by_others(files: StateFiles) -> Iterator[Finding]:
    newest = next(iter(past_of(files).revisions), None)
    if newest is not None and not newest.is_recorded and newest.changes[0].op == "adopt":
        title = f"{files.state} was written by another program; the next change adopts that"
        evidence = {"revision": newest.revision}
        fix = "nothing to do; rawr state diff shows what changed since a revision"
        yield Finding(id="state.not_adopted", severity="info", title=title, fix=fix, evidence=evidence)


def _journal(files: StateFiles, _: Clock) -> Iterator[Finding]:
    journal = Journal(files.journal)
    damaged, misplaced = journal.damaged_lines(), journal.misplaced_lines()
    if damaged or misplaced:
        title = f"{files.journal} has {damaged} lines that cannot be read and {misplaced} out of order"
        evidence = {"path": str(files.journal), "damagedLines": damaged, "misplacedLines": misplaced}
        yield Finding(id="state.journal_damaged", severity="warning", title=title, fix=REPAIR, evidence=evidence)


def _quarantined(files: StateFiles, _: Clock) -> Iterator[Finding]:
    for path in files.quarantined:
        yield Finding(
            id="state.quarantined",
            severity="info",
            title=f"{path} holds bytes that could not be understood",
            fix=f"look whether something in it is missed, then: rm {path}",
            evidence={"path": str(path), "sizeBytes": path.stat().st_size},
        )


def _orphans(files: StateFiles, _: Clock) -> Iterator[Finding]:
    before = orphans_of(files)
    if not before or is_locked(files):
        return
    # Whoever was at work on one when we looked first has finished it by now, or died.
    names = [str(path) for path in before if path.exists()]
    if names:
        title = f"{len(names)} unfinished files of writers that were killed"
        evidence = {"paths": names}
        yield Finding(id="state.orphans", severity="warning", title=title, fix=REPAIR, evidence=evidence)


def _lock_file(files: StateFiles, clock: Clock) -> Iterator[Finding]:
    looked = look_at(files.lock_file, clock)
    if looked is None:
        return
    seen, _, found = looked
    holder = holder_seen(seen, "" if found is None else found.command)
    evidence = {"path": str(files.lock_file), "holder": {**msgspec.to_builtins(holder), "id": holder.id}}
    stale = _staleness_now(files, seen)
    if stale is not None:
        title = f"{files.lock_file} of {described(holder)} is stale: {stale}"
        yield Finding(id="state.lock_stale", severity="warning", title=title, fix=REPAIR, evidence=evidence)
    elif (holder.age_ms or 0) > HELD_LONG_MS:
        title = f"{files.lock_file} is held by {described(holder)}"
        fix = f"let it go on (kill -CONT {holder.pid}), or end it (kill {holder.pid})"
        if not holder.is_alive:
            fix = "rawr state unlock"
        yield Finding(id="state.lock_held_long", severity="warning", title=title, fix=fix, evidence=evidence)


def _staleness_now(files: StateFiles, seen: Seen) -> str | None:
    """Why the lock file may be taken over, judged by one who need not hold the kernel lock."""
    if seen.note is not None and seen.note.owner == OWNER and is_locked(files):
        return None  # its writer may be the holder
    return staleness(seen, stale_lock_ms=ORIGINAL_STALE_MS)


def _requests(files: StateFiles, _: Clock) -> Iterator[Finding]:
    if requests.is_damaged(files.requests):
        title = f"{files.requests} does not begin as it must; nobody can be asked for a change"
        evidence = {"path": str(files.requests)}
        yield Finding(id="state.queue_damaged", severity="warning", title=title, fix=REPAIR, evidence=evidence)


def _owners(files: StateFiles, _: Clock) -> Iterator[Finding]:
    owners = {}
    for path in (files.folder, *files.folder.iterdir()):
        with contextlib.suppress(FileNotFoundError):  # a writer's, and finished by now
            owners[path] = path.lstat().st_uid
    yield from foreign_owners(owners, files.root.stat().st_uid)


def foreign_owners(owners: dict[Path, int], expected: int) -> Iterator[Finding]:
    """Files that belong to another user than the instance does: after `sudo rawr`, say. Pure."""
    foreign = sorted(path for path, owner in owners.items() if owner != expected)
    if foreign:
        paths = [str(path) for path in foreign]
        title = f"{', '.join(paths)}: not of the user {expected}, whose instance this is"
        fix = f"sudo chown {expected} {' '.join(paths)}"
        evidence = {"paths": paths, "expectedUid": expected}
        yield Finding(id="state.foreign_owner", severity="warning", title=title, fix=fix, evidence=evidence)


def _mount(files: StateFiles, _: Clock) -> Iterator[Finding]:
    try:
        mountinfo = _MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return  # not Linux
    mount = mount_of(os.path.realpath(files.folder), mountinfo)
    reason = None if mount is None else without_locks(mount)
    if mount is not None and reason is not None:
        title = f"machines that share {mount.point} ({mount.kind}) can change the state at once: {reason}"
        fix = "use a local disk, or mount it with locks; never run rawr on two machines here"
        evidence = {"mount": mount.point, "fileSystem": mount.kind, "source": mount.source}
        yield Finding(id="state.no_locks", severity="error", title=title, fix=fix, evidence=evidence)


def _of(error: RawrError, finding_id: str, fix: str | None) -> Finding:
    return Finding(
        id=finding_id,
        severity="error",
        title=error.message,
        fix=fix or "rawr state path names the files",
        evidence={"code": error.code, **(error.details or {})},
    )


_CHECKS: Final[tuple[Callable[[StateFiles, Clock], Iterator[Finding]], ...]] = (
    _content,
    _journal,
    _quarantined,
    _orphans,
    _lock_file,
    _requests,
    _owners,
    _mount,
)
