"""Our connections answer as uvicorn's own do, in fewer writes, and take no head for another."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from tests.host.wire import Wire
from uvicorn.server import ServerState

from rawr.host.connection import Door, protocol
from rawr.host.head import EXCHANGE
from rawr.host.responses import CLOSE, header_lines
from rawr.host.settings import Limits


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers by its path."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message.get("more_body"):
            break
    match scope["path"]:
        case "/pieces":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await send({"type": "http.response.body", "body": b"two"})
        case "/stream":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"one", "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        case "/close":
            await whole(scope, send, b"bye", (b"connection", b"close"), status=503)
        case "/fails":
            raise ZeroDivisionError
        case "/known":
            known = scope["extensions"][EXCHANGE].known
            known.refusal = (known.refusal or 0) + 1
            await whole(scope, send, str(known.refusal).encode())
        case _:
            text = f"{scope['method']} {scope['path']} {body.decode()}".encode()
            await whole(scope, send, text, (b"content-type", b"text/plain"))


async def whole(scope: Any, send: Any, body: bytes, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    """An answer in one piece, where the server takes one."""
    lengthy = (*headers, (b"content-length", str(len(body)).encode()))
    exchange = scope.get("extensions", {}).get(EXCHANGE)
    is_last = CLOSE in headers
    if exchange is None or not exchange.answer(status, header_lines(lengthy), body, is_last=is_last):
        await send({"type": "http.response.start", "status": status, "headers": lengthy})
        await send({"type": "http.response.body", "body": body})


@contextlib.contextmanager
def serving(http: Any) -> Iterator[int]:
    config = uvicorn.Config(
        app, http=http, lifespan="off", ws="none", log_config=None, access_log=False, server_header=False
    )
    server = uvicorn.Server(config)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(60)


def asked(port: int, raw: bytes) -> bytes:
    """Everything that comes back until the server closes, without the time of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(raw)
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return re.sub(rb"date: [^\r]*\r\n", b"", b"".join(parts))


def request(
    path: str, *, method: str = "GET", body: bytes = b"", last: bool = True, version: str = "1.1", more: str = ""
) -> bytes:
    length = f"content-length: {len(body)}\r\n" if body else ""
    close = "connection: close\r\n" if last else ""
    return f"{method} {path} HTTP/{version}\r\nhost: x\r\n{more}{length}{close}\r\n".encode() + body


CASES = {
    "whole": request("/"),
    "a body": request("/", method="POST", body=b"hello"),
    "head": request("/", method="HEAD"),
    "pieces": request("/pieces"),
    "a stream": request("/stream"),
    "a stream by head": request("/stream", method="HEAD"),
    "a close": request("/close", last=False),
    "http 1.0": request("/", version="1.0", last=False),
    "several on one connection": request("/a", last=False) + request("/b", method="POST", body=b"x", last=False)
    + request("/pieces", last=False) + request("/c"),
    "a fault": request("/fails"),
}  # fmt: skip


@pytest.fixture(scope="module")
def ports() -> Iterator[tuple[int, int]]:
    """Of a server with uvicorn's connections, and of one with ours."""
    door = Door(Limits(), lambda response, address: response.body)
    with serving("httptools") as theirs, serving(protocol(door)) as ours:
        yield theirs, ours


@pytest.mark.parametrize("case", sorted(CASES))
def test_an_answer_has_the_same_bytes(ports: tuple[int, int], case: str) -> None:
    theirs, ours = ports
    expected = asked(theirs, CASES[case])
    assert expected.startswith(b"HTTP/1.1 ")
    assert asked(ours, CASES[case]) == expected


def test_what_is_known_of_a_head_holds_for_the_same_head_on_the_same_connection_only(ports: tuple[int, int]) -> None:
    same = request("/known", last=False)
    others = [
        request("/known", method="POST", last=False),
        request("/known?a", last=False),
        request("/known", last=False, more="x-a: 1\r\n"),
        request("/known", last=False, more="x-a: 2\r\n"),
        request("/known", last=False, more="x-a: 2\r\nx-b: 2\r\n"),
        request("/known", last=False, more="x-b: 2\r\nx-a: 2\r\n"),
    ]
    told = [*([same] * 3), *others, same, same, request("/known")]
    seen = [part.rpartition(b"\r\n\r\n")[2] for part in asked(ports[1], b"".join(told)).split(b"HTTP/1.1 ")[1:]]
    assert seen == [b"1", b"2", b"3", *([b"1"] * len(others)), b"1", b"2", b"1"]
    assert asked(ports[1], same + request("/known")).count(b"\r\n\r\n1") == 2


def test_a_whole_answer_is_one_write(ports: tuple[int, int]) -> None:
    with socket.create_connection(("127.0.0.1", ports[1]), timeout=60) as connection:
        connection.sendall(request("/", last=False))
        time.sleep(0)
        first = connection.recv(65536)
        assert first.endswith(b"GET / ")


@pytest.mark.parametrize("path", ["/", "/pieces"])
def test_no_answer_is_piled_up_for_a_caller_that_takes_none(path: str) -> None:
    async def scene() -> None:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False)
        config.load()
        connection, wire = a_connection(config)
        connection.data_received(request(path, last=False))
        await settled()
        first = wire.written
        connection.pause_writing()  # the buffer of the socket is full
        for _ in range(3):
            connection.data_received(request(path, last=False))
            await settled()
        assert wire.written == first
        connection.resume_writing()
        await settled()
        assert wire.written == first * 4
        connection.connection_lost(None)

    asyncio.run(scene())


def test_a_connection_that_is_idle_again_after_a_second_request_is_ended() -> None:
    async def scene() -> None:
        config = uvicorn.Config(app, lifespan="off", ws="none", log_config=None, access_log=False, timeout_keep_alive=1)
        config.load()
        connection, wire = a_connection(config)
        for _ in range(2):
            connection.data_received(request("/", last=False))
            await settled()
            await asyncio.sleep(0.6)
        async with asyncio.timeout(60):
            while not wire.is_closing():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)

    asyncio.run(scene())


def a_connection(config: uvicorn.Config) -> tuple[Any, Wire]:
    door = Door(Limits(), lambda response, address: response.body)
    connection, wire = protocol(door)(config=config, server_state=ServerState(), app_state={}), Wire()
    connection.connection_made(wire)
    return connection, wire


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)
