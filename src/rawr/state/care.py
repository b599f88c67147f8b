"""Setting a repo state right: repair does what is safe without asking, unlock what needs somebody's decision."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from rawr.clock import Clock
from rawr.errors import RawrError
from rawr.state import model
from rawr.state.changes import Change
from rawr.state.commit import Committer, Failed, Operation, orphans_of
from rawr.state.faults import LockFileLostError, lock_timeout
from rawr.state.files import StateFiles
from rawr.state.findings import Finding, findings
from rawr.state.lockfile import LockFile, look_at, present_holder
from rawr.state.mark import mark_in, write_mark
from rawr.state.requests import RequestQueue
from rawr.state.stale import ORIGINAL_STALE_MS, OWNER, Holder, described, holder_seen, staleness
from rawr.storage.atomic import create_exclusive, remove
from rawr.storage.lock import FileLock, LockTimeoutError, free

LOCK_TIMEOUT_S: Final = 5.0
UNLOCK_PATIENCE_S: Final = 1.0
"""Longer than any change that goes on."""
_PAUSE_S: Final = 0.01
T = TypeVar("T")
_REPAIRS: Final = {
    "state.corrupt": "restore the newest revision and keep the corrupt bytes aside",
    "state.lock_stale": "take the stale lock file over",
    "state.orphans": "remove the unfinished files",
    "state.queue_damaged": "begin the file of requests anew",
    "state.journal_damaged": "keep the damaged journal aside and write the lines that can be read",
}
"""What a repair does about a finding, in this order. The others are for a person."""


class StateLockHeldError(RawrError):
    """The lock belongs to somebody who lives, or may. Nothing was changed."""

    code = "STATE_LOCK_HELD"


class Action(msgspec.Struct, frozen=True, kw_only=True):
    finding: str
    """The id of what it is done about."""
    what: str


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    actions: tuple[Action, ...]
    left: tuple[Finding, ...]
    """What is there still, or would be; it needs a person."""


class Unlocked(msgspec.Struct, frozen=True, kw_only=True):
    holder: Holder | None
    """Whose lock file was removed; None when there was none."""
    reason: str


class _Held(NamedTuple):
    """Both locks."""

    descriptor: int
    """Of the kernel lock."""
    lock_file: LockFile


def planned_repair(files: StateFiles, clock: Clock) -> Repair:
    """What `repair` would do now."""
    found = findings(files, clock)
    left = tuple(finding for finding in _wanting(found) if finding.id not in _REPAIRS)
    return Repair(actions=_actions(found), left=left)


def repair(
    files: StateFiles, clock: Clock, notify: Callable[[str], None], *, timeout_s: float = LOCK_TIMEOUT_S
) -> Repair:
    """Do what is safe about everything that is wrong, under both locks. Each action is durable or safe to repeat.

    Raises:
        StateCorruptError: the state is corrupt and no revision is known to restore; nothing was done.
        StateVersionError: this rawr is too old for the state; nothing was done.
        StateLockTimeoutError: somebody else holds a lock; nothing was done.
        StorageError
    """
    actions = _actions(findings(files, clock))
    if actions:
        with _locked(files, clock, timeout_s) as held:
            _carry_out({action.finding for action in actions}, held, Committer(files, clock, notify), files, clock)
    return Repair(actions=actions, left=_wanting(findings(files, clock)))


def unlock(files: StateFiles, clock: Clock, *, force: str | None = None) -> Unlocked:
    """Remove a lock file that nobody needs any more; or whose `Holder.id` is `force`, whether it lives or not.

    Raises:
        StateLockHeldError: its process lives, or cannot be known to be dead, or holds the kernel lock as well, which
            only ends with that process; or `force` names another holder.
    """
    looked = look_at(files.lock_file, clock)
    if looked is None or (looked[0].note is not None and looked[0].note.owner == OWNER):
        return _unlock_ours(files, clock)
    seen, status, found = looked
    holder = holder_seen(seen, "" if found is None else found.command)
    reason: str | None = staleness(seen, stale_lock_ms=ORIGINAL_STALE_MS)
    if reason is None and holder.is_alive is False and holder.host in ("", socket.gethostname()):
        reason = "its process is gone"
    if force is not None and force != holder.id:
        raise _refusal(files, holder, f"it is not {force} that holds it", _end_or_force(holder))
    if reason is None and force is None:
        raise _refusal(files, holder, "its process may be at work", _end_or_force(holder))
    _remove(files, status)
    return Unlocked(holder=holder, reason=reason or "by force")


def _actions(found: Sequence[Finding]) -> tuple[Action, ...]:
    ids = {finding.id for finding in found}
    return tuple(Action(finding=finding_id, what=what) for finding_id, what in _REPAIRS.items() if finding_id in ids)


def _wanting(found: Sequence[Finding]) -> tuple[Finding, ...]:
    return tuple(finding for finding in found if finding.severity != "info")


@contextlib.contextmanager
def _locked(files: StateFiles, clock: Clock, timeout_s: float) -> Iterator[_Held]:
    """Hold the kernel lock and the lock file. Raises StateLockTimeoutError."""
    until_s = time.monotonic() + timeout_s
    descriptor = _waited_for(FileLock(files.kernel_lock).try_hold, files, clock, until_s, timeout_s)
    try:
        lock_file = LockFile(files, clock, stale_lock_ms=ORIGINAL_STALE_MS)
        try:
            _waited_for(lambda: lock_file.try_hold() or None, files, clock, until_s, timeout_s)
            yield _Held(descriptor, lock_file)
        finally:
            lock_file.release()
    finally:
        free(descriptor)


def _waited_for(take: Callable[[], T | None], files: StateFiles, clock: Clock, until_s: float, timeout_s: float) -> T:
    """What `take` gives as soon as it gives something. Raises StateLockTimeoutError."""
    while (taken := take()) is None:
        if time.monotonic() > until_s:
            raise lock_timeout(files, present_holder(files, clock), round(timeout_s * 1000), ORIGINAL_STALE_MS)
        time.sleep(_PAUSE_S)
    return taken


def _carry_out(wrong: set[str], held: _Held, committer: Committer, files: StateFiles, clock: Clock) -> None:
    """The lock file has been taken over by holding it. What may refuse comes first."""
    if "state.corrupt" in wrong:
        _recover(held, committer, files)
    if "state.orphans" in wrong:
        for orphan in orphans_of(files):
            remove(orphan)
    if "state.queue_damaged" in wrong:
        with RequestQueue(files.requests).taking(None):
            pass  # looking at a damaged file begins it anew
    if "state.journal_damaged" in wrong:
        _set_journal_right(committer, files, clock)


def _recover(held: _Held, committer: Committer, files: StateFiles) -> None:
    """One ordinary commit: it finds the corrupt file, as any other change would."""

    def fence() -> None:
        if not held.lock_file.is_ours():
            raise LockFileLostError(f"{files.lock_file} was removed by somebody else", fix="rawr state repair")

    standing = committer.standing(mark_in(held.descriptor, files.kernel_lock))
    operation = Operation(Change(op="repair"), lambda document, at: model.touched(document, at=at))
    (outcome,) = committer.commit(standing, [operation], upto=None, fence=fence)
    if isinstance(outcome, Failed):
        raise outcome.error
    write_mark(held.descriptor, outcome.revision, files.kernel_lock)


def _set_journal_right(committer: Committer, files: StateFiles, clock: Clock) -> None:
    raw = files.journal.read_bytes()
    at_ms = clock.now_ms()
    while not create_exclusive(files.journal_quarantine(at_ms), raw, mode=0o600):
        at_ms += 1
    committer.journal.rewrite()


def _unlock_ours(files: StateFiles, clock: Clock) -> Unlocked:
    """A lock file of our kind counts while its writer holds the kernel lock; so whoever gets that may remove it."""
    try:
        with FileLock(files.kernel_lock).acquire(UNLOCK_PATIENCE_S):
            looked = look_at(files.lock_file, clock)
            if looked is None:
                return Unlocked(holder=None, reason="nobody holds it")
            seen, status, found = looked
            reason = staleness(seen, stale_lock_ms=ORIGINAL_STALE_MS)
            if reason is not None:
                _remove(files, status)
                return Unlocked(holder=holder_seen(seen, "" if found is None else found.command), reason=reason)
    except LockTimeoutError as error:
        raise _kernel_lock_held(files, present_holder(files, clock)) from error
    raise StateLockHeldError(f"{files.lock_file} was taken by another program just now", fix="rawr state unlock")


def _kernel_lock_held(files: StateFiles, holder: Holder | None) -> StateLockHeldError:
    if holder is None or holder.pid is None:
        return StateLockHeldError(f"{files.kernel_lock} is held by a process that cannot be named", fix="try again")
    why = "a kernel lock ends with its process, and with nothing else"
    return _refusal(files, holder, why, f"end that process (kill {holder.pid}), or let it go on")


def _refusal(files: StateFiles, holder: Holder, why: str, fix: str) -> StateLockHeldError:
    return StateLockHeldError(
        f"the lock of {files.state} is held by {described(holder)}: {why}",
        details={
            "lockPath": str(files.lock_file),
            "holder": {**msgspec.to_builtins(holder), "id": holder.id},
        },
        fix=fix,
    )


def _end_or_force(holder: Holder) -> str:
    force = f"rawr state unlock --force {holder.id}"
    return force if holder.pid is None else f"end that process (kill {holder.pid}), or: {force}"


def _remove(files: StateFiles, seen: os.stat_result) -> None:
    """Remove the lock file that was seen, not one that has taken its place.

    A writer of ours whose fresh file were hit in between would notice it before it replaces the state.
    """
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.stat(files.lock_file, follow_symlinks=False), seen):
            remove(files.lock_file)
