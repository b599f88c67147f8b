"""The durable functions of an instance, made so that they can be replayed: nothing that they are given can act.

They are called through the ingress, as an engine does. Workflows are read from the file of the store, which is not
opened as one; whatever else a function reaches for outside of its steps is refused, reading included, because what it
would read now need not be what it read then.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from rawr.clock import Clock
from rawr.coordination.model import Workflow
from rawr.coordination.ports import CoordinationStore
from rawr.coordination.store_sqlite import stored_workflow
from rawr.errors import RawrError
from rawr.execution.embedded.replay import Replayer, synced
from rawr.execution.ports import (
    DeskHandler,
    DurableFunction,
    FunctionDeps,
    Ingress,
    IngressRequest,
    IngressResponse,
    OutgoingEvent,
)
from rawr.ids import WorkflowId

_ORIGIN: Final = "http://127.0.0.1"
_URL: Final = f"{_ORIGIN}/api/inngest"


class WouldActError(RawrError):
    """A function wanted to do something in a replay."""

    code = "REPLAY_WOULD_ACT"


async def open_replayer(
    functions: Sequence[DurableFunction],
    *,
    coordination_database: Path,
    handlers: Iterable[str],
    instance_root: Path,
    clock: Clock,
) -> Replayer:
    """A replayer of these functions. `handlers` are the names of all desk handlers; none of them is ever called."""
    # Importing the framework of the functions takes half a second.
    from rawr.execution.ingest import make_ingress

    key = f"signkey-replay-{secrets.token_hex(32)}"  # nobody else ever sees a call that is signed with it
    deps = FunctionDeps(
        store=cast("CoordinationStore", _OnlyWorkflows(coordination_database)),
        desk_handlers={name: _untouchable(name) for name in handlers},
        clock=clock,
        instance_root=instance_root,
    )
    ingress = make_ingress(functions, deps, signing_key=key, event_sink=_NoEvents(), serve_origin=_ORIGIN)
    return await synced(_IngressCall(ingress), signing_key=key, clock=clock, serve_url=_URL)


class _IngressCall:
    """`EngineCall` straight into an ingress, without the host around it."""

    def __init__(self, ingress: Ingress) -> None:
        self._ingress = ingress

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        request = IngressRequest(method=method, url=_URL, query=query, headers=headers, body=body)
        return await self._ingress.handle(request)


class _OnlyWorkflows:
    """As much of a `CoordinationStore` as a replay may have."""

    def __init__(self, database: Path) -> None:
        self._database = database

    async def get_workflow(self, workflow_id: WorkflowId, version: int | None = None) -> Workflow | None:
        return stored_workflow(self._database, workflow_id, version)

    def __getattr__(self, name: str) -> NoReturn:
        raise WouldActError(f"it uses store.{name}")


class _NoEvents:
    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        raise WouldActError(f"it sends {', '.join(event.name for event in events)}")


def _untouchable(name: str) -> DeskHandler:
    def handler(_received: Any, _ctx: Any) -> NoReturn:
        raise WouldActError(f"it calls the desk handler {name}")

    return handler
