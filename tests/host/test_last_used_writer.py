"""When keys were used is written while a host is open, at its end, and again after a fault."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from rawr.host.last_used_writer import last_used_written
from rawr.security.last_used import LastUsed
from rawr.testing.clock import FakeClock


@pytest.fixture
def used(tmp_path: Path) -> LastUsed:
    return LastUsed(tmp_path / "secrets" / "last-used.json", FakeClock(1000))


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - nobody is told when a file was written
        await asyncio.sleep(0.01)


def test_it_is_written_while_the_host_is_open_and_again_after_a_fault(
    used: LastUsed, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "secrets" / "last-used.json"
    file.parent.mkdir(mode=0o700)
    file.write_text("{")
    file.chmod(0o600)

    async def until_written() -> None:
        async with asyncio.timeout(60), last_used_written(used, every_s=0.01):
            used.note("a")
            await until(lambda: caplog.messages)
            file.unlink()
            await until(used.stored)

    with caplog.at_level(logging.WARNING, "rawr.host"):
        asyncio.run(until_written())
    assert used.stored() == {"a": 1000}
    assert "SECRET_CORRUPT" in caplog.messages[0]


def test_what_was_not_yet_written_is_written_at_the_end(used: LastUsed) -> None:
    async def briefly() -> None:
        async with last_used_written(used, every_s=3600):
            used.note("a")

    asyncio.run(asyncio.wait_for(briefly(), 60))
    assert used.stored() == {"a": 1000}
