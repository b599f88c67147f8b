"""Waiting times: durations and moments as text, backoff between attempts, how long a retry may be put off. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable
from typing import Final

WAIT_MAX_MS: Final = 366 * 24 * 3600 * 1000
BACKOFF_S: Final = (15, 30, 60, 120, 300, 600, 1200, 2400, 3600, 7200)
BACKOFF_JITTER_MS: Final = 30_000
UNREACHABLE_MIN_MS: Final = 500
UNREACHABLE_MAX_MS: Final = 30_000
_RETRY_AFTER_MIN_MS: Final = 1_000
_RETRY_AFTER_MAX_MS: Final = 24 * 3600 * 1000
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|w|d|h|m|s)")
_UNIT_MS: Final = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}

Backoff = Callable[[int], int]
"""`backoff(attempt)`: milliseconds to wait after attempt number `attempt` (from 0) failed."""


def inngest_backoff(jitter_ms: Callable[[], int]) -> Backoff:
    """Inngest's own waiting times: 15 s, 30 s, 1 min … 2 h, each plus a jitter."""
    return lambda attempt: BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)] * 1000 + jitter_ms()


def unreachable_pause_ms(tries: int) -> int:
    """How long an app that could not be reached is left alone: half a second, doubled with each try, up to 30 s."""
    return min(UNREACHABLE_MIN_MS << min(max(tries - 1, 0), 16), UNREACHABLE_MAX_MS)


def duration_ms(text: str) -> int | None:
    """The length of a duration like `1h30m`. None if unreadable or longer than a year."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    length_ms = int(sum(float(number) * _UNIT_MS[unit] for number, unit in parts))
    return length_ms if length_ms <= WAIT_MAX_MS else None


def wait_until_ms(text: str, *, now_ms: int) -> int | None:
    """When a wait ends; `text` is an ISO time or a duration. None if unreadable or longer than a year."""
    length_ms = duration_ms(text)
    due_ms = _iso_ms(text) if length_ms is None else now_ms + length_ms
    return None if due_ms is None or due_ms - now_ms > WAIT_MAX_MS else due_ms


def retry_after_ms(text: str, *, now_ms: int) -> int | None:
    """When to try again: `text` is a number of seconds or an ISO time; 1 s to 24 h from now. None if unreadable."""
    due_ms = now_ms + int(text) * 1000 if text.isdecimal() and len(text) < 12 else _iso_ms(text)
    if due_ms is None:
        return None
    return min(max(due_ms, now_ms + _RETRY_AFTER_MIN_MS), now_ms + _RETRY_AFTER_MAX_MS)


def _iso_ms(text: str) -> int | None:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.tzinfo is None else int(moment.timestamp() * 1000)
