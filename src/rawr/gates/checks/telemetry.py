"""Gate `telemetry`: runs probe workflows in a scratch folder, one that completes and one that fails, with the
instance's own durable functions, and checks what they leave behind with the telemetry checker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rawr.coordination.model import TERMINAL_STATUSES, RunStatus, Workflow
from rawr.coordination.service import CoordinationService
from rawr.gates.model import GateFinding, Inspection
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings, Limits
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.telemetry.checker import Observed, check_timeline, observed_event
from rawr.telemetry.contract import ALLOWED_STATUSES

RUN_S: Final = 20.0
CRITICAL: Final = frozenset(ALLOWED_STATUSES)
"""Every event type of the contract must be observed in one of the runs."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What one probe run was meant to do, and what it left."""

    name: str
    plan: Mapping[str, Sequence[str]]
    expected: RunStatus
    status: RunStatus
    events: tuple[Observed, ...]


async def check(manifest: Manifest, scratch: Path, *, run_s: float = RUN_S) -> Inspection:
    return judged(await observe(manifest, scratch, run_s=run_s))


def judged(observations: Sequence[Observation]) -> Inspection:
    """The verdict on what was observed. Pure."""
    floor = sum(2 * len(observation.plan) for observation in observations)
    inspected = sum(len(observation.events) for observation in observations)
    return Inspection(inspected=inspected, floor=floor, findings=tuple(_findings(observations)))


async def observe(manifest: Manifest, scratch: Path, *, run_s: float) -> list[Observation]:
    """Run both probes on a host of the manifest's own functions, and read their timelines."""
    probing = msgspec.structs.replace(manifest, desk_handlers={"gate.work": _work, "gate.fail": _fail}, workflows=())
    settings = HostSettings(limits=Limits(drain_s=1))
    async with open_host(scratch, InstanceId("gate"), probing, settings) as host:
        return [
            await _observed(host.coordination, _probe("gate-completes", "gate.work"), RunStatus.COMPLETED, run_s),
            await _observed(host.coordination, _probe("gate-fails", "gate.fail"), RunStatus.FAILED, run_s),
        ]


async def _observed(
    coordination: CoordinationService, workflow: Workflow, expected: RunStatus, run_s: float
) -> Observation:
    await coordination.save_workflow(workflow)
    queued = await coordination.queue_run(workflow.workflow_id)
    try:
        async with asyncio.timeout(run_s):
            # Nothing tells that a run has ended but the run itself.
            while (await coordination.get_run(queued.run.run_id)).status not in TERMINAL_STATUSES:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    except TimeoutError:
        pass  # judged as a run that has not ended
    run = await coordination.get_run(queued.run.run_id)
    _, timeline = await coordination.run_timeline(queued.run.run_id)
    plan: dict[str, list[str]] = {desk.desk_id: [] for desk in workflow.desks}
    for handoff in workflow.handoffs:
        plan[handoff.to_desk_id].append(handoff.from_desk_id)
    events = tuple(observed_event(msgspec.to_builtins(event)) for event in timeline)
    return Observation(name=workflow.workflow_id, plan=plan, expected=expected, status=run.status, events=events)


def _findings(observations: Sequence[Observation]) -> Iterator[GateFinding]:
    for observation in observations:
        ended = observation.status in TERMINAL_STATUSES
        if not ended:
            message = f"the run is still {observation.status.value}"
            yield GateFinding(code="RUN_NOT_ENDED", message=message, place=observation.name)
        elif observation.status is not observation.expected:
            message = f"the run ended as {observation.status.value}, not {observation.expected.value}"
            yield GateFinding(code="RUN_ENDED_WRONGLY", message=message, place=observation.name)
        for finding in check_timeline(observation.events, ended=ended, plan=observation.plan):
            if finding.severity == "error":
                message = f"{finding.code.value}: {finding.message}"
                yield GateFinding(code="TIMELINE_WRONG", message=message, place=observation.name)
    seen = {event.type for observation in observations for event in observation.events}
    for missing in sorted(CRITICAL - seen):
        yield GateFinding(code="EVENT_NOT_OBSERVED", message=f"no run emitted {missing}", place=missing)


def _probe(workflow_id: str, last_handler: str) -> Workflow:
    """Two desks side by side, a join, and a last desk with the given handler."""

    def desk(desk_id: str, kind: str, handler: str) -> Mapping[str, Any]:
        return {
            "deskId": desk_id,
            "kind": f"desk:{kind}",
            "name": desk_id,
            "responsibility": "Be observed",
            "domain": "gate",
            "handler": handler,
            "inputSchema": {"type": "object"},
            "outputSchema": {"type": "object"},
            "memoryScope": {"persist": False},
        }

    edges = [("first", "left"), ("first", "right"), ("left", "joined"), ("right", "joined"), ("joined", "last")]
    document = {
        "workflowId": workflow_id,
        "version": 1,
        "name": workflow_id,
        "entryDeskId": "first",
        "desks": [
            desk("first", "analysis", "gate.work"),
            desk("left", "analysis", "gate.work"),
            desk("right", "analysis", "gate.work"),
            desk("joined", "join", "gate.work"),
            desk("last", "execution", last_handler),
        ],
        "handoffs": [{"handoffId": f"{a}-{b}", "fromDeskId": a, "toDeskId": b} for a, b in edges],
    }
    return msgspec.convert(document, Workflow)


async def _work(received: Any, ctx: Any) -> dict[str, Any]:
    del received, ctx
    return {}


async def _fail(received: Any, ctx: Any) -> dict[str, Any]:
    del received, ctx
    raise RuntimeError("this desk fails on purpose")
