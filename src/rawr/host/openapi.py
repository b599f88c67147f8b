"""`/api/orpc/*`: every procedure by method and path, for holders of an API key, and the document that says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from rawr.host.dispatch import FamilyDeps, OpenApiTable, answered, api_caller, published_answer
from rawr.host.errors import unauthorized
from rawr.host.request import Request
from rawr.host.responses import Response, plain_error
from rawr.procedures.contract import Procedure
from rawr.procedures.openapi import openapi_document
from rawr.security.policy import Family
from rawr.wire import encode

PREFIX: Final = "/api/orpc"
DOCUMENT_PATH: Final = f"{PREFIX}/openapi.json"


class OpenApiFamily:
    def __init__(self, procedures: Iterable[Procedure], deps: FamilyDeps, *, base_url: str) -> None:
        known = tuple(procedures)
        self._table = OpenApiTable(known, part_of=lambda procedure: procedure.namespace)
        self._deps = deps
        self._document = Response(
            status=200,
            content_type=b"application/json; charset=utf-8",
            body=encode(openapi_document(known, server_url=base_url + PREFIX)),
            headers=((b"cache-control", b"no-store"),),
        )

    async def __call__(self, request: Request) -> Response:
        if request.path == DOCUMENT_PATH and request.method in ("GET", "HEAD"):
            return await answered(self._published_document(request), plain_error)
        return await published_answer(
            request,
            self._deps,
            family=Family.ORPC,
            find=lambda: self._table.match(request.method, request.path.removeprefix(PREFIX)),
        )

    async def _published_document(self, request: Request) -> Response:
        """The document, for any API key: no scope is needed to know what there is."""
        caller = await api_caller(request, self._deps)
        return plain_error(unauthorized()) if caller is None else self._document
