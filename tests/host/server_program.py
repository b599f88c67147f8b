"""A server process for tests: `python server_program.py ROOT PORT`. Importable for its manifest as well."""

from __future__ import annotations

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from rawr.coordination.model import Desk, Handoff, MemoryScope, Workflow
from rawr.errors import RawrError
from rawr.execution.ports import DeskContext
from rawr.execution.program import coordination_runner
from rawr.host.serve import serve
from rawr.host.settings import HostSettings, Limits, Rates, TlsFiles
from rawr.hq import Manifest
from rawr.ids import DeskId, HandoffId, InstanceId, WorkflowId
from rawr.procedures.catalog import PROCEDURES, STREAMS
from rawr.procedures.contract import Capability
from rawr.procedures.coordination import COORDINATION_PROCEDURES

WAIT_S = 60.0


def double(given: Any, ctx: DeskContext) -> Any:
    return {"number": given["number"] * 2}


def wait_for_go(given: Any, ctx: DeskContext) -> Any:
    """Count this call in `calls`, then wait until somebody creates `go`."""
    with (ctx.instance_root / "calls").open("a") as calls:
        calls.write("x")
    deadline = time.monotonic() + WAIT_S
    while not (ctx.instance_root / "go").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return {"went": True}


def workflow(workflow_id: str, *handlers: str) -> Workflow:
    """A chain of desks, one per handler."""
    desks = tuple(_desk(f"desk-{number}", handler) for number, handler in enumerate(handlers))
    return Workflow(
        workflow_id=WorkflowId(workflow_id),
        version=1,
        name=workflow_id,
        entry_desk_id=desks[0].desk_id,
        desks=desks,
        handoffs=tuple(
            Handoff(handoff_id=HandoffId(f"to-{after.desk_id}"), from_desk_id=before.desk_id, to_desk_id=after.desk_id)
            for before, after in itertools.pairwise(desks)
        ),
    )


def _desk(desk_id: str, handler: str) -> Desk:
    return Desk(
        desk_id=DeskId(desk_id),
        kind="desk:execution",
        name=desk_id,
        responsibility="is tested",
        domain="test",
        input_schema={"type": "object"},
        output_schema={"type": "object"},
        memory_scope=MemoryScope(persist=False),
        handler=handler,
    )


def manifest() -> Manifest:
    coordination = Capability(name="coordination", path_prefix="/coordination", procedures=COORDINATION_PROCEDURES)
    return Manifest(
        procedures=PROCEDURES,
        capabilities=(coordination,),
        functions=(coordination_runner(),),
        desk_handlers={"test.double": double, "test.wait_for_go": wait_for_go},
        workflows=(workflow("doubling", "test.double"), workflow("waiting", "test.wait_for_go", "test.wait_for_go")),
        web_mounts=(),
        streams=STREAMS,
    )


def main(root: Path, port: int, given: str) -> int:
    chosen = msgspec.json.decode(given, type=Given, dec_hook=lambda kind, text: kind(text)).chosen()
    plain = HostSettings(port=port, limits=Limits(drain_s=2, body_s=2), rates=Rates(address_per_minute=60_000))
    settings = msgspec.structs.replace(plain, **chosen)
    try:
        serve(root, InstanceId("inst-served"), manifest(), settings)
    except RawrError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 1
    return 0


class Given(msgspec.Struct, frozen=True):
    """What a test wants otherwise than it is here."""

    limits: Limits | msgspec.UnsetType = msgspec.UNSET
    tls: TlsFiles | msgspec.UnsetType = msgspec.UNSET
    base_url: str | msgspec.UnsetType = msgspec.UNSET
    trusted_hosts: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    trusted_proxies: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    rates: Rates | msgspec.UnsetType = msgspec.UNSET

    def chosen(self) -> dict[str, Any]:
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not msgspec.UNSET}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
