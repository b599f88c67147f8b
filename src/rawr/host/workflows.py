"""`/api/workflows/<capability>/*`: the caller-facing workflow boundaries, one per capability of the manifest.

A capability serves its own procedures and nothing else; another namespace below it does not exist. There is a
document of all of them, and one of each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from rawr.host.dispatch import FamilyDeps, Match, OpenApiTable, PublishedFamily
from rawr.procedures.contract import Capability, Procedure
from rawr.procedures.openapi import openapi_document
from rawr.security.policy import Family, scope_name
from rawr.wire import JsonValue

PREFIX: Final = "/api/workflows"
TITLE: Final = "RAWR HQ workflows API"


class WorkflowsFamily(PublishedFamily):
    def __init__(self, capabilities: Iterable[Capability], deps: FamilyDeps, *, base_url: str) -> None:
        known = tuple(capabilities)
        self._tables = {capability.path_prefix: _table(capability) for capability in known}
        super().__init__(Family.WORKFLOWS, deps, find=self._match, documents=_documents(known, base_url))

    def _match(self, method: str, path: str) -> Match | None:
        below = path.removeprefix(PREFIX)
        for prefix, table in self._tables.items():
            if below.startswith(f"{prefix}/"):
                return table.match(method, below)
        return None


def document(capabilities: Sequence[Capability], *, base_url: str) -> dict[str, JsonValue]:
    """What the boundaries of these capabilities publish."""
    scopes = {
        procedure.rpc_path: scope_name(Family.WORKFLOWS, capability.name)
        for capability in capabilities
        for procedure in capability.procedures
    }
    return openapi_document(
        _procedures(capabilities),
        title=TITLE,
        server_url=base_url + PREFIX,
        family=Family.WORKFLOWS,
        scope_of=lambda procedure: scopes[procedure.rpc_path],
    )


def _documents(capabilities: Sequence[Capability], base_url: str) -> dict[str, JsonValue]:
    of_each = {
        f"{PREFIX}{capability.path_prefix}/openapi.json": document((capability,), base_url=base_url)
        for capability in capabilities
    }
    return {f"{PREFIX}/openapi.json": document(capabilities, base_url=base_url), **of_each}


def _procedures(capabilities: Iterable[Capability]) -> Iterable[Procedure]:
    return (procedure for capability in capabilities for procedure in capability.procedures)


def _table(capability: Capability) -> OpenApiTable:
    return OpenApiTable(capability.procedures, family=Family.WORKFLOWS, part_of=lambda _: capability.name)
