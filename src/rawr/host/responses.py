"""Answers as values, in the exact shapes that the published families promise. Sends nothing itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from typing import Final, Protocol

import msgspec

from rawr.host.errors import ErrorBody
from rawr.host.orpc_codec import encode_envelope
from rawr.host.rpc_protocol import ErrorOfV2, RpcProtocol
from rawr.wire import encode

JSON: Final = b"application/json"
TEXT: Final = b"text/plain;charset=utf-8"

HeaderPairs = tuple[tuple[bytes, bytes], ...]


class SharedHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """Headers that many answers have, and their lines as they go over the wire."""

    pairs: HeaderPairs
    lines: bytes


def header_lines(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % pair for pair in pairs])


def shared(*pairs: tuple[bytes, bytes]) -> SharedHeaders:
    return SharedHeaders(pairs=pairs, lines=header_lines(pairs))


PROTECTION: Final = shared(
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""What a browser must not do with an answer that is data. Pages have their own."""
NO_STORE: Final = (b"cache-control", b"no-store")
CLOSE: Final = (b"connection", b"close")


class ByteStream(Protocol):
    """Pieces of a body as they come. To be closed, however many were taken."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Response(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    content_type: bytes
    body: bytes
    headers: HeaderPairs = ()
    protection: SharedHeaders = PROTECTION
    stream: ByteStream | None = None
    """What follows `body`, without an end in sight."""


def text_response(status: int, text: str, *, headers: HeaderPairs = ()) -> Response:
    return Response(status=status, content_type=TEXT, body=text.encode(), headers=headers)


def json_response(value: object, *, status: int = 200, headers: HeaderPairs = ()) -> Response:
    return Response(status=status, content_type=JSON, body=encode(value), headers=headers)


def not_found() -> Response:
    """A family's own 404: the path is below it, and leads to nothing."""
    return text_response(404, "not found")


def forbidden() -> Response:
    return text_response(403, "forbidden")


def enveloped(value: object, protocol: RpcProtocol = RpcProtocol.V1) -> Response:
    return Response(status=200, content_type=JSON, body=encode_envelope(value, protocol))


def enveloped_error(error: ErrorBody, protocol: RpcProtocol = RpcProtocol.V1) -> Response:
    body = encode_envelope(error_in(error, protocol), protocol)
    return Response(status=error.status, content_type=JSON, body=body, headers=advice(error))


def error_in(error: ErrorBody, protocol: RpcProtocol) -> ErrorBody | ErrorOfV2:
    if protocol is RpcProtocol.V1:
        return error
    return ErrorOfV2(defined=error.defined, code=error.code, message=error.message, data=error.data)


def plain_error(error: ErrorBody) -> Response:
    return json_response(error, status=error.status, headers=advice(error))


def after(seconds: int, response: Response) -> Response:
    """The response, and when to come again."""
    others = (pair for pair in response.headers if pair[0] != b"retry-after")
    return msgspec.structs.replace(response, headers=(*others, (b"retry-after", str(seconds).encode())))


def event_stream(stream: ByteStream, *, status: int = 200) -> Response:
    return streamed(stream, b"text/event-stream", status=status)


def streamed(stream: ByteStream, content_type: bytes, *, status: int) -> Response:
    return Response(status=status, content_type=content_type, body=b"", headers=_UNBUFFERED, stream=stream)


_UNBUFFERED: Final = ((b"x-accel-buffering", b"no"),)
"""A proxy in front of us passes events on as they come."""


def advice(error: ErrorBody) -> HeaderPairs:
    """What a client should do about the error, in headers."""
    match error.status:
        case 401:
            return ((b"www-authenticate", b"Bearer"),)
        case 408 | 413:
            # The rest of a body that was refused half-way must not be read as the next request.
            return (CLOSE,)
        case 429 | 503:
            return ((b"retry-after", b"1"),)
        case _:
            return ()
