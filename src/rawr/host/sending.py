"""An answer on its way out: in one piece where the server takes it so, else as ASGI has it, or as a stream."""

from __future__ import annotations

import asyncio
from typing import Final

from rawr.errors import RawrError
from rawr.host.request import Request, Send
from rawr.host.responses import CLOSE, NO_STORE, ByteStream, HeaderPairs, Response, header_lines


class BrokenHeaderError(RawrError):
    """A header would become two. A fault of ours."""

    code = "BROKEN_HEADER"


def sent_at_once(response: Response, request: Request) -> bool:
    """Send the answer in one piece. False when nothing was sent, because it is not one or the server does not do so."""
    exchange, body = request.exchange, response.body
    if response.stream is not None or exchange is None:
        return False
    if not exchange.answer(response.status, lines_of(response, request), body, is_last=CLOSE in response.headers):
        return False
    notes = request.notes
    notes.status, notes.bytes_out = response.status, len(body)
    return True


async def send_all(response: Response, request: Request, send: Send) -> None:
    """Send the answer, a stream to its end."""
    notes = request.notes
    notes.status = response.status
    headers = [tuple(line.split(b": ", 1)) for line in lines_of(response, request).split(b"\r\n")[:-1]]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is not None:
        await _stream(response.stream, request, send)
        return
    body = b"" if request.method == "HEAD" else response.body
    notes.bytes_out = len(body)
    await send({"type": "http.response.body", "body": body})


def lines_of(response: Response, request: Request) -> bytes:
    """The lines of all headers, as they go over the wire.

    Raises:
        BrokenHeaderError: there would be more lines than headers.
    """
    length, last, count = b"", _NO_STORE, 4 + len(response.protection.pairs)
    if response.stream is None:
        length = b"content-length: %d\r\n" % len(response.body)
        count += 1
    if response.headers:
        more = _with_storing(response.headers)
        last = header_lines(more)
        count += len(more) - 1
    request_id = correlation_id = request.request_id.encode()
    if request.correlation_id is not request.request_id:
        correlation_id = request.correlation_id.encode()
    lines = b"content-type: %b\r\n%b%bx-request-id: %b\r\nx-correlation-id: %b\r\n%b" % (
        response.content_type,
        length,
        response.protection.lines,
        request_id,
        correlation_id,
        last,
    )
    if lines.count(b"\n") != count or lines.count(b"\r") != count:
        raise BrokenHeaderError("a header of an answer has a line break in it")
    return lines


_NO_STORE: Final = header_lines((NO_STORE,))


def _with_storing(headers: HeaderPairs) -> HeaderPairs:
    """The headers, with what is to be said about storing when they do not say it."""
    return headers if any(name == b"cache-control" for name, _ in headers) else (NO_STORE, *headers)


async def _stream(stream: ByteStream, request: Request, send: Send) -> None:
    """Everything the stream gives, until it ends or the caller is gone, which sending alone would not notice."""
    sending = asyncio.create_task(_pieces(stream, request, send))
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


async def _pieces(stream: ByteStream, request: Request, send: Send) -> None:
    if request.method != "HEAD":
        async for piece in stream:
            request.notes.bytes_out += len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
