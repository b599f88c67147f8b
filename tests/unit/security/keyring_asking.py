"""Asking a keyring from code that has no event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rawr.security.keyring import Unread
from rawr.security.policy import Caller, Unproven


def asked(question: Callable[[], Caller | Unproven | Unread]) -> Caller | Unproven:
    """The answer, after reading whatever has to be read first."""

    async def ask() -> Caller | Unproven:
        while not isinstance(answer := question(), Caller | Unproven):
            await answer.read()
        return answer

    return asyncio.run(ask())
