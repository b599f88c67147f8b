"""Who a request comes from when proxies may stand in between. Pure.

What a forwarded header says counts only from a proxy that was named in the configuration, and of its list only the
entries that such proxies wrote themselves: from the right, up to the first address that is none of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Final

import msgspec

FORWARDED_FOR: Final = b"x-forwarded-for"
FORWARDED_PROTO: Final = b"x-forwarded-proto"


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """The caller's address as far as it can be known, and whether it spoke `http` or `https` to the outermost of us."""

    address: str
    scheme: str


class TrustedProxies:
    def __init__(self, networks: Sequence[str]) -> None:
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(ip_network(network) for network in networks)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def caller(self, connected: Peer, fields: Mapping[bytes, bytes]) -> Peer:
        """Who stands behind `connected`, when that is a proxy of ours; else `connected`. `fields`: the headers."""
        if not self._covers(connected.address):
            return connected
        address = connected.address
        for entry in reversed(fields.get(FORWARDED_FOR, b"").decode("latin-1").split(",")):
            if not (entry := entry.strip()):
                break
            address = entry
            if not self._covers(entry):
                break
        proto = fields.get(FORWARDED_PROTO, b"").decode("latin-1").rpartition(",")[2].strip().lower()
        scheme = proto if proto in ("http", "https") else connected.scheme
        return Peer(address=address if _is_address(address) else connected.address, scheme=scheme)

    def _covers(self, address: str) -> bool:
        try:
            given = ip_address(address)
        except ValueError:
            return False
        return any(given in network for network in self._networks)


def is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
