"""One HTTP request as the families see it: raw path, headers, and a body that is read late and only once.

The path is never percent-decoded here, so that `..%2fx` stays one segment and a route means what it says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import msgspec

from rawr.errors import BadInputError, RawrError
from rawr.host.access import AccessNotes
from rawr.host.auth import Headers
from rawr.host.head import Exchange, Head
from rawr.procedures.markers import Marks

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class PayloadTooLargeError(RawrError):
    code = "PAYLOAD_TOO_LARGE"


class BodyTimeoutError(RawrError):
    code = "REQUEST_TIMEOUT"


class ClientGoneError(BadInputError):
    """The caller hung up before its body was complete. Nobody will read the answer."""

    code = "CLIENT_CLOSED_REQUEST"


class BodyPace(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a body must arrive at least, on average, and how long that does not count yet."""

    bytes_per_s: int
    grace_s: float


class Request(msgspec.Struct, frozen=True, kw_only=True):
    head: Head
    request_id: str
    correlation_id: str
    receive: Receive
    exchange: Exchange | None = None
    notes: AccessNotes = msgspec.field(default_factory=AccessNotes)
    marks: Marks = msgspec.field(default_factory=Marks)

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def path(self) -> str:
        """As it came over the wire, without the query."""
        return self.head.path

    @property
    def query(self) -> str:
        return self.head.query

    @property
    def headers(self) -> Headers:
        return self.head.headers

    @property
    def address(self) -> str:
        """The caller's, as far as it can be known; empty for a call from within this process."""
        return self.head.peer.address

    @property
    def scheme(self) -> str:
        return self.head.peer.scheme

    def __repr__(self) -> str:
        return f"Request({self.request_id})"  # paths, queries and headers hold secrets

    def header(self, name: bytes) -> str | None:
        return self.head.text(name)

    async def body(self, *, limit_bytes: int, timeout_s: float, pace: BodyPace | None = None) -> bytes:
        """The whole body. Call it once, and only after the caller has been let in.

        It has `timeout_s` to arrive, and must not fall behind its pace: a caller who sends a byte now and then does
        not keep its place for long.

        Raises:
            PayloadTooLargeError: as soon as the body is known to be longer than `limit_bytes`.
            BodyTimeoutError, ClientGoneError: it did not arrive.
        """
        whole = None if self.exchange is None else self.exchange.body()
        if whole is not None and len(whole) <= limit_bytes:
            self.notes.bytes_in = len(whole)
            return whole
        announced = self.header(b"content-length")
        if announced is not None and announced.isdigit() and int(announced[:20]) > limit_bytes:
            raise _too_large(limit_bytes)
        try:
            async with asyncio.timeout(timeout_s if pace is None else min(timeout_s, pace.grace_s)) as patience:
                return await self._received(limit_bytes, _Deadline(patience, timeout_s, pace))
        except TimeoutError as error:
            raise BodyTimeoutError(f"the request body did not arrive within {timeout_s:g} s, or too slowly") from error

    async def _received(self, limit_bytes: int, deadline: _Deadline) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError("the caller closed the connection before its body was complete")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            self.notes.bytes_in = size
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)
            deadline.earned_by(size)


class _Deadline:
    """Moves away as a body arrives, up to the end of its whole time."""

    def __init__(self, patience: asyncio.Timeout, timeout_s: float, pace: BodyPace | None) -> None:
        self._patience = patience
        self._timeout_s = timeout_s
        self._pace = pace
        self._begun_s = asyncio.get_running_loop().time()

    def earned_by(self, size: int) -> None:
        if self._pace is not None:
            earned_s = self._pace.grace_s + size / self._pace.bytes_per_s
            self._patience.reschedule(self._begun_s + min(self._timeout_s, earned_s))


CURRENT_REQUEST: Final[ContextVar[Request | None]] = ContextVar("rawr_request", default=None)
"""The request that the running task answers, for what is logged and begun on its behalf. Each task has its own."""


def _too_large(limit_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the request body is larger than {limit_bytes} bytes", details={"limitBytes": limit_bytes}
    )
