"""Writing down, now and then, when keys and sessions were used: beside the calls, never in one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from rawr.errors import RawrError
from rawr.security.last_used import FLUSH_S, LastUsed

_log: Final = logging.getLogger("rawr.host")


@asynccontextmanager
async def last_used_written(last_used: LastUsed, *, every_s: float = FLUSH_S) -> AsyncIterator[None]:
    """Within the block it is written every `every_s`, and once more at its end. A fault is logged and tried again."""
    writing = asyncio.create_task(_write_again_and_again(last_used, every_s))
    try:
        yield
    finally:
        writing.cancel()
        await asyncio.wait({writing})
        await _write(last_used)


async def _write_again_and_again(last_used: LastUsed, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        await _write(last_used)


async def _write(last_used: LastUsed) -> None:
    try:
        await asyncio.to_thread(last_used.flush)
    except RawrError as error:
        _log.warning("when keys were last used is not written down: %s: %s", error.code, error.message)
