"""How many requests are being answered right now, all together and for each address. For one event loop."""

from __future__ import annotations

import asyncio
from enum import Enum

from rawr.host.settings import Limits


class Turn(Enum):
    """Whether a request may be answered now."""

    GRANTED = "granted"
    HOST_IS_BUSY = "host is busy"
    ADDRESS_IS_BUSY = "address is busy"


class Admission:
    def __init__(self, limits: Limits) -> None:
        self._most = limits.requests
        self._most_of_one = limits.requests_per_address
        self._by_address: dict[str, int] = {}
        self._count = 0
        self._idle: asyncio.Event | None = None
        self.is_closed = False
        """Nobody new is let in: the host stops."""

    def enter(self, address: str) -> Turn:
        """Take a place for a request from `address`, if there is one. Who was granted it gives it back by `leave`."""
        if self._count >= self._most:
            return Turn.HOST_IS_BUSY
        of_this_one = self._by_address.get(address, 0)
        if of_this_one >= self._most_of_one:
            return Turn.ADDRESS_IS_BUSY
        self._by_address[address] = of_this_one + 1
        self._count += 1
        return Turn.GRANTED

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
