"""Cron expressions and the ticks they name. The only importer of the cron library. Pure; the time is an argument.

Five fields as Debian's cron reads them, `@hourly` and the like, and a zone as `TZ=Europe/Paris 0 9 * * 1-5`; UTC
without one. A local time that a change to summer time leaves out comes right after the gap, and one that comes
twice is taken once.
"""

from __future__ import annotations

import datetime
import hashlib
import re
import zoneinfo
from typing import Final

from cronsim import CronSim, CronSimError

from rawr.errors import BadInputError

TEXT_MAX: Final = 200
_ZONED: Final = re.compile(r"(?:CRON_)?TZ=(\S+)\s+(.+)\Z")
_NAMED: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class CronInvalidError(BadInputError):
    """The text is no cron expression, or names a time that never comes."""

    code = "CRON_INVALID"


def check_cron(text: str) -> None:
    """Accept a cron expression, or raise.

    Raises:
        CronInvalidError
    """
    next_tick_ms(text, 0)


def next_tick_ms(text: str, after_ms: int) -> int:
    """The first tick after `after_ms`, both in Unix milliseconds.

    Raises:
        CronInvalidError
    """
    zone, fields = _zone_and_fields(text)
    after = datetime.datetime.fromtimestamp(after_ms / 1000, tz=zone)
    try:
        tick = next(CronSim(fields, after))
    except (CronSimError, StopIteration) as error:
        raise CronInvalidError(f"cron {text!r}: {error or 'it never comes'}") from error
    return int(tick.timestamp() * 1000)


def jitter_ms(cron_id: str, tick_ms: int, most_ms: int) -> int:
    """How much later than its tick a cron fires: 0 to `most_ms`, the same whoever asks."""
    digest = hashlib.sha256(f"{cron_id}|{tick_ms}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % (most_ms + 1)


def tick_after_ms(text: str, cron_id: str, tick_ms: int, most_jitter_ms: int, now_ms: int) -> int:
    """The tick to wait for when `tick_ms` has fired. Ticks that were missed meanwhile are left out: they were one."""
    following_ms = next_tick_ms(text, tick_ms)
    if following_ms + jitter_ms(cron_id, following_ms, most_jitter_ms) > now_ms:
        return following_ms
    return next_tick_ms(text, now_ms)


def _zone_and_fields(text: str) -> tuple[zoneinfo.ZoneInfo, str]:
    if len(text) > TEXT_MAX:
        raise CronInvalidError(f"the cron expression has {len(text)} characters; the limit is {TEXT_MAX}")
    match = _ZONED.match(text.strip())
    zone_name, fields = match.groups() if match else ("UTC", text.strip())
    fields = _NAMED.get(fields, fields)
    if len(fields.split()) != 5:
        raise CronInvalidError(f"cron {text!r}: five fields are needed (minute hour day month weekday)")
    try:
        return zoneinfo.ZoneInfo(zone_name), fields
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CronInvalidError(f"cron {text!r}: there is no time zone {zone_name!r}") from error
