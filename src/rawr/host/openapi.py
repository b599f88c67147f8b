"""`/api/orpc/*`: every procedure by method and path, for holders of an API key, and the document that says so."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Final

from rawr.host.dispatch import FamilyDeps, OpenApiTable, PublishedDocuments, published_answer
from rawr.host.request import Request
from rawr.host.responses import Response
from rawr.procedures.contract import Procedure
from rawr.procedures.openapi import TITLE, openapi_document
from rawr.security.policy import Family, scope_name
from rawr.wire import JsonValue

PREFIX: Final = "/api/orpc"
DOCUMENT_PATH: Final = f"{PREFIX}/openapi.json"


class OpenApiFamily:
    def __init__(self, procedures: Iterable[Procedure], deps: FamilyDeps, *, base_url: str) -> None:
        known = tuple(procedures)
        self._table = OpenApiTable(known, family=Family.ORPC, part_of=_part)
        self._deps = deps
        self._documents = PublishedDocuments(
            {DOCUMENT_PATH: document(known, base_url=base_url)}, deps, family=Family.ORPC
        )

    def __call__(self, request: Request) -> Awaitable[Response]:
        if self._documents.cover(request):
            return self._documents.answer(request)
        return published_answer(
            request,
            self._deps,
            family=Family.ORPC,
            find=lambda: self._table.match(request.method, request.path.removeprefix(PREFIX)),
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
