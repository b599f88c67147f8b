"""One HTTP request as the families see it: raw path, headers, and a body that is read late and only once.

The path is never percent-decoded here, so that `..%2fx` stays one segment and a route means what it says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from rawr.errors import BadInputError, RawrError
from rawr.host.auth import Headers, header_text
from rawr.procedures.markers import Marks
from rawr.security.policy import CallerClass

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


class AccessNotes(msgspec.Struct, kw_only=True):
    """What a family learns about a request while it answers; the access log reads it afterwards."""

    family: str = "none"
    caller_class: CallerClass = CallerClass.UNLABELED
    operation: str | None = None


class Request(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str
    """As it came over the wire, without the query."""
    query: str
    headers: Headers
    request_id: str
    correlation_id: str
    receive: Receive
    notes: AccessNotes
    address: str = ""
    """Of who is connected; empty where nobody is, as in process."""
    scheme: str = "http"
    marks: Marks = msgspec.field(default_factory=Marks)

    def __repr__(self) -> str:
        return f"Request({self.request_id})"  # paths, queries and headers hold secrets

    def header(self, name: bytes) -> str | None:
        return header_text(self.headers, name)

    async def body(self, *, limit_bytes: int, timeout_s: float) -> bytes:
        """The whole body. Call it once, and only after the caller has been let in.

        Raises:
            PayloadTooLargeError: as soon as the body is known to be longer than `limit_bytes`.
            BodyTimeoutError, ClientGoneError: it did not arrive.
        """
        announced = self.header(b"content-length")
        if announced is not None and announced.isdigit() and int(announced[:20]) > limit_bytes:
            raise _too_large(limit_bytes)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._received(limit_bytes)
        except TimeoutError as error:
            raise BodyTimeoutError(f"the request body did not arrive within {timeout_s:g} s") from error

    async def _received(self, limit_bytes: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError("the caller closed the connection before its body was complete")
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > limit_bytes:
                raise _too_large(limit_bytes)
            chunks.append(chunk)
            if not message.get("more_body", False):
                return b"".join(chunks)


def _too_large(limit_bytes: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(
        f"the request body is larger than {limit_bytes} bytes", details={"limitBytes": limit_bytes}
    )
