"""Hostile bytes on a socket of a real server: each row is what was sent, and what a sender is told."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.host.server_process import DEADLINE_S, Server

LIMITS = {"head_s": 30, "body_s": 30, "drain_s": 2, "body_bytes": 100_000, "connections_per_address": 400}


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("attacked") / "instance"
    root.mkdir()
    server = Server(root, limits=LIMITS)
    server.ready()
    yield server
    server.end()


class Reply:
    """All that came back until the server closed the connection."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", raw)]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def text(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[2].decode()


def sent(server: Server, raw: bytes, *, then_close: bool = False) -> Reply:
    """What comes back for the bytes, read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port()), timeout=DEADLINE_S) as connection:
        return Reply(exchanged(connection, raw, then_close=then_close))


def exchanged(connection: socket.socket, raw: bytes = b"", *, then_close: bool = False) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        connection.sendall(raw)
        if then_close:
            connection.shutdown(socket.SHUT_WR)
        while piece := connection.recv(65536):
            received += piece
    return received


HOST = b"Host: localhost\r\n"
END = b"Connection: close\r\n\r\n"
SMUGGLED = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
NOT_HTTP = "not a valid HTTP request"


def get(target: bytes, *headers: bytes, version: bytes = b"HTTP/1.1", host: bytes = HOST) -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + host + b"".join(line + b"\r\n" for line in headers) + END


def post(*headers: bytes, body: bytes, target: bytes = b"/rpc/state/getRuntimeState") -> bytes:
    lines = b"".join(line + b"\r\n" for line in (*headers, b"Content-Type: application/json", b"Authorization: @KEY@"))
    return b"POST " + target + b" HTTP/1.1\r\n" + HOST + lines + END + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


# name: what is sent, the one status that comes back, a part of its body
REFUSED: dict[str, tuple[bytes, int, str]] = {
    # which message is it, and where does it end
    "two lengths": (post(b"Content-Length: 2", b"Content-Length: 9", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "the same length twice": (post(b"Content-Length: 2", b"Content-Length: 2", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "a list of lengths": (post(b"Content-Length: 2, 2", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "a signed length": (post(b"Content-Length: +2", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "a negative length": (post(b"Content-Length: -2", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "a hexadecimal length": (post(b"Content-Length: 0x2", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "an empty length": (post(b"Content-Length: ", body=b"{}" + SMUGGLED), 400, NOT_HTTP),
    "a length beyond all numbers": (post(b"Content-Length: " + b"9" * 40, body=b"{}"), 400, NOT_HTTP),
    "length and chunks": (
        post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        400,
        NOT_HTTP,
    ),
    "chunks and length": (
        post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n" + SMUGGLED),
        400,
        NOT_HTTP,
    ),
    "an unknown coding": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "identity coding": (post(b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "chunks that are not last": (
        post(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + SMUGGLED),
        400,
        NOT_HTTP,
    ),
    "chunks twice": (
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
        400,
        NOT_HTTP,
    ),
    "a coding behind a vertical tab": (
        post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n" + SMUGGLED),
        400,
        NOT_HTTP,
    ),
    "compressed chunks": (
        post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
        400,
        "ambiguous request length",
    ),
    "chunks in HTTP/1.0": (
        b"POST /rpc/x HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
        400,
        "ambiguous request length",
    ),
    "a chunk without a size": (chunked(b"zz\r\n{}\r\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "a chunk that is longer than it says": (chunked(b"1\r\n{}\r\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "a chunk whose size overflows": (chunked(b"f" * 17 + b"\r\n{}\r\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "a chunk with a bare line feed": (chunked(b"2\n{}\r\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "a chunk that ends with a bare line feed": (chunked(b"2\r\n{}\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "a line feed in a chunk's extension": (chunked(b"2;a\nb\r\n{}\r\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "a space behind a chunk's size": (chunked(b"2 \r\n{}\r\n0\r\n\r\n" + SMUGGLED), 400, NOT_HTTP),
    "trailers that would be headers": (
        chunked(b"2\r\n{}\r\n0\r\nx-rawr-caller-surface: cli\r\n\r\n"),
        400,
        "trailers are not taken",
    ),
    "bare line feeds": (b"GET /health HTTP/1.1\nHost: localhost\n\n", 400, NOT_HTTP),
    "one bare line feed": (b"GET /health HTTP/1.1\r\nHost: localhost\nX: 1\r\n\r\n", 400, NOT_HTTP),
    "a bare carriage return": (get(b"/health", b"X: 1\rHost: evil.example"), 400, NOT_HTTP),
    "a folded header": (get(b"/health", b"X: 1", b" 2"), 400, NOT_HTTP),
    "a folded first header": (b"GET /health HTTP/1.1\r\n X: 1\r\n" + HOST + END, 400, NOT_HTTP),
    "a space before the colon": (get(b"/health", b"Content-Length : 2"), 400, NOT_HTTP),
    "a header without a colon": (get(b"/health", b"nothing"), 400, NOT_HTTP),
    "a header without a name": (get(b"/health", b": nothing"), 400, NOT_HTTP),
    "NUL in a header": (get(b"/health", b"X: a\x00b"), 400, NOT_HTTP),
    "NUL in a header's name": (get(b"/health", b"X\x00: b"), 400, NOT_HTTP),
    "a control character in a header": (get(b"/health", b"X: a\x01"), 400, NOT_HTTP),
    "TLS on a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64), 400, NOT_HTTP),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, NOT_HTTP),
    "HTTP/2.0 as a version": (get(b"/health", version=b"HTTP/2.0"), 400, "only HTTP/1.1 and HTTP/1.0"),
    "a version that there is not": (get(b"/health", version=b"HTTP/9.9"), 400, NOT_HTTP),
    "many headers": (get(b"/health", *[b"x-%d: 1" % number for number in range(200)]), 431, "header fields too large"),
    "a huge header": (get(b"/health", b"x-a: " + b"a" * 100_000), 431, "header fields too large"),
    # whom is it for
    "no host": (get(b"/health", host=b""), 421, "misdirected request"),
    "no host in HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n", 421, "misdirected request"),
    "two hosts": (get(b"/health", b"Host: localhost"), 421, "misdirected request"),
    "a host that was rebound": (get(b"/health", host=b"Host: evil.example\r\n"), 421, "misdirected request"),
    "a host with a list": (get(b"/health", host=b"Host: localhost, evil.example\r\n"), 421, "misdirected request"),
    "a host with credentials": (get(b"/health", host=b"Host: localhost@evil.example\r\n"), 421, "misdirected request"),
    "a forwarded host": (
        get(b"/health", b"X-Forwarded-Host: localhost", b"Forwarded: host=localhost", host=b"Host: evil.example\r\n"),
        421,
        "misdirected request",
    ),
    # what is the target
    "an absolute target": (get(b"http://localhost/health"), 400, "must be a path"),
    "an absolute target of another": (get(b"http://evil.example/health"), 400, "must be a path"),
    "an absolute target with credentials": (get(b"http://u:p@localhost/health"), 400, "must be a path"),
    "an authority as target": (b"CONNECT localhost:80 HTTP/1.1\r\n" + HOST + END, 400, "must be a path"),
    "a star as target": (b"OPTIONS * HTTP/1.1\r\n" + HOST + END, 400, "must be a path"),
    "a target without a slash": (get(b"health"), 400, NOT_HTTP),
    "a target with a fragment": (get(b"/health#x"), 400, "must be a path"),
    "NUL in the target": (get(b"/health\x00"), 400, NOT_HTTP),
    "a byte that is no ASCII in the target": (get(b"/health\xff"), 400, NOT_HTTP),
    "a line break in the target": (get(b"/health\r\nX: 1"), 400, "only HTTP/1.1"),
    "a tab in the target": (get(b"/heal\tth"), 400, NOT_HTTP),
    "a long target": (get(b"/api/orpc/" + b"a" * 20_000), 414, '"code":"URI_TOO_LONG"'),
    "a longer target": (get(b"/" + b"a" * 70_000), 414, "the URL is too long"),
    "ten thousand parameters": (get(b"/api/orpc/x?" + b"&".join([b"a"] * 10_000)), 414, '"code":"URI_TOO_LONG"'),
    "more parameters than there may be": (get(b"/api/orpc/x?" + b"&" * 1000), 400, "more than 1000 fields"),
    "a path that climbs": (get(b"/api/../health"), 404, "NOT_FOUND"),
    "a path that climbs, escaped": (get(b"/%2e%2e/health"), 404, "NOT_FOUND"),
    "an escaped slash": (get(b"/api%2finngest"), 404, "NOT_FOUND"),
    "a doubled slash": (get(b"//health"), 404, "NOT_FOUND"),
    "a doubled slash before a host": (get(b"//evil.example/health"), 404, "NOT_FOUND"),
    "a backslash": (get(b"/api\\health"), 404, "NOT_FOUND"),
    "escaped NUL": (get(b"/health%00"), 404, "NOT_FOUND"),
    "overlong UTF-8": (get(b"/%c0%ae%c0%ae/health"), 404, "NOT_FOUND"),
    "a path with parameters": (get(b"/health;jsessionid=1"), 404, "NOT_FOUND"),
    "another case": (get(b"/HEALTH"), 404, "NOT_FOUND"),
    "a file below web modules": (get(b"/rawr/plugins/web/..%2f..%2frawr.toml"), 404, "not found"),
    "a climb below the assets": (get(b"/console/assets/..%2f..%2fpages.py"), 404, "Not found"),
    # what does it ask for
    "TRACE": (b"TRACE /health HTTP/1.1\r\n" + HOST + b"X-Secret: s3cret\r\n" + END, 405, "TRACE is not a method"),
    "a method of another protocol": (b"PROPFIND /rpc HTTP/1.1\r\n" + HOST + END, 405, '{"json":{"defined":false'),
    "a method in small letters": (b"get /health HTTP/1.1\r\n" + HOST + END, 400, NOT_HTTP),
    "a websocket": (
        get(b"/rpc", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: eA==").replace(
            b"Connection: close", b"Connection: Upgrade"
        ),
        400,
        "no websockets",
    ),
    "an upgrade to HTTP/2": (
        get(b"/health", b"Upgrade: h2c", b"HTTP2-Settings: AA").replace(b"Connection: close", b"Connection: Upgrade"),
        400,
        "no websockets",
    ),
    "a compressed body": (post(b"Content-Encoding: gzip", b"Content-Length: 2", body=b"{}"), 415, "compressed"),
    "a body compressed twice": (
        post(b"Content-Encoding: gzip, br", b"Content-Length: 2", body=b"{}"),
        415,
        "compressed",
    ),
    "an expectation": (post(b"Expect: 200-ok", b"Content-Length: 2", body=b"{}"), 417, "100-continue"),
    "a method in a header": (
        post(b"X-HTTP-Method-Override: DELETE", b"Content-Length: 2", body=b"{}"),
        400,
        "override",
    ),
    "a large body": (post(b"Content-Length: 100001", body=b""), 413, '"code":"PAYLOAD_TOO_LARGE"'),
    "a deep body": (post(b"Content-Length: 20000", body=b"[" * 10_000 + b"]" * 10_000), 400, '"code":"BAD_REQUEST"'),
    "a form of ten thousand fields": (
        post(b"Content-Length: 19999", body=b"&".join([b"a"] * 10_000), target=b"/api/orpc/coordination/workflows"),
        401,
        "UNAUTHORIZED",
    ),
    # does a browser send it for somebody else
    "another origin": (get(b"/health", b"Origin: http://evil.example"), 403, '"code":"FORBIDDEN"'),
    "an origin of another port": (get(b"/health", b"Origin: http://localhost:5173"), 403, "another origin"),
    "no origin at all": (get(b"/rpc/state/getRuntimeState", b"Origin: null"), 403, '{"json":{"defined":false'),
    "another site": (get(b"/health", b"Sec-Fetch-Site: cross-site"), 403, "another site"),
    "the same site": (get(b"/health", b"Sec-Fetch-Site: same-site"), 403, "another site"),
    "a request without a mode": (
        get(b"/console/", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: no-cors", b"Sec-Fetch-Dest: image"),
        403,
        "another site",
    ),
    "a frame": (
        get(b"/console/", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: iframe"),
        403,
        "another site",
    ),
    "a form of another site": (
        b"POST /console/login HTTP/1.1\r\n" + HOST + b"Sec-Fetch-Site: cross-site\r\nContent-Length: 0\r\n" + END,
        403,
        "another site",
    ),
    # who is it
    "claims without evidence": (
        get(b"/rpc/state/getRuntimeState", b"x-rawr-session-auth: 1", b"x-rawr-caller-surface: first-party"),
        403,
        "forbidden",
    ),
    "an unsigned call of the engine": (get(b"/api/inngest", b"x-inngest-signature: t=1&s=00"), 403, "forbidden"),
    "an upgrade at the engine's door": (
        get(b"/api/inngest", b"Upgrade: websocket").replace(b"Connection: close", b"Connection: Upgrade"),
        403,
        "forbidden",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_request_gets_one_refusal_and_nothing_behind_it_is_answered(attacked: Server, name: str) -> None:
    raw, status, says = REFUSED[name]
    reply = sent(attacked, raw.replace(b"@KEY@", b"Bearer " + attacked.cli_key().encode()))
    assert (reply.statuses, says in reply.text) == ([status], True), reply.raw
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert len(reply.headers["x-request-id"]) > 10
    assert "server" not in reply.headers
    assert b"s3cret" not in reply.raw


def test_the_log_has_a_line_for_every_refusal_and_no_fault(attacked: Server) -> None:
    sent(attacked, REFUSED["two hosts"][0])
    sent(attacked, REFUSED["one bare line feed"][0])
    ids = [sent(attacked, get(b"/health#x")).headers["x-request-id"]]
    wait_for(lambda: ids[0] in {line["requestId"] for line in attacked.access_lines()})
    faults = [line for line in map(json.loads, attacked.log().splitlines()) if line["level"] != "info"]
    assert faults == []


# name: what is sent, and what comes back for each of its requests
TAKEN: dict[str, tuple[bytes, list[int]]] = {
    "a plain request": (get(b"/health"), [200]),
    "HTTP/1.0 with a host": (get(b"/health", version=b"HTTP/1.0"), [200]),
    "a query": (get(b"/health?a=%00&b=%zz"), [200]),
    "line breaks before a request": (b"\r\n\r\n" + get(b"/health"), [200]),
    "our own origin": (get(b"/health", b"Origin: http://localhost", b"Sec-Fetch-Site: same-origin"), [200]),
    "a link on another site": (
        get(b"/console/", b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Mode: navigate", b"Sec-Fetch-Dest: document"),
        [303],
    ),
    "chunks": (chunked(b'b\r\n{"json":{}}\r\n0\r\n\r\n'), [200]),
    "chunks with extensions": (chunked(b'b;a=b\r\n{"json":{}}\r\n0\r\n\r\n'), [200]),
    "a body that waits to be asked for": (
        post(b"Expect: 100-continue", b"Content-Length: 11", body=b'{"json":{}}'),
        [100, 200],
    ),
    "an expectation of one who is not let in": (
        post(b"Expect: 100-continue", b"Content-Length: 2", body=b"").replace(b"@KEY@", b"Bearer wrong"),
        [403],
    ),
    "several at once": (
        get(b"/health").replace(END, b"\r\n") * 3 + get(b"/none"),
        [200, 200, 200, 404],
    ),
    "one after a refusal": (b"POST /none HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}" + SMUGGLED, [404, 200]),
    "garbage behind a request": (get(b"/health").replace(END, b"\r\n") + b"\x00\x01\x02 garbage\r\n\r\n", [200]),
    "a request behind the last one": (get(b"/health") + SMUGGLED, [200]),
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_harmless_request_is_answered_in_its_turn(attacked: Server, name: str) -> None:
    raw, statuses = TAKEN[name]
    reply = sent(attacked, raw.replace(b"@KEY@", b"Bearer " + attacked.cli_key().encode()))
    assert reply.statuses == statuses, reply.raw


@pytest.mark.parametrize(
    "given_id", [b"a%0d%0aset-cookie: b", b"a b", b"<script>", b"\xc3\xa9", b"a" * 129, b'{"a":1}', b"a, b"]
)
def test_an_id_that_could_do_harm_is_replaced_in_answer_and_log(attacked: Server, given_id: bytes) -> None:
    reply = sent(attacked, get(b"/health", b"x-request-id: " + given_id, b"x-correlation-id: " + given_id))
    assert reply.statuses == [200]
    assert given_id not in reply.raw
    assert "set-cookie" not in reply.headers
    assert reply.headers["x-request-id"] == reply.headers["x-correlation-id"]


def test_a_line_of_the_log_cannot_be_forged(attacked: Server) -> None:
    target = b'/api/orpc/%0a{"status":200}?key=s3cret'
    reply = sent(attacked, get(target, b'User-Agent: "}\\n{"a":1}', b"x-request-id: traced-1"))
    assert reply.statuses == [401]
    wait_for(lambda: "traced-1" in (line["requestId"] for line in attacked.access_lines()))
    line = next(line for line in attacked.access_lines() if line["requestId"] == "traced-1")
    assert (line["route"], line["status"], line["address"]) == ("/api/orpc/*", 401, "127.0.0.1")
    assert "s3cret" not in json.dumps(attacked.access_lines())


@pytest.fixture
def limited(root: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    root.mkdir()
    server = Server(root, limits={"body_s": 60, "body_bytes_per_s": 1000, "drain_s": 2, **request.param})
    server.ready()
    yield server
    server.end()


def limits(**given: float) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("limited", [given], indirect=True)


@limits(head_s=0.3)
def test_a_head_that_trickles_in_is_cut_off(limited: Server) -> None:
    with socket.create_connection(("127.0.0.1", limited.port()), timeout=DEADLINE_S) as connection:
        reply = Reply(exchanged(connection, b"GET /health HTTP/1.1\r\nX: "))
    assert reply.statuses == [408]
    assert reply.text == "the head of the request did not arrive in time"


@limits(head_s=0.3, idle_s=0.3)
@pytest.mark.parametrize("said", [b"", b"\r\n", get(b"/health").replace(END, b"\r\n")])
def test_a_connection_on_which_nothing_happens_is_closed(limited: Server, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", limited.port()), timeout=DEADLINE_S) as connection:
        reply = Reply(exchanged(connection, said))
    assert reply.statuses == ([200] if b"GET" in said else [])


@limits(head_s=0.3)
def test_a_body_that_falls_behind_its_pace_is_cut_off(limited: Server) -> None:
    head = post(b"Content-Length: 90000", body=b"x" * 100)
    reply = sent(limited, head.replace(b"@KEY@", b"Bearer " + limited.cli_key().encode()))
    assert reply.statuses == [408]
    assert json.loads(reply.text)["json"]["code"] == "REQUEST_TIMEOUT"
    assert reply.headers["connection"] == "close"


@limits(head_s=0.3, body_bytes_per_s=1)
def test_a_body_that_keeps_its_pace_is_waited_for(limited: Server) -> None:
    body = b'{"json":{}}' + b" " * 50
    key = b"Bearer " + limited.cli_key().encode()
    with socket.create_connection(("127.0.0.1", limited.port()), timeout=DEADLINE_S) as steady:
        steady.sendall(post(b"Content-Length: %d" % len(body), body=body[:-1]).replace(b"@KEY@", key))
        assert sent(limited, post(b"Content-Length: 9", body=b"").replace(b"@KEY@", key)).statuses == [408]
        assert Reply(exchanged(steady, body[-1:])).statuses == [200]


@limits(connections_per_address=4)
def test_more_connections_than_one_address_may_have_are_sent_away(limited: Server) -> None:
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(unfinished(limited)) for _ in range(4)]
        reply = sent(limited, b"")
        assert reply.statuses == [429]
        assert reply.headers["retry-after"] == "1"
        busy[0].close()
        wait_for(lambda: sent(limited, get(b"/none")).statuses == [404])


@contextlib.contextmanager
def unfinished(server: Server) -> Iterator[socket.socket]:
    """A connection with a request whose body goes on arriving for as long as somebody sends."""
    with socket.create_connection(("127.0.0.1", server.port()), timeout=DEADLINE_S) as connection:
        head = post(b"Content-Length: 90000", body=b" " * 60_000)
        connection.sendall(head.replace(b"@KEY@", b"Bearer " + server.cli_key().encode()))
        yield connection


@limits(requests_per_address=2, head_s=60)
def test_more_requests_than_one_address_may_have_are_told_to_come_again(limited: Server) -> None:
    with unfinished(limited), unfinished(limited):
        wait_for(lambda: sent(limited, get(b"/rpc/x")).statuses == [429])
        reply = sent(limited, get(b"/rpc/x"))
        assert json.loads(reply.text)["json"]["code"] == "TOO_MANY_REQUESTS"
        assert reply.headers["retry-after"] == "1"
        assert sent(limited, get(b"/api/orpc/x")).text.startswith('{"defined":false,"code":"TOO_MANY_REQUESTS"')
    wait_for(lambda: sent(limited, get(b"/rpc/x")).statuses == [403])


@limits(connections_per_address=1, idle_s=0.3)
def test_who_takes_nothing_of_its_answers_loses_its_connection(limited: Server) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(DEADLINE_S)
        connection.connect(("127.0.0.1", limited.port()))
        # More than fits into the buffers of the system, so that the server cannot get rid of an answer.
        connection.sendall(get(b"/console/assets/console.css").replace(END, b"\r\n") * 2000)
        assert sent(limited, get(b"/none")).statuses == [429]
        wait_for(lambda: sent(limited, get(b"/none")).statuses == [404])


@limits(requests=1, head_s=60)
def test_a_busy_server_tells_everybody_to_come_again(limited: Server) -> None:
    with unfinished(limited):
        wait_for(lambda: sent(limited, get(b"/rpc/x")).statuses == [503])
        reply = sent(limited, get(b"/rpc/x"))
        assert json.loads(reply.text)["json"]["code"] == "SERVICE_UNAVAILABLE"
        assert reply.headers["retry-after"] == "1"


VALID = get(b"/api/orpc/coordination/workflows?a[b]=1", b"Accept: */*", b"x-request-id: r")
BODIED = post(b"Transfer-Encoding: chunked", body=b'b\r\n{"json":{}}\r\n0\r\n\r\n')


@st.composite
def broken_requests(draw: st.DrawFn) -> bytes:
    """A request with some of its bytes replaced, dropped, doubled or pushed apart by others."""
    raw = bytearray(draw(st.sampled_from([VALID, BODIED, VALID.replace(END, b"\r\n") * 2])))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw) - 1))
        length = draw(st.integers(0, 6))
        raw[at : at + length] = draw(st.one_of(st.binary(max_size=8), st.sampled_from([b"\r\n", b"\n", b" ", b":"])))
        if not raw:
            return b"\x00"
    return bytes(raw)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.one_of(st.binary(min_size=1, max_size=300), broken_requests()))
def test_no_bytes_make_the_server_fail_or_hang(attacked: Server, raw: bytes) -> None:
    reply = sent(attacked, raw, then_close=True)
    assert all(status < 500 for status in reply.statuses), reply.raw


def test_after_all_that_the_server_is_well_and_has_noted_no_fault(attacked: Server) -> None:
    assert attacked.client().health()["ok"] is True
    assert [line for line in attacked.log().splitlines() if json.loads(line)["level"] != "info"] == []


def wait_for(condition: object) -> None:
    assert callable(condition)
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
