"""`/api/workflows/<capability>/*`: the caller-facing workflow boundaries, one per capability of the manifest.

A capability serves its own procedures and nothing else; another namespace below it does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rawr.host.dispatch import FamilyDeps, Match, OpenApiTable, published_answer
from rawr.host.request import Request
from rawr.host.responses import Response
from rawr.procedures.contract import Capability
from rawr.security.policy import Family

PREFIX: Final = "/api/workflows"


class WorkflowsFamily:
    def __init__(self, capabilities: Iterable[Capability], deps: FamilyDeps) -> None:
        self._tables = {capability.path_prefix: _table(capability) for capability in capabilities}
        self._deps = deps

    async def __call__(self, request: Request) -> Response:
        return await published_answer(
            request, self._deps, family=Family.WORKFLOWS, find=lambda: self._match(request.method, request.path)
        )

    def _match(self, method: str, path: str) -> Match | None:
        below = path.removeprefix(PREFIX)
        for prefix, table in self._tables.items():
            if below.startswith(f"{prefix}/"):
                return table.match(method, below)
        return None


def _table(capability: Capability) -> OpenApiTable:
    return OpenApiTable(capability.procedures, part_of=lambda _: capability.name)
