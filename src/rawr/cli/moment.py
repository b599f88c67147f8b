"""Ages and times that an option is given: `30d`, or `2026-01-31T12:00:00Z`."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final

from rawr.errors import BadInputError

_AGE: Final = re.compile(r"([0-9]{1,6})([smhd])\Z")
_UNIT_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def age_ms(text: str, *, name: str) -> int:
    """The length of `30d`, `12h`, `90m` or `0s`. `name` is the option's. Raises BadInputError."""
    match = _AGE.match(text)
    if match is None:
        raise BadInputError(f"{name} {text}: a number with s, m, h or d", fix=f"{name} 30d")
    return int(match[1]) * _UNIT_MS[match[2]]


def moment_ms(text: str, *, name: str, now_ms: int) -> int:
    """The time so long ago, or the time itself; one without a zone is in the zone of this place.

    Raises:
        BadInputError
    """
    if _AGE.match(text):
        return now_ms - age_ms(text, name=name)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError, OSError) as error:
        raise BadInputError(
            f"{name} {text}: neither an age nor a time", fix=f"{name} 2h, or {name} 2026-01-31T12:00:00Z"
        ) from error
