"""Which engine processes are alive: each holds the kernel lock of a slot for as long as it lives.

A killed process loses its lock at once, so its leases need not run out before its work goes on. Slots are a few
fixed files that are reused; the table `owners` says who took each slot last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from rawr.errors import RawrError
from rawr.storage.lock import FileLock, free, pids_holding

SLOTS: Final = 64


class NoSlotError(RawrError):
    code = "ENGINE_SLOTS_TAKEN"


class SlotLock:
    """The slot of this process. Free it when the engine stops; the kernel does when the process dies."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._descriptor: int | None = None

    async def take(self) -> int:
        """Take the first free slot and return its number.

        Raises:
            NoSlotError: that many engines already work on this file.
        """
        assert self._descriptor is None
        return await asyncio.to_thread(self._take)

    def free(self) -> None:
        if self._descriptor is not None:
            free(self._descriptor)
            self._descriptor = None

    async def dead(self, owners: Mapping[str, int | None]) -> list[str]:
        """Those of `owners` (with the slot each was the last to take) that no longer live."""
        return await asyncio.to_thread(lambda: [owner for owner, slot in owners.items() if self._is_dead(slot)])

    def pids(self, slot: int | None) -> tuple[int, ...]:
        """The processes that hold the slot, where the system tells."""
        return () if slot is None else tuple(sorted(pids_holding(self._lock(slot).path) or ()))

    def _take(self) -> int:
        for slot in range(SLOTS):
            self._descriptor = self._lock(slot).try_hold()
            if self._descriptor is not None:
                return slot
        raise NoSlotError(f"{SLOTS} engines already work with {self._run_dir}", fix="stop one of them")

    def _is_dead(self, slot: int | None) -> bool:
        """An owner without a slot was followed by another one, which could take it only from a dead one.

        A lock file that is gone says nothing: then only the lease's end counts.
        """
        if slot is None:
            return True
        lock = self._lock(slot)
        return lock.path.exists() and not lock.is_held()

    def _lock(self, slot: int) -> FileLock:
        return FileLock(self._run_dir / f"engine-{slot}.lock")
