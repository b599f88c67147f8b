"""How often somebody may call: token buckets by name, with the time as an argument. Pure.

A bucket holds ten seconds' worth of calls and fills up evenly. The number of buckets is bounded; the one that was
not used for the longest gives way, and it is the most likely to have filled up, so that losing it loses nothing.
"""

from __future__ import annotations

import ipaddress
import math
from typing import Annotated, Final

import msgspec

BURST_S: Final = 10
RATE_MAX: Final = 10_000_000
IPV6_PREFIX: Final = 64
"""What one customer has of IPv6: changing the address within it makes nobody another caller."""

PerMinute = Annotated[int, msgspec.Meta(ge=1, le=RATE_MAX)]


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    per_minute: int

    @property
    def burst(self) -> float:
        """How many calls may come at once after a pause."""
        return max(1.0, self.per_minute * BURST_S / 60)


class Bucket(msgspec.Struct, frozen=True):
    calls: float
    """How many calls it holds."""
    at_ms: int


def taken(bucket: Bucket | None, rate: Rate, *, now_ms: int) -> tuple[Bucket, int]:
    """The bucket after one call, and 0; or as it is, and the milliseconds until it holds a call again.

    None is a full bucket. A clock that was set back fills nothing, and the filling goes on from there.
    """
    held = rate.burst if bucket is None else bucket.calls
    if bucket is not None and now_ms > bucket.at_ms:
        held = min(rate.burst, held + (now_ms - bucket.at_ms) * rate.per_minute / 60_000)
    if held >= 1:
        return Bucket(held - 1, now_ms), 0
    return Bucket(held, now_ms), max(1, math.ceil((1 - held) * 60_000 / rate.per_minute))


class Buckets:
    """The buckets of one host, at most `most`."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._buckets: dict[str, Bucket] = {}
        """The least recently used first."""

    def take(self, name: str, rate: Rate, *, now_ms: int) -> int:
        """Take one call from the bucket `name`: 0, or how many milliseconds to wait when it has none."""
        bucket, wait_ms = taken(self._buckets.pop(name, None), rate, now_ms=now_ms)
        self._buckets[name] = bucket
        if len(self._buckets) > self._most:
            del self._buckets[next(iter(self._buckets))]
        return wait_ms

    def __len__(self) -> int:
        return len(self._buckets)


def address_name(address: str) -> str:
    """Under which name an address is counted: itself, or its network for IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # no address: a socket file, a test
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX), strict=False))
