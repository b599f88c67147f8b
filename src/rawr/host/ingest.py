"""`/api/inngest`: the runtime ingress. Verifies the signature of a call and hands it to the durable functions.

Every refusal is the same `403 forbidden`, whatever was wrong. Development switches of the functions' framework
have no say here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl

from rawr.clock import Clock
from rawr.execution.ports import Ingress, IngressRequest, IngressResponse
from rawr.host.dispatch import answered
from rawr.host.ingress import METHODS, Mac, Signature, in_window, is_signed, parse_signature
from rawr.host.request import Request
from rawr.host.responses import Response, forbidden, plain_error
from rawr.host.settings import Limits
from rawr.security.policy import CallerClass

PATH: Final = "/api/inngest"

# Set by whoever sends the answer, not by who made it.
_OURS: Final = frozenset({"connection", "content-length", "content-type", "date", "server", "transfer-encoding"})


class IngestFamily:
    def __init__(
        self, ingress: Ingress, *, keys: Sequence[str], mac: Mac, clock: Clock, limits: Limits, base_url: str
    ) -> None:
        self._ingress = ingress
        self._keys = tuple(keys)
        self._mac = mac
        self._clock = clock
        self._limits = limits
        self._url = base_url + PATH

    async def __call__(self, request: Request) -> Response:
        return await answered(self._run(request), plain_error)

    async def _run(self, request: Request) -> Response:
        signature = self._fresh_signature(request)
        if signature is None:
            return forbidden()  # without reading the body
        body = await request.body(limit_bytes=self._limits.ingress_body_bytes, timeout_s=self._limits.body_s)
        if not is_signed(signature, body, self._keys, mac=self._mac):
            return forbidden()
        request.notes.caller_class = CallerClass.RUNTIME_INGRESS
        return _response(await self._ingress.handle(self._verified(request, body)))

    def _fresh_signature(self, request: Request) -> Signature | None:
        signature = parse_signature(request.headers) if request.method in METHODS else None
        is_fresh = signature is not None and in_window(signature, now_s=self._clock.now_ms() // 1000)
        return signature if is_fresh else None

    def _verified(self, request: Request, body: bytes) -> IngressRequest:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers}
        if "inngest-signature" in headers:
            headers["x-inngest-signature"] = headers.pop("inngest-signature")
        return IngressRequest(
            method=request.method,
            url=self._url,  # from the settings: a Host header must not choose where functions are registered
            query=dict(parse_qsl(request.query, keep_blank_values=True)),
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
