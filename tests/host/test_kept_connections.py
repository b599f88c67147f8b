"""A caller that keeps its connection and sends the same bytes again and again, while what it may do changes."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from tests.host.server_process import DEADLINE_S, Server

from rawr.clock import SystemClock
from rawr.security.credentials import TokenStore
from rawr.security.policy import CallerClass
from rawr.state.store import RepoStateStore

STATE = "/api/orpc/state/runtime"


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    root.mkdir()
    server = Server(root)
    server.ready()
    yield server
    server.end()


@pytest.fixture
def tokens(server: Server) -> TokenStore:
    return TokenStore(server.root / ".rawr" / "secrets" / "tokens.json", SystemClock())


@pytest.fixture
def connect(server: Server) -> Iterator[Connect]:
    """Makes callers, whose connections are closed at the end."""
    with contextlib.ExitStack() as stack:

        def connected(key: str, *, rpc: bool = False) -> Caller:
            address = ("127.0.0.1", server.port())
            made = stack.enter_context(socket.create_connection(address, timeout=DEADLINE_S))
            return Caller(made, key, rpc=rpc)

        yield connected


class Connect(Protocol):
    def __call__(self, key: str, *, rpc: bool = False) -> Caller: ...


class Caller:
    """One connection, and one request that it sends."""

    def __init__(self, connection: socket.socket, key: str, *, rpc: bool) -> None:
        self._socket = connection
        self._received = b""
        body = b'{"json":{}}' if rpc else b""
        target = "POST /rpc/state/getRuntimeState" if rpc else f"GET {STATE}"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if rpc else ""
        head = f"{target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n{kind}\r\n"
        self._request = head.encode() + body

    def asks(self) -> tuple[int, str, bytes]:
        """The status, the id of the request, and the body."""
        self._socket.sendall(self._request)
        while b"\r\n\r\n" not in self._received:
            self._more()
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head)
        request_id = re.search(rb"x-request-id: (\S+)", head)
        assert length is not None
        assert request_id is not None
        while len(self._received) < int(length[1]):
            self._more()
        body, self._received = self._received[: int(length[1])], self._received[int(length[1]) :]
        return int(head.split(b" ")[1]), request_id[1].decode(), body

    def _more(self) -> None:
        piece = self._socket.recv(65536)
        assert piece, "the server hung up"
        self._received += piece


@pytest.mark.parametrize("rpc", [False, True])
def test_each_of_them_is_a_request_of_its_own(
    server: Server, tokens: TokenStore, connect: Connect, *, rpc: bool
) -> None:
    key = server.cli_key() if rpc else tokens.create("caller", ["orpc:*"]).token
    caller = connect(key, rpc=rpc)
    answers = [caller.asks() for _ in range(5)]
    assert {status for status, _, _ in answers} == {200}
    ids = [request_id for _, request_id, _ in answers]
    assert len(set(ids)) == 5
    assert server.stop() == 0
    assert [line["requestId"] for line in server.access_lines() if line["requestId"] in ids] == ids


def test_a_revoked_key_opens_nothing_from_then_on(server: Server, tokens: TokenStore, connect: Connect) -> None:
    made = tokens.create("caller", ["orpc:*"])
    caller = connect(made.token)
    assert [caller.asks()[0] for _ in range(3)] == [200] * 3
    tokens.create("other", ["orpc:*"])
    assert caller.asks()[0] == 200
    tokens.revoke(made.record.token_id)
    assert caller.asks()[0] == 401


@pytest.mark.parametrize("rpc", [False, True])
def test_a_scope_taken_away_is_gone(server: Server, tokens: TokenStore, connect: Connect, *, rpc: bool) -> None:
    family, kind = ("rpc", CallerClass.TRUSTED_SERVICE) if rpc else ("orpc", CallerClass.EXTERNAL)
    made = tokens.create("caller", [f"{family}:state"], caller_class=kind)
    caller = connect(made.token, rpc=rpc)
    assert [caller.asks()[0] for _ in range(3)] == [200] * 3
    path = server.root / ".rawr" / "secrets" / "tokens.json"
    path.write_text(path.read_text().replace(f"{family}:state", f"{family}:coordination"))
    assert caller.asks()[0] == 403


def test_the_keys_rate_counts_each_of_them(server: Server, tokens: TokenStore, connect: Connect) -> None:
    caller = connect(tokens.create("caller", ["orpc:*"], rate_per_minute=60).token)
    statuses = [caller.asks()[0] for _ in range(200)]
    assert statuses[0] == 200
    assert statuses[-1] == 429


def test_a_changed_state_is_seen_by_the_next_one(server: Server, tokens: TokenStore, connect: Connect) -> None:
    caller = connect(tokens.create("caller", ["orpc:*"]).token)
    assert [b"mfe-demo" in caller.asks()[2] for _ in range(2)] == [False, False]
    RepoStateStore(server.root).enable("mfe-demo")
    assert b"mfe-demo" in caller.asks()[2]
