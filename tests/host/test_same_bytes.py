"""Requests that come again byte for byte are answered as if each had come for the first time."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.host.test_connection import app, request
from tests.host.wire import Wire
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from rawr.host.connection import Door, protocol
from rawr.host.settings import Limits

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
EXPECTING = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc"
POOL = (
    request("/", last=False),
    request("/a", last=False),
    request("/", method="POST", body=b"one", last=False),
    request("/", method="POST", body=b"two", last=False),
    request("/", method="HEAD", last=False),
    request("/pieces", last=False),
    request("/stream", last=False),
    CHUNKED,
    EXPECTING,
    request("/", method="POST", body=b"x" * 9000, last=False),
    request("/"),
    request("/", version="1.0", last=False),
)


async def unhurried(scope: Any, receive: Any, send: Any) -> None:
    """The app of the other tests, which lets others go first: so requests overlap if they may."""

    async def sent(message: Any) -> None:
        await asyncio.sleep(0)
        await send(message)

    await asyncio.sleep(0)
    await app(scope, receive, sent)


async def answers(make: Any, chunks: list[tuple[bytes, bool]]) -> bytes:
    """What is written when these chunks arrive; after those that say so, once everything before is answered."""
    quiet: Any = {"lifespan": "off", "ws": "none", "log_config": None, "access_log": False, "server_header": False}
    config = uvicorn.Config(unhurried, **quiet)
    config.load()
    connection, wire = make(config=config, server_state=ServerState(), app_state={}), Wire()
    connection.connection_made(wire)
    for chunk, is_settled in [*chunks, (b"", True)]:
        if chunk and not wire.is_closing():
            connection.data_received(chunk)
        for _ in range(50 if is_settled else 0):
            await asyncio.sleep(0)
    connection.connection_lost(None)
    return wire.written


@st.composite
def arrivals(draw: st.DrawFn) -> list[tuple[bytes, bool]]:
    """Requests, most of them whole and each for itself, some in pieces or several at once."""
    chunks: list[tuple[bytes, bool]] = []
    for one in draw(st.lists(st.sampled_from(POOL), max_size=10)):
        cut = draw(st.sampled_from([0, 0, 0, 1, len(one) - 1])) or draw(st.sampled_from([0, 0, 0, len(one) // 2]))
        chunks += [(part, draw(st.booleans())) for part in (one[:cut], one[cut:]) if part]
        if len(chunks) > 1 and draw(st.integers(0, 4)) == 0:
            (before, _), (last, is_settled) = chunks[-2:]
            chunks[-2:] = [(before + last, is_settled)]
    return chunks


@given(arrivals())
@example([(POOL[0], True)] * 3)
@example([(POOL[2], True), (POOL[2], True), (POOL[3], True), (POOL[2], True)])
@example([(CHUNKED, True), (CHUNKED, True)])
@example([(EXPECTING, True), (EXPECTING, True)])
@example([(POOL[0], True), (POOL[0][:9], True), (POOL[0][9:], True), (POOL[0], True)])
@example([(POOL[0], False), (POOL[0], False), (POOL[0], True)])
@example([(POOL[0], True), (POOL[0] + POOL[0], True), (POOL[0], True)])
@example([(POOL[6], False), (POOL[6], False), (POOL[5], True)])
@example([(POOL[4], True), (POOL[4], True), (POOL[5], True), (POOL[5], True)])
@settings(max_examples=300, deadline=None)
def test_each_request_is_answered_as_uvicorn_answers_it(chunks: list[tuple[bytes, bool]]) -> None:
    door = Door(Limits(), lambda response, address: response.body)
    theirs = asyncio.run(answers(partial(HttpToolsProtocol), chunks))
    assert asyncio.run(answers(protocol(door), chunks)) == theirs
