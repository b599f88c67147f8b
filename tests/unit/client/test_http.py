"""The caller of a running HQ, against servers that behave in every way."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from rawr.client.http import (
    HqClient,
    RemoteError,
    ServerAnswerError,
    ServerNotRunningError,
    ServerTimeoutError,
)

KEY = "k" * 64


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    name: str


@contextmanager
def answering(*answers: bytes, hang: bool = False) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives each connection the next answer, whatever it asks."""
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    asked.append(_read_request(connection))
                    if hang:
                        connection.recv(1)
                    connection.sendall(answer)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        thread.join(10)


def _read_request(connection: socket.socket) -> bytes:
    raw = b""
    while b"\r\n\r\n" not in raw:
        raw += connection.recv(65536)
    head, _, body = raw.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def response(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return head.encode() + b"connection: close\r\n\r\n" + body


def call(base_url: str) -> Thing:
    return HqClient(base_url, KEY, timeout_s=2).call("coordination/getThing", {"thingId": "a"}, Thing)


def test_a_call_sends_its_input_in_an_envelope_with_the_key() -> None:
    with answering(response(200, b'{"json":{"name":"x"}}')) as (url, asked):
        assert call(url) == Thing(name="x")
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /rpc/coordination/getThing HTTP/1.1\r\n")
    assert f"authorization: Bearer {KEY}".encode() in head
    assert body == b'{"json":{"thingId":"a"}}'


def test_an_error_of_the_server_comes_back_with_its_code_status_and_data() -> None:
    error = (
        b'{"json":{"defined":false,"code":"RUN_NOT_FOUND","status":404,"message":"run not found","data":{"runId":"r"}}}'
    )
    with answering(response(404, error)) as (url, _), pytest.raises(RemoteError) as raised:
        call(url)
    assert (raised.value.code, raised.value.status, raised.value.data) == ("RUN_NOT_FOUND", 404, {"runId": "r"})
    assert raised.value.message == "run not found"
    assert RemoteError.code == "REMOTE_ERROR"


@pytest.mark.parametrize(
    ("status", "text", "code"),
    [
        (403, b"forbidden", "FORBIDDEN"),
        (404, b"not found", "NOT_FOUND"),
        (421, b"misdirected request", "MISDIRECTED_REQUEST"),
    ],
)
def test_the_plain_refusals_have_codes(status: int, text: bytes, code: str) -> None:
    with answering(response(status, text, "text/plain")) as (url, _), pytest.raises(RemoteError) as raised:
        call(url)
    assert (raised.value.code, raised.value.status) == (code, status)


def test_nothing_listening_is_server_not_running_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ServerNotRunningError) as raised:
        call(url)
    assert raised.value.fix == "rawr up"


def test_a_server_that_dies_during_the_call_is_server_not_running() -> None:
    with answering(b"") as (url, _), pytest.raises(ServerNotRunningError):
        call(url)


def test_a_server_that_hangs_is_a_timeout() -> None:
    with answering(b"", hang=True) as (url, _), pytest.raises(ServerTimeoutError):
        HqClient(url, KEY, timeout_s=0.2).health()


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.7\r\n\r\n",
        response(200, b"{}"),
        response(200, b'{"json":{"other":1}}'),
        response(200, b"[]"),
        response(500, b'{"json":{"error":"x"}}'),
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort",
    ],
)
def test_an_answer_that_is_not_ours_is_refused(answer: bytes) -> None:
    with answering(answer) as (url, _), pytest.raises(ServerAnswerError):
        call(url)


def test_a_server_that_says_when_to_come_again_is_asked_again() -> None:
    error = b'{"json":{"defined":false,"code":"DATABASE_BUSY","status":503,"message":"busy"}}'
    busy = response(503, error).replace(b"connection", b"retry-after: 3\r\nconnection")
    pauses: list[float] = []
    with answering(busy, response(200, b'{"json":{"name":"x"}}')) as (url, asked):
        client = HqClient(url, KEY, timeout_s=2, pause=pauses.append)
        assert client.call("coordination/getThing", {"thingId": "a"}, Thing) == Thing(name="x")
    assert pauses == [3.0]
    assert asked[0] == asked[1]


@pytest.mark.parametrize("ask", [HqClient.health, HqClient.ready])
def test_the_reports_of_a_server_are_read(ask: Callable[[HqClient], dict[str, Any]]) -> None:
    with answering(response(200, b'{"ok":true,"instanceId":"i"}')) as (url, _):
        assert ask(HqClient(url, KEY)) == {"ok": True, "instanceId": "i"}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"1"])
def test_another_program_on_the_port_is_not_taken_for_an_hq(body: bytes) -> None:
    with answering(response(200, body)) as (url, _), pytest.raises(ServerAnswerError):
        HqClient(url, KEY).health()


def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with answering(response(200, b'{"json":{"name":"x"}}')) as (url, _):
        assert call(url) == Thing(name="x")


def test_the_client_loads_no_framework() -> None:
    code = "import sys, rawr.client.http as _; print([m for m in sys.modules if m in FORBIDDEN])"
    forbidden = ("httpx", "uvicorn", "starlette", "inngest", "apsw", "asyncio", "rawr.host", "rawr.coordination")
    found = subprocess.run(
        [sys.executable, "-c", code.replace("FORBIDDEN", repr(forbidden))],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert found.stdout.strip() == "[]"
