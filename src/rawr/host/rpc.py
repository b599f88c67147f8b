"""`/rpc/<namespace>/<procedure>`: the first-party family, oRPC's own envelope, the instance's CLI key.

There is no other transport of procedures below it: `/rpc/workflows/…` leads nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from rawr.host.auth import bearer_secret, label_keeps_rpc, surface_label
from rawr.host.dispatch import FamilyDeps, answered, query_pairs
from rawr.host.orpc_codec import Envelope, MalformedEnvelopeError, decode_envelope, plain
from rawr.host.request import Request
from rawr.host.responses import Response, enveloped, enveloped_error, forbidden, not_found
from rawr.procedures.contract import Procedure, ProcedureFailedError
from rawr.procedures.invoke import check_input, invoke
from rawr.security.policy import Caller, CallerClass, PrincipalKind
from rawr.wire import JsonValue

PREFIX: Final = "/rpc"

_CLI: Final = Caller(caller_class=CallerClass.CLI, principal=PrincipalKind.PERSON)


class RpcFamily:
    def __init__(self, procedures: Iterable[Procedure], deps: FamilyDeps) -> None:
        self._table = {f"{PREFIX}/{procedure.rpc_path}": procedure for procedure in procedures}
        self._deps = deps

    async def __call__(self, request: Request) -> Response:
        if not self._admits(request):
            return forbidden()
        request.notes.caller_class = _CLI.caller_class
        procedure = self._table.get(request.path.removesuffix("/"))
        if procedure is None:
            return not_found()
        request.notes.operation = procedure.rpc_path
        return await answered(self._run(request, procedure), enveloped_error)

    def _admits(self, request: Request) -> bool:
        secret = bearer_secret(request.headers)
        is_ours = secret is not None and self._deps.credentials.is_cli_key(secret)
        return is_ours and label_keeps_rpc(surface_label(request.headers))

    async def _run(self, request: Request, procedure: Procedure) -> Response:
        envelope = await self._envelope(request)
        if request.method == "GET" and procedure.method != "GET":
            # After decoding and before validation, as oRPC does it.
            raise ProcedureFailedError("METHOD_NOT_SUPPORTED", 405, "Method Not Supported")
        value = _json_input(procedure, envelope)
        return enveloped(await invoke(procedure, self._deps.context(request, _CLI), value))

    async def _envelope(self, request: Request) -> Envelope:
        if request.method == "GET":
            data = [value for name, value in query_pairs(request.query) if name == "data"]
            return decode_envelope(data[-1].encode()) if data and data[-1] else Envelope()
        content_type = (request.header(b"content-type") or "").lower()
        body = await self._deps.read(request)
        if content_type.startswith("multipart/form-data"):
            raise MalformedEnvelopeError("multipart bodies are not accepted: no procedure takes files")
        is_json = not content_type or content_type.startswith("application/json")
        if not is_json or request.header(b"content-disposition") is not None or not body:
            return Envelope()  # a file, a form or a text has no `json` in it
        return decode_envelope(body)


def _json_input(procedure: Procedure, envelope: Envelope) -> JsonValue | msgspec.UnsetType:
    """The input in plain JSON. Tagged places fit only where the schema takes anything."""
    if not envelope.is_tagged:
        return envelope.value
    check_input(procedure, envelope.value)
    return plain(envelope.value)
