"""No header of an answer becomes two, whoever put it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.host.head import head_of
from rawr.host.peers import Peer
from rawr.host.request import Request
from rawr.host.responses import Response
from rawr.host.sending import BrokenHeaderError, lines_of, send_all

Messages = list[dict[str, Any]]


async def nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def request(request_id: str = "r-1", correlation_id: str = "c-1") -> Request:
    peer = Peer(address="127.0.0.1", scheme="http")
    head = head_of(method="GET", path="/", query="", http_version="1.1", headers=(), peer_of=lambda _: peer)
    return Request(head=head, request_id=request_id, correlation_id=correlation_id, receive=nothing)


def response(*headers: tuple[bytes, bytes], content_type: bytes = b"text/plain") -> Response:
    return Response(status=200, content_type=content_type, body=b"body", headers=headers)


@pytest.mark.parametrize("broken", ["\n", "\r", "\r\n", "x\r\nset-cookie: a=b", "x\nset-cookie: a=b", "x\n\r"])
@pytest.mark.parametrize(
    "place",
    [
        lambda text: lines_of(response((b"location", text.encode())), request()),
        lambda text: lines_of(response((text.encode(), b"x")), request()),
        lambda text: lines_of(response(content_type=text.encode()), request()),
        lambda text: lines_of(response(), request(request_id=text)),
        lambda text: lines_of(response(), request(correlation_id=text)),
    ],
)
def test_a_line_break_in_a_header_is_a_fault_and_not_a_second_header(
    place: Callable[[str], bytes], broken: str
) -> None:
    with pytest.raises(BrokenHeaderError):
        place(broken)


NAME = st.from_regex(rb"[a-z][a-z-]{0,9}", fullmatch=True)
VALUE = st.from_regex(rb"[!-~]([ -~]{0,18}[!-~])?", fullmatch=True)


@given(st.lists(st.tuples(NAME, VALUE), max_size=5))
def test_every_header_is_sent_once_as_it_was_given(given_headers: list[tuple[bytes, bytes]]) -> None:
    sent: Messages = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(send_all(response(*given_headers), request(), send))
    headers = sent[0]["headers"]
    assert headers[len(headers) - len(given_headers) :] == given_headers
    assert headers[:2] == [(b"content-type", b"text/plain"), (b"content-length", b"4")]
