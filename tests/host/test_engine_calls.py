"""`engine_calls` bounds how many desks work at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.coordination.model import RunStatus, Workflow
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings, Limits
from rawr.hq import Manifest, compose
from rawr.ids import InstanceId

WIDTH = 4


def wide_workflow() -> Workflow:
    """One desk that hands off to four, which may all work at once."""

    def desk(desk_id: str) -> Mapping[str, Any]:
        return {
            "deskId": desk_id,
            "kind": "desk:analysis",
            "name": desk_id,
            "responsibility": "work",
            "domain": "test",
            "handler": "overlap",
            "inputSchema": {"type": "object"},
            "outputSchema": {"type": "object"},
            "memoryScope": {"persist": False},
        }

    sides = [f"side-{number}" for number in range(WIDTH)]
    handoffs = [{"handoffId": f"to-{side}", "fromDeskId": "first", "toDeskId": side} for side in sides]
    document = {"workflowId": "wide", "version": 1, "name": "Wide", "entryDeskId": "first", "handoffs": handoffs}
    return msgspec.convert({**document, "desks": [desk(name) for name in ["first", *sides]]}, Workflow)


@pytest.mark.parametrize(("engine_calls", "most_at_once"), [(1, 1), (64, WIDTH)])
def test_desks_at_work_at_once_are_bounded(tmp_path: Path, engine_calls: int, most_at_once: int) -> None:
    at_work, seen = 0, 0

    async def overlap(received: Any, ctx: Any) -> dict[str, str]:
        nonlocal at_work, seen
        del received
        at_work += 1
        seen = max(seen, at_work)
        if ctx.desk_id != "first":
            for _ in range(200):  # until the others are here as well, or cannot come
                if at_work == most_at_once:
                    break
                await asyncio.sleep(0.01)
        at_work -= 1
        return {}

    manifest = msgspec.structs.replace(
        compose(tmp_path), desk_handlers={"overlap": overlap}, workflows=(wide_workflow(),)
    )
    assert asyncio.run(asyncio.wait_for(_status(tmp_path, manifest, engine_calls), 60)) is RunStatus.COMPLETED
    assert seen == most_at_once


async def _status(root: Path, manifest: Manifest, engine_calls: int) -> RunStatus:
    settings = HostSettings(engine_calls=engine_calls, limits=Limits(drain_s=1))
    async with open_host(root, InstanceId("wide"), manifest, settings) as host:
        queued = await host.coordination.queue_run("wide")
        while (run := await host.coordination.get_run(queued.run.run_id)).status is not RunStatus.COMPLETED:
            assert run.status is not RunStatus.FAILED, run.error
            await asyncio.sleep(0.01)
    return run.status
