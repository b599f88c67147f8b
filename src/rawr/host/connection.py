"""One connection of the server: what happens before there is a request, and when there is no good one.

The parser refuses what is ambiguous (bare line feeds, folded or doubled lengths, bad chunks). This adds what it
leaves open: targets that are no path, trailers, time and room for a head, connections per address, and callers that
stop reading. Whatever is refused here ends the connection, because nobody can say where the next request begins.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from rawr.host.head import EXCHANGE, KnownHead
from rawr.host.responses import Response, header_lines, text_response
from rawr.host.settings import Limits

URL_BYTES_MAX: Final = 60_000
"""The parser of URLs ends at 64 KiB. What is shorter and still too long is refused by the guard."""
FRAMING_BYTES_MAX: Final = 1 << 20
"""What one request may have besides its content: heads, sizes of chunks, trailers. Keeps the parser's memory small."""
UNREAD_BODY_BYTES_MAX: Final = 256 << 10
"""How much of a body that nobody wants is taken, so that the next request on the connection can follow."""

SAME_BYTES_MAX: Final = 8 << 10
"""A longer request is parsed also when it is the same as the one before. It is kept as long as its connection."""

BAD_REQUEST: Final = text_response(400, "not a valid HTTP request")
BAD_TARGET: Final = text_response(400, "the target of a request must be a path")
BAD_VERSION: Final = text_response(400, "only HTTP/1.1 and HTTP/1.0 are spoken here")
NO_TRAILERS: Final = text_response(400, "trailers are not taken")
URL_TOO_LONG: Final = text_response(414, "the URL is too long")
HEAD_TOO_LARGE: Final = text_response(431, "request header fields too large")
HEAD_TOO_SLOW: Final = text_response(408, "the head of the request did not arrive in time")
_AGAIN: Final = ((b"retry-after", b"1"),)
HOST_IS_FULL: Final = text_response(503, "the server has as many connections as it may have", headers=_AGAIN)
ADDRESS_IS_FULL: Final = text_response(429, "your address has as many connections as it may have", headers=_AGAIN)


class RefusalLog(Protocol):
    """Writes down a refusal; the bytes to send for it, with an id of its own."""

    def __call__(self, response: Response, *, address: str) -> bytes: ...


class Door:
    """What the connections of one server share."""

    def __init__(self, limits: Limits, refusal: RefusalLog) -> None:
        self.limits = limits
        self.refusal = refusal
        self._by_address: Counter[str] = Counter()
        self._count = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._lines = b""

    def enter(self, address: str) -> Response | None:
        """Count a connection; why it has to go again at once, or None. Each is to leave, also a refused one."""
        self._by_address[address] += 1
        self._count += 1
        if self._count > self.limits.connections:
            return HOST_IS_FULL
        return ADDRESS_IS_FULL if self._by_address[address] > self.limits.connections_per_address else None

    def lines_of(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """The lines of the headers that all answers have. They are the same list for as long as they are the same."""
        if headers is not self._headers:
            self._headers, self._lines = headers, header_lines(headers)
        return self._lines

    def leave(self, address: str) -> None:
        self._count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]


