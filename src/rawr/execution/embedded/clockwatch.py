"""Notices that the wall clock was set, by a clock that only goes forward. Pure; both times are arguments."""

from __future__ import annotations

from typing import Final

TOLERANCE_MS: Final = 1000
"""Less is a clock being disciplined, or two clocks that are not read at the same moment."""


class ClockWatch:
    def __init__(self, *, wall_ms: int, steady_ms: int) -> None:
        self._ahead_ms = wall_ms - steady_ms

    def jump_ms(self, *, wall_ms: int, steady_ms: int) -> int:
        """By how much the wall clock was set since the last look; 0 when it was not."""
        ahead_ms = wall_ms - steady_ms
        jump_ms = ahead_ms - self._ahead_ms
        if abs(jump_ms) < TOLERANCE_MS:
            return 0
        self._ahead_ms = ahead_ms
        return jump_ms
