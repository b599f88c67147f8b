"""When a lock file is stale, and what is said of who holds it. Pure.

The lock file is the TypeScript rawr's: it is there while somebody writes, and says which process that is. Its
writer may have died, and its number may belong to another process by now. Who judges here holds the kernel lock,
so a lock file that a rawr of this kind wrote has outlived its writer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from rawr import wire

OWNER: Final = "rawr-py"
STARTED_MARGIN_MS: Final = 2_000
"""How far the start of a process or of the machine, which the system derives from whole seconds, may be off."""


ORIGINAL_STALE_MS: Final = 60_000
"""The age at which the TypeScript rawr begins to ask whether a lock's process lives."""


class LockNote(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the lock file says; the TypeScript rawr knows the first two and passes over the others."""

    pid: int
    acquired_at: str
    owner: str = ""
    host: str = ""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A lock file and its process, as they were seen at `now_ms`. Times are since the Unix epoch."""

    note: LockNote | None
    """None when the file cannot be understood."""
    changed_ms: int
    now_ms: int
    is_alive: bool
    started_ms: int | None = None
    """When the process with that number started; None when there is none or it cannot be found out."""
    boot_ms: int | None = None


class Stale(StrEnum):
    WRITER_FREED_THE_KERNEL_LOCK = "its writer no longer holds the kernel lock"
    BEFORE_BOOT = "it is older than the running system"
    PROCESS_IS_YOUNGER = "its process number belongs to a younger process"
    OLD_AND_DEAD = "it is old and its process is gone"


def staleness(seen: Seen, *, stale_lock_ms: int) -> Stale | None:
    """Why the lock file may be taken over; None while it has to be honoured."""
    if seen.note is not None and seen.note.owner == OWNER:
        return Stale.WRITER_FREED_THE_KERNEL_LOCK
    if seen.boot_ms is not None and seen.changed_ms < seen.boot_ms - STARTED_MARGIN_MS:
        return Stale.BEFORE_BOOT
    if seen.is_alive and seen.started_ms is not None and seen.started_ms > seen.changed_ms + STARTED_MARGIN_MS:
        return Stale.PROCESS_IS_YOUNGER
    # The file of a clock that was set back lies in the future; it is as far from being fresh as an old one.
    if not seen.is_alive and abs(seen.now_ms - seen.changed_ms) >= stale_lock_ms:
        return Stale.OLD_AND_DEAD
    return None


def others_may_take_it(seen: Seen) -> bool:
    """Whether a TypeScript rawr may be about to remove this lock file and whatever has taken its place meanwhile."""
    return abs(seen.now_ms - seen.changed_ms) >= ORIGINAL_STALE_MS - STARTED_MARGIN_MS


class Holder(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Who keeps the others waiting, as far as it can be found out."""

    pid: int | None = None
    is_alive: bool | None = None
    command: str = ""
    acquired_at: str | None = None
    age_ms: int | None = None
    owner: str = ""
    host: str = ""

    @property
    def id(self) -> str:
        """Names this holding and no other; `unknown` when there is nothing to name it by."""
        if self.pid is None:
            return "unknown"
        return f"{self.pid}@{self.acquired_at}" if self.acquired_at else str(self.pid)


def described(holder: Holder) -> str:
    """`pid 412 (alive, rawr up), for 5.1 s`."""
    if holder.pid is None:
        return "a process that cannot be named"
    life = {True: "alive", False: "dead", None: "not known to this system"}[holder.is_alive]
    command = f", {holder.command}" if holder.command else ""
    age = "" if holder.age_ms is None else f", for {holder.age_ms / 1000:.1f} s"
    return f"pid {holder.pid} ({life}{command}){age}"


def holder_seen(seen: Seen, command: str) -> Holder:
    age_ms = seen.now_ms - seen.changed_ms
    if seen.note is None:
        return Holder(acquired_at=wire.iso_from_ms(seen.changed_ms), age_ms=age_ms)
    return Holder(
        pid=seen.note.pid,
        is_alive=seen.is_alive,
        command=command,
        acquired_at=seen.note.acquired_at,
        age_ms=age_ms,
        owner=seen.note.owner,
        host=seen.note.host,
    )


def note_in(raw: bytes) -> LockNote | None:
    """What a lock file says. One that is empty is being written, or its writer died before it could say anything."""
    try:
        return msgspec.json.decode(raw, type=LockNote)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
