"""Waiting for the kernel lock: whoever comes when it is free gets it, until somebody has waited too long.

That is fast, because a running process goes on rather than waking a sleeping one, and it could starve an unlucky one.
So who has waited for `PATIENCE_S` stands in the turnstile, and newcomers stay behind it. A turnstile whose holder
was stopped does not keep the others out for ever.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Final

from rawr.state.files import StateFiles
from rawr.state.mark import mark_in
from rawr.storage.lock import FileLock, close, free

PATIENCE_S: Final = 0.1
RESPECT_S: Final = 1.0
"""How long the turnstile keeps anybody out."""
BACKOFF_MIN_S: Final = 0.001
LOOK_AGAIN_S: Final = 0.005
"""At the turnstile."""


class Entrance:
    """One thread's way to the lock. Close it, also after an error."""

    def __init__(self, files: StateFiles, *, steady_s: Callable[[], float] = time.monotonic) -> None:
        self._steady_s = steady_s
        self._lock = FileLock(files.kernel_lock)
        self._path = str(files.kernel_lock)
        self._turnstile = FileLock(files.turnstile)
        self._descriptor: int | None = None
        self._turn: int | None = None
        self._since_s = steady_s()
        self._look_again_s = 0.0
        self._is_behind = False
        self._backoff_s = BACKOFF_MIN_S

    def try_pass(self) -> int | None:
        """The descriptor that holds the lock, to be freed by `storage.lock.free`; None when it is not our turn.

        Raises:
            StorageError: the lock cannot be opened.
        """
        if self._turn is None and self._has_to_stay_behind():
            return None
        was_open = self._descriptor is not None
        if self._descriptor is None:
            self._descriptor = self._lock.open()
        if not self._lock.try_lock(self._descriptor):
            return None
        descriptor, self._descriptor = self._descriptor, None
        if not was_open or self._is_in_place(descriptor):
            return descriptor
        free(descriptor)  # somebody removed the folder under us: that is a lock which nobody else knows
        return None

    def mark(self) -> int | None:
        """The mark of the last durable commit, as `mark.read_mark`."""
        return None if self._descriptor is None else mark_in(self._descriptor, self._lock.path)

    def back_off(self, at_most_s: float) -> None:
        """Sleep until the next attempt makes sense, and no longer than `at_most_s`, in seconds."""
        if self._turn is not None:
            pause_s = BACKOFF_MIN_S / 2  # everybody stands behind us: what we sleep, the lock is idle
        else:
            pause_s = self._backoff_s * random.uniform(0.5, 1.0)  # noqa: S311 - keeps a crowd from trying in step
            self._backoff_s = min(self._backoff_s * 2, RESPECT_S)
        time.sleep(min(at_most_s, pause_s))

    def close(self) -> None:
        if self._descriptor is not None:
            close(self._descriptor)
            self._descriptor = None
        if self._turn is not None:
            free(self._turn)
            self._turn = None

    def _has_to_stay_behind(self) -> bool:
        now_s = self._steady_s()
        waited_s = now_s - self._since_s
        if waited_s >= PATIENCE_S:
            self._turn = self._turnstile.try_hold()
            return self._turn is None and waited_s < RESPECT_S
        if now_s >= self._look_again_s:
            self._look_again_s = now_s + LOOK_AGAIN_S
            self._is_behind = self._turnstile.is_held()
        return self._is_behind

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(descriptor))
        except FileNotFoundError:
            return False
