"""`/api/inngest`: the runtime ingress. Verifies the signature of a call and hands it to the durable functions.

Every refusal is the same `403 forbidden`, whatever was wrong; only a body over the limit, which takes a fresh
signature to send, is a 413. Development switches of the functions' framework and forwarded headers have no say here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rawr.clock import Clock
from rawr.execution.ports import Ingress, IngressRequest, IngressResponse
from rawr.host.authority import Authority
from rawr.host.dispatch import answered, body_pace
from rawr.host.errors import too_many_requests
from rawr.host.ingress import (
    METHODS,
    Mac,
    Signature,
    has_repeated_header,
    in_window,
    is_signed,
    parse_signature,
    query_fields,
)
from rawr.host.replay import SeenSignatures
from rawr.host.request import Request
from rawr.host.responses import Response, after, forbidden, plain_error
from rawr.host.settings import Limits
from rawr.security.policy import Caller, CallerClass, Family, PrincipalKind, Unproven, Verdict

PATH: Final = "/api/inngest"

_RUNTIME: Final = Caller(caller_class=CallerClass.RUNTIME_INGRESS, principal=PrincipalKind.SERVICE)
_UNSIGNED: Final = Unproven(reason="")

# Set by whoever sends the answer, not by who made it.
_OURS: Final = frozenset({"connection", "content-length", "content-type", "date", "server", "transfer-encoding"})


class IngestFamily:
    def __init__(
        self,
        ingress: Ingress,
        authority: Authority,
        *,
        keys: Sequence[str],
        mac: Mac,
        clock: Clock,
        limits: Limits,
        base_url: str,
    ) -> None:
        self._ingress = ingress
        self._authority = authority
        self._keys = tuple(keys)
        self._mac = mac
        self._clock = clock
        self._limits = limits
        self._url = base_url + PATH
        self._seen = SeenSignatures()

    async def __call__(self, request: Request) -> Response:
        return await answered(self._run(request), plain_error)

    async def _run(self, request: Request) -> Response:
        verified = await self._verified(request)
        found = _UNSIGNED if verified is None else _RUNTIME
        decision = self._authority.decide(request, Family.INGRESS, found)
        if decision.verdict is Verdict.TOO_MANY:
            return after(decision.retry_after_s, plain_error(too_many_requests()))
        if verified is None or not decision.is_admitted:
            return forbidden()
        return _response(await self._ingress.handle(verified))

    async def _verified(self, request: Request) -> IngressRequest | None:
        """The call, if it is signed as it must be. Its body is read only when the signature is fresh."""
        query = query_fields(request.query)
        signature = self._fresh_signature(request)
        if query is None or signature is None:
            return None
        body = await request.body(
            limit_bytes=self._limits.ingress_body_bytes,
            timeout_s=self._limits.body_s,
            pace=body_pace(self._limits),
        )
        is_ours = is_signed(signature, body, self._keys, mac=self._mac)
        if not is_ours or not self._seen.first_use(signature, now_s=self._now_s()):
            return None
        return self._call(request, query, body)

    def _fresh_signature(self, request: Request) -> Signature | None:
        if request.method not in METHODS or has_repeated_header(request.headers):
            return None
        signature = parse_signature(request.headers)
        is_fresh = signature is not None and in_window(signature, now_s=self._now_s())
        return signature if is_fresh else None

    def _now_s(self) -> int:
        return self._clock.now_ms() // 1000

    def _call(self, request: Request, query: Mapping[str, str], body: bytes) -> IngressRequest:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        if "inngest-signature" in headers:
            headers["x-inngest-signature"] = headers.pop("inngest-signature")
        return IngressRequest(
            method=request.method,
            url=self._url,  # from the settings: a Host header must not choose where functions are registered
            query=query,
            headers=headers,
            body=body,
        )


def _response(answer: IngressResponse) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    content_type = headers.get("content-type", "application/json")
    return Response(
        status=answer.status,
        content_type=content_type.encode("latin-1"),
        body=answer.body,
        headers=tuple(
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items() if name not in _OURS
        ),
    )
