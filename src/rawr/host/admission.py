"""How many requests are being answered right now, all together and for each address. For one event loop."""

from __future__ import annotations

import asyncio
from enum import Enum

from rawr.host.settings import Limits


class Busy(Enum):
    """Why a request cannot be answered now."""

    HOST = "host"
    ADDRESS = "address"


class Admission:
    def __init__(self, limits: Limits) -> None:
        self._most = limits.requests
        self._most_of_one = limits.requests_per_address
        self._by_address: dict[str, int] = {}
        self._count = 0
        self._idle: asyncio.Event | None = None
        self.is_closed = False
        """Nobody new is let in: the host stops."""

    def enter(self, address: str) -> Busy | None:
        """Take a place for a request from `address`, to be given back by `leave`; or why there is none."""
        if self._count >= self._most:
            return Busy.HOST
        of_this_one = self._by_address.get(address, 0)
        if of_this_one >= self._most_of_one:
            return Busy.ADDRESS
        self._by_address[address] = of_this_one + 1
        self._count += 1
        return None

    def leave(self, address: str) -> None:
        self._count -= 1
        if self._by_address[address] == 1:
            del self._by_address[address]  # or every address that ever asked would be remembered
        else:
            self._by_address[address] -= 1
        if self._count == 0 and self._idle is not None:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until nothing is being answered. For one who waits, once nobody new is let in."""
        self._idle = asyncio.Event()
        if self._count > 0:
            await self._idle.wait()