class _RefusedError(Exception):
    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Connection(HttpToolsProtocol):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._door = door
        self._address = ""
        self._answering: RequestResponseCycle | None = None
        self._looks: tuple[object, ...] = ()
        self._known = KnownHead()
        self._in_head = self._in_request = False
        self._requests_taken = 0
        self._last_request = self._last_body = b""
        """What came last, if it was one whole request, and the body in it."""
        self._framing_bytes = 0
        self._unread_bytes = 0
        self._is_over = False
        self._idle_since_s: float | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as in our base class
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        response = self._door.enter(self._address)
        if response is not None:
            self._refuse(response)
            return
        self.timeout_keep_alive_task = self.loop.call_later(self._door.limits.head_s, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.leave(self._address)
        self._is_over = True
        self._unset_keepalive_if_required()
        for timer in (self._idle_timer, self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        if self._answering is not None:  # our base class tells only the last of several requests
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_over:
            return
        self._idle_since_s = None
        if data == self._last_request and self._awaits_request():
            self._take_again()
            return
        self._framing_bytes += len(data)
        self._last_request = b""
        is_begun, self._requests_taken = self._in_request, 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_over = True  # the guard refuses the request; what follows is in another protocol
            self.cycle.keep_alive = False
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.response if isinstance(cause, _RefusedError) else BAD_REQUEST)
        else:
            if self._framing_bytes > FRAMING_BYTES_MAX:
                self._refuse(HEAD_TOO_LARGE)
            elif self._in_head and self._head_timer is None:
                self._head_timer = self.loop.call_later(self._door.limits.head_s, self._refuse, HEAD_TOO_SLOW)
            elif not is_begun and self._requests_taken == 1 and not self._in_request:
                self._remember(data)

    def _remember(self, data: bytes) -> None:
        """`data` was one request, no more and no less."""
        cycle = self.cycle
        if len(data) <= SAME_BYTES_MAX and cycle.keep_alive and not cycle.waiting_for_100_continue:
            self._last_request, self._last_body = data, bytes(cycle.body)

    def _awaits_request(self) -> bool:
        return self.cycle.response_complete and not self._in_request and not self.transport.is_closing()

    def _take_again(self) -> None:
        """Take the request that came last once more: the same bytes came again, and say the same."""
        self._framing_bytes = self._unread_bytes = 0
        self.scope = self.scope.copy()
        self.scope["state"] = self.app_state.copy()
        cycle = self.cycle = RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=True,
            on_response=self.on_response_complete,
        )
        self.scope["extensions"] = {EXCHANGE: _Exchange(cycle, self._known, self._door)}  # type: ignore[dict-item]
        cycle.body += self._last_body
        cycle.more_body = False
        cycle.message_event.set()
        self._start_asgi_task(cycle, self.app)

    def on_message_begin(self) -> None:
        self._unset_keepalive_if_required()
        self._in_head = self._in_request = True
        self._framing_bytes = self._unread_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > URL_BYTES_MAX:
            raise _RefusedError(URL_TOO_LONG)

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        if not self.url.startswith(b"/") or b"#" in self.url:
            raise _RefusedError(BAD_TARGET)
        if self.parser.get_http_version() not in ("1.1", "1.0"):
            raise _RefusedError(BAD_VERSION)
        super().on_headers_complete()
        # The types of ASGI have extensions of dicts only.
        self.scope["extensions"] = {EXCHANGE: _Exchange(self.cycle, self._known_head(), self._door)}  # type: ignore[dict-item]
        self.headers = []  # for trailers, which would otherwise join the headers that the request has

    def _known_head(self) -> KnownHead:
        """What is known of this head, if it is that of the request before."""
        scope = self.scope
        looks = (scope["method"], self.url, scope["http_version"], self.headers)
        if looks != self._looks:
            self._looks, self._known = looks, KnownHead()
        return self._known

    def on_message_complete(self) -> None:
        if self.headers:
            raise _RefusedError(NO_TRAILERS)
        self._in_request = False
        self._requests_taken += 1
        super().on_message_complete()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes -= len(body)
        if self.cycle.response_complete:
            self._unread_bytes += len(body)
            if self._unread_bytes > UNREAD_BODY_BYTES_MAX:
                self.transport.close()
        super().on_body(body)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def shutdown(self) -> None:
        """End after the answer that is under way, at once when there is none."""
        super().shutdown()
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.keep_alive = False

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def on_response_complete(self) -> None:
        if self.pipeline or self.transport.is_closing():
            super().on_response_complete()
            return
        # Our base class sets a timer after each answer and takes it back with the next request.
        self.server_state.total_requests += 1
        self.flow.resume_reading()
        self._idle_since_s = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._end_if_idle)

    def _end_if_idle(self) -> None:
        self._idle_timer = None
        if self._idle_since_s is None:
            return  # a request is under way, and its answer begins anew
        left_s = self._idle_since_s + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._end_if_idle)
        else:
            self.timeout_keep_alive_handler()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_writing(self.transport.get_write_buffer_size())

    def _watch_writing(self, unsent_bytes: int) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
        if unsent_bytes:
            self._write_timer = self.loop.call_later(self._door.limits.idle_s, self._end_if_stuck, unsent_bytes)

    def _end_if_stuck(self, unsent_before: int) -> None:
        """Let go of a caller that takes nothing of what we have for it."""
        unsent = self.transport.get_write_buffer_size()
        if unsent >= unsent_before:
            self.transport.abort()
        else:
            self._watch_writing(unsent)

    def _refuse(self, response: Response) -> None:
        """End the connection, with `response` where that cannot be taken for a part of another answer."""
        self._is_over = True
        answering = self._answering
        if self.transport.is_closing():
            return
        if answering is None or answering.response_complete:
            self._close_with(response)
        elif not answering.more_body:
            answering.keep_alive = False  # what is wrong came after this request, which gets its answer
            self.pipeline.clear()
        elif answering.response_started:
            self.transport.close()
        else:
            answering.disconnected = True
            answering.message_event.set()
            self._close_with(response)

    def _close_with(self, response: Response) -> None:
        self.transport.write(self._door.refusal(response, address=self._address))
        self.transport.close()


class _Exchange:
    """One request and its answer, each in one piece.

    uvicorn writes head and body one after the other and searches every header for what cannot be in ours; that is a
    third of what a small answer costs.
    """

    __slots__ = ("_cycle", "_door", "known")

    def __init__(self, cycle: RequestResponseCycle, known: KnownHead, door: Door) -> None:
        self._cycle = cycle
        self._door = door
        self.known = known

    def body(self) -> bytes | None:
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.response_complete or cycle.waiting_for_100_continue:
            return None
        return bytes(cycle.body)

    def answer(self, status: int, headers: bytes, body: bytes, *, is_last: bool) -> bool:
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.flow.write_paused or cycle.scope["method"] == "HEAD":
            return False
        ours, last = self._door.lines_of(cycle.default_headers), b""
        if is_last:
            cycle.keep_alive = False
        elif not cycle.keep_alive:
            last = b"connection: close\r\n"
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        cycle.transport.write(b"%b%b%b%b\r\n%b" % (STATUS_LINE[status], ours, headers, last, body))
        cycle.message_event.set()
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()
        return True


def protocol(door: Door) -> Callable[..., Connection]:
    """What the server makes its connections with."""

    def connection(**given: Any) -> Connection:
        return Connection(**given, door=door)

    return connection
