"""`/api/orpc/*`: every procedure by method and path, for holders of an API key, and the document that says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rawr.host.dispatch import FamilyDeps, OpenApiTable, PublishedFamily
from rawr.procedures.contract import Procedure
from rawr.procedures.openapi import TITLE, openapi_document
from rawr.security.policy import Family, scope_name
from rawr.wire import JsonValue

PREFIX: Final = "/api/orpc"
DOCUMENT_PATH: Final = f"{PREFIX}/openapi.json"


class OpenApiFamily(PublishedFamily):
    def __init__(self, procedures: Iterable[Procedure], deps: FamilyDeps, *, base_url: str) -> None:
        known = tuple(procedures)
        table = OpenApiTable(known, family=Family.ORPC, part_of=_part)
        super().__init__(
            Family.ORPC,
            deps,
            find=lambda method, path: table.match(method, path.removeprefix(PREFIX)),
            documents={DOCUMENT_PATH: document(known, base_url=base_url)},
        )


def document(procedures: Iterable[Procedure], *, base_url: str) -> dict[str, JsonValue]:
    """What this family publishes."""
    return openapi_document(
        procedures,
        title=TITLE,
        server_url=base_url + PREFIX,
        family=Family.ORPC,
        scope_of=lambda procedure: scope_name(Family.ORPC, _part(procedure)),
    )


def _part(procedure: Procedure) -> str:
    return procedure.namespace
