"""The gate in front of every family, as plain ASGI: what no request may be, whoever sends it.

It refuses websockets, a missing, doubled or foreign Host header, oversized headers and ambiguous lengths; it
names every request, and writes one access line for each. It knows no credentials and no routes.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from rawr.clock import Clock, UlidSource
from rawr.host.auth import Headers, header_text, header_values
from rawr.host.errors import ErrorBody
from rawr.host.request import AccessNotes, Receive, Request, Scope, Send
from rawr.host.responses import ByteStream, Response, plain_error, text_response
from rawr.host.settings import HostSettings
from rawr.wire import iso_from_ms

_log: Final = logging.getLogger("rawr.host")

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::[0-9]{1,5})?\Z")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}\Z")

Answer = Callable[[Request], Awaitable[Response]]
AccessLog = Callable[[Mapping[str, object]], None]


class Guard:
    """The ASGI application of a host: checks, then `answer`, then one access line."""

    def __init__(self, answer: Answer, settings: HostSettings, *, clock: Clock, access_log: AccessLog) -> None:
        self._answer = answer
        self._settings = settings
        self._hosts = settings.allowed_hosts
        self._clock = clock
        self._ids = UlidSource(clock)
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        match scope["type"]:
            case "http":
                await self._http(scope, receive, send)
            case "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})
            case _:
                raise AssertionError(f"not an HTTP server: {scope['type']}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request = self._request(scope, receive)
        response = refusal(request, self._settings, self._hosts) or await self._safe_answer(request)
        try:
            await _send(response, request, send)
        finally:
            self._access_log(self._access_line(request, response.status, started))

    async def _safe_answer(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except Exception:  # noqa: BLE001 - logged with its trace
            # Families turn their own faults into answers; what arrives here broke outside of them.
            _log.exception("request %s failed outside of its family", request.request_id)
            return plain_error(ErrorBody(code="INTERNAL_SERVER_ERROR", status=500, message="Internal server error"))

    def _request(self, scope: Scope, receive: Receive) -> Request:
        headers: Headers = tuple(scope["headers"])
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        request_id = _given_id(headers, b"x-request-id") or self._ids.next()
        return Request(
            method=scope["method"],
            path=raw_path.partition(b"?")[0].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            headers=headers,
            request_id=request_id,
            correlation_id=_given_id(headers, b"x-correlation-id") or request_id,
            receive=receive,
            notes=AccessNotes(),
            address=(scope.get("client") or ("",))[0],
            scheme=scope.get("scheme", "http"),
        )

    def _access_line(self, request: Request, status: int, started: float) -> dict[str, object]:
        """What the log keeps of a request. Paths, queries, headers and bodies may hold secrets and stay out."""
        elapsed_s = time.perf_counter() - started
        return {
            "ts": iso_from_ms(self._clock.now_ms()),
            "requestId": request.request_id,
            "correlationId": request.correlation_id,
            "method": request.method,
            "family": request.notes.family,
            "operation": request.notes.operation,
            "status": status,
            "durationMs": round(elapsed_s * 1000, 2),
            "caller": request.notes.caller_class.value,
        }


def refusal(request: Request, settings: HostSettings, hosts: frozenset[str]) -> Response | None:
    """Why this request goes no further, or None when it may."""
    limits = settings.limits
    size = sum(len(name) + len(value) for name, value in request.headers)
    if len(request.headers) > limits.header_count or size > limits.header_bytes:
        return text_response(431, "request header fields too large", headers=((b"connection", b"close"),))
    if not _is_for_us(request.headers, hosts):
        return text_response(421, "misdirected request")
    lengths = header_values(request.headers, b"content-length")
    has_chunks = bool(header_values(request.headers, b"transfer-encoding"))
    if len(lengths) > 1 or (lengths and has_chunks):
        return text_response(400, "ambiguous request length", headers=((b"connection", b"close"),))
    return None


def _is_for_us(headers: Headers, hosts: frozenset[str]) -> bool:
    """Whether the one Host header names us. Forwarded headers are not looked at: anybody can send them."""
    given = header_values(headers, b"host")
    match = _HOST.match(given[0]) if len(given) == 1 else None
    return match is not None and (match[1] or match[2]).decode().lower() in hosts


def _given_id(headers: Headers, name: bytes) -> str | None:
    text = header_text(headers, name)
    return text if text is not None and _REQUEST_ID.match(text) is not None else None


async def _send(response: Response, request: Request, send: Send) -> None:
    length = () if response.stream is not None else ((b"content-length", str(len(response.body)).encode()),)
    headers = [
        (b"content-type", response.content_type),
        *length,
        (b"x-content-type-options", b"nosniff"),
        (b"x-request-id", request.request_id.encode()),
        (b"x-correlation-id", request.correlation_id.encode()),
        *response.headers,
    ]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is not None:
        await _send_stream(response.stream, request, send)
        return
    body = b"" if request.method == "HEAD" else response.body
    await send({"type": "http.response.body", "body": body})


async def _send_stream(stream: ByteStream, request: Request, send: Send) -> None:
    """Everything the stream gives, until it ends or the caller is gone. Sending alone would not notice the latter."""
    sending = asyncio.create_task(_send_pieces(stream, request, send))
    gone = asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        has_ended = sending.done()
        sending.cancel()
        gone.cancel()
        await asyncio.wait({sending, gone})
        await stream.aclose()
    if has_ended:
        await sending  # for its fault, if it had one


async def _send_pieces(stream: ByteStream, request: Request, send: Send) -> None:
    if request.method != "HEAD":
        async for piece in stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
