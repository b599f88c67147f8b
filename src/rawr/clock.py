"""The one door to wall-clock time and randomness, and the source of fresh ids built on them."""

from __future__ import annotations

import secrets
import threading
import time
from typing import Protocol

from rawr.ids import RunId, run_id_from, ulid


class Clock(Protocol):
    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch. May go backwards, as wall clocks do."""
        ...


class SystemClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class UlidSource:
    """Strictly increasing ULIDs, also when the clock stands still or goes back."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> str:
        fresh = (self._clock.now_ms() << 80) | secrets.randbits(80)
        with self._lock:
            self._last = max(self._last + 1, fresh)
            value = self._last
        return ulid(value >> 80, (value & ((1 << 80) - 1)).to_bytes(10, "big"))


class RunIdSource:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def next(self) -> RunId:
        return run_id_from(self._clock.now_ms(), secrets.randbits(48))
