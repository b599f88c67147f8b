"""The gate in front of every family, as plain ASGI: what no request may be, whoever sends it.

It names every request, refuses what `refusals` says, keeps the number of requests at work within the limits, and
writes one access line for each. It knows no credentials and no routes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from rawr.clock import Clock, UlidSource
from rawr.host.access import AccessLog, Answered
from rawr.host.admission import Admission, Busy
from rawr.host.errors import ErrorBody
from rawr.host.head import EXCHANGE, Exchange, Head, KnownHead, head_of
from rawr.host.patience import Patience
from rawr.host.peers import Peer, TrustedProxies
from rawr.host.refusals import INGRESS_PATH, Refusals, has_body, in_dialect_of
from rawr.host.request import CURRENT_REQUEST, Receive, Request, Scope, Send
from rawr.host.responses import CLOSE, Response
from rawr.host.sending import send_all, sent_at_once
from rawr.host.settings import HostSettings
from rawr.ids import is_request_id

_log: Final = logging.getLogger("rawr.host")

ALIVE_PATH: Final = "/health"
"""Answered as long as the process can answer at all."""

Answer = Callable[[Request], Awaitable[Response]]


class Guard:
    """The ASGI application of a host: checks, then `answer`, then one access line."""

    def __init__(self, answer: Answer, settings: HostSettings, *, clock: Clock, access_log: AccessLog) -> None:
        self._answer = answer
        self._handler_s = settings.limits.handler_s
        self._patience = Patience(settings.limits.handler_s)
        self._refusals = Refusals(settings)
        self._proxies = TrustedProxies(settings.trusted_proxies)
        self._admission = Admission(settings.limits)
        self._clock = clock
        self._started = UlidSource(clock).next()
        self._numbers = itertools.count(1)
        self._access_log = access_log

    def stop(self) -> None:
        """Let no request in any more, but for the engine's own and for who asks whether we are alive."""
        self._admission.is_closed = True

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._admission.idle()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await _no_other_protocol(scope, send)
            return
        started_s = time.perf_counter()
        known, request = self._request(scope, receive)
        outer = CURRENT_REQUEST.set(request)
        is_counted = False
        try:
            response = known.refusal
            if response is None and request.head.peer.address:  # the engine counts its calls itself
                response = self._no_turn(request.head)
                is_counted = response is None
            if response is None:
                response = await self._answered(request)
            if is_counted and response.stream is not None:  # only its beginning counts: streams have their own limit
                self._admission.leave(request.head.peer.address)
                is_counted = False
            if not sent_at_once(response, request):
                await send_all(response, request, send)
        finally:
            if is_counted:
                self._admission.leave(request.head.peer.address)
            CURRENT_REQUEST.reset(outer)
            self._access_log(self._log_entry(request, started_s))

    def _request(self, scope: Scope, receive: Receive) -> tuple[KnownHead, Request]:
        exchange: Exchange | None = scope.get("extensions", _NO_EXTENSIONS).get(EXCHANGE)
        known = KnownHead() if exchange is None else exchange.known
        head = known.head or self._learn(known, scope)
        request_id = known.request_id or f"{self._started}-{next(self._numbers)}"
        return known, Request(
            head=head,
            request_id=request_id,
            correlation_id=known.correlation_id or request_id,
            receive=receive,
            exchange=exchange,
        )

    def _log_entry(self, request: Request, started_s: float) -> Answered:
        return Answered(
            request_id=request.request_id,
            correlation_id=request.correlation_id,
            address=request.head.peer.address,
            method=request.head.method,
            notes=request.notes,
            at_ms=self._clock.now_ms(),
            took_s=time.perf_counter() - started_s,
        )

    def _no_turn(self, head: Head) -> Response | None:
        """Why the request cannot be answered now. None when it may be; then it has taken a place."""
        if self._admission.is_closed and head.path != ALIVE_PATH:
            return _not_now(head, 503, "SERVICE_UNAVAILABLE", "the server is stopping", headers=(CLOSE,))
        busy = self._admission.enter(head.peer.address)
        if busy is None:
            return None
        if busy is Busy.HOST:
            return _not_now(head, 503, "SERVICE_UNAVAILABLE", "the server has as many requests as it may have")
        return _not_now(head, 429, "TOO_MANY_REQUESTS", "your address has as many requests as it may have")

    async def _answered(self, request: Request) -> Response:
        # Calls of the engine last as long as desks work.
        task = None if request.path == INGRESS_PATH else self._patience.begin()
        try:
            return await self._answer(request)
        except asyncio.CancelledError:
            if task is None or not self._patience.has_given_up(task):
                raise
            task.uncancel()
            return self._too_slow(request)
        except Exception:  # noqa: BLE001 - logged with its trace
            # Families turn their own faults into answers; what arrives here broke outside of them.
            _log.exception("request %s failed outside of its family", request.request_id)
            broken = ErrorBody(code="INTERNAL_SERVER_ERROR", status=500, message="Internal server error")
            return in_dialect_of(request.path, broken)
        finally:
            if task is not None:
                self._patience.end(task)

    def _too_slow(self, request: Request) -> Response:
        _log.error("%s took longer than %g s and was given up", request.notes.route, self._handler_s)
        message = f"no answer within {self._handler_s:g} s; what was asked for may have happened all the same"
        given_up = ErrorBody(code="GATEWAY_TIMEOUT", status=504, message=message)
        return msgspec.structs.replace(in_dialect_of(request.path, given_up), headers=(CLOSE,))

    def _learn(self, known: KnownHead, scope: Scope) -> Head:
        client = scope.get("client")
        peer = Peer(address=client[0] if client else "", scheme=scope["scheme"])
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        known.head = head_of(
            method=scope["method"],
            path=raw_path.partition(b"?")[0].decode("latin-1"),
            query=scope["query_string"].decode("latin-1"),
            http_version=scope.get("http_version", "1.1"),
            headers=tuple(scope["headers"]),
            peer_of=lambda fields: self._proxies.caller(peer, fields) if self._proxies and client else peer,
        )
        known.request_id = _given_id(known.head, b"x-request-id")
        known.correlation_id = _given_id(known.head, b"x-correlation-id")
        known.refusal = self._refusals.of(known.head)
        return known.head


_NO_EXTENSIONS: Final[Mapping[str, Any]] = {}


async def _no_other_protocol(scope: Scope, send: Send) -> None:
    if scope["type"] != "websocket":
        raise AssertionError(f"not an HTTP server: {scope['type']}")
    await send({"type": "websocket.close", "code": 1008, "reason": "no websockets here"})


def _given_id(head: Head, name: bytes) -> str | None:
    if name not in head.fields:
        return None
    text = head.fields[name].decode("latin-1").strip()
    return text if is_request_id(text) else None


def _not_now(
    head: Head, status: int, code: str, message: str, *, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> Response:
    response = in_dialect_of(head.path, ErrorBody(code=code, status=status, message=message))
    close = headers or ((CLOSE,) if has_body(head) else ())
    return msgspec.structs.replace(response, headers=(*response.headers, *close))
