"""What no request may be, whoever sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from tests.host.access_lines import into

from rawr.host.guard import Guard
from rawr.host.request import Message, Request
from rawr.host.responses import Response, text_response
from rawr.host.settings import HostSettings

if TYPE_CHECKING:
    from tests.host.conftest import Ask

    from rawr.testing.clock import FakeClock

SETTINGS = HostSettings(trusted_hosts=("HQ.example",))


class Guarded:
    """A guard around an app that says yes to everything, and remembers what it was asked."""

    def __init__(self, clock: FakeClock, answer: Response | None = None) -> None:
        self.requests: list[Request] = []
        self.lines: list[Mapping[str, object]] = []
        self._response = answer or text_response(200, "yes")
        self.app = Guard(self._answer, SETTINGS, clock=clock, access_log=into(self.lines))

    async def _answer(self, request: Request) -> Response:
        self.requests.append(request)
        request.notes.family = "yes"
        return self._response


@pytest.fixture
def guarded(clock: FakeClock) -> Guarded:
    return Guarded(clock)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:3000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:3000", "LOCALHOST", "hq.example:80"],
)
def test_our_own_names_are_let_through(guarded: Guarded, ask: Ask, host: str) -> None:
    assert ask(guarded.app, "GET", "/", host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil.example#localhost",
        "localhost@evil.example",
        "localhost:3000:80",
        "localhost:",
        "localhost:port",
        "localhost.",
        "127.0.0.1.nip.io",
        "127.1",
        "2130706433",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "::1",
        "[::1",
        "[localhost]",
        "",
        " localhost",
        "localhost\n",
        "localhost, evil.example",
    ],
)
def test_any_other_host_is_misdirected(guarded: Guarded, ask: Ask, host: str) -> None:
    answer = ask(guarded.app, "GET", "/", host=host)
    assert (answer.status, answer.text) == (421, "misdirected request")
    assert guarded.requests == []


def test_a_missing_or_doubled_host_is_misdirected(guarded: Guarded, ask: Ask) -> None:
    assert ask(guarded.app, "GET", "/", host=None).status == 421
    assert ask(guarded.app, "GET", "/", headers=[("host", "localhost")], host="localhost").status == 421
    assert ask(guarded.app, "GET", "/", headers=[("host", "evil.example")], host="localhost").status == 421


@pytest.mark.parametrize("name", ["x-forwarded-host", "forwarded", "x-original-host", "x-host"])
def test_forwarded_hosts_are_not_looked_at(guarded: Guarded, ask: Ask, name: str) -> None:
    assert ask(guarded.app, "GET", "/", headers={name: "localhost"}, host="evil.example").status == 421
    assert ask(guarded.app, "GET", "/", headers={name: "evil.example"}).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("content-length", "5"), ("content-length", "5")],
        [("content-length", "5"), ("content-length", "6")],
        [("content-length", "5"), ("transfer-encoding", "chunked")],
    ],
)
def test_a_request_whose_length_is_ambiguous_is_refused(
    guarded: Guarded, ask: Ask, headers: list[tuple[str, str]]
) -> None:
    answer = ask(guarded.app, "POST", "/", headers=headers, body=b"hello")
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert guarded.requests == []


def test_too_many_or_too_large_headers_are_refused(guarded: Guarded, ask: Ask) -> None:
    assert ask(guarded.app, "GET", "/", headers=[("x-a", "1")] * 200).status == 431
    assert ask(guarded.app, "GET", "/", headers={"x-a": "a" * 100_000}).status == 431


def test_a_request_keeps_its_own_id_when_that_is_one(guarded: Guarded, ask: Ask) -> None:
    answer = ask(guarded.app, "GET", "/", headers={"x-request-id": " req-a ", "x-correlation-id": "corr-1"})
    assert answer.headers["x-request-id"] == "req-a"
    assert answer.headers["x-correlation-id"] == "corr-1"
    assert guarded.requests[0].request_id == "req-a"
    assert guarded.requests[0].correlation_id == "corr-1"


@pytest.mark.parametrize("given", ["", " ", "a b", "a\tb", "é", "a" * 129, "<script>", "a,b"])
def test_a_request_without_a_usable_id_gets_one(guarded: Guarded, ask: Ask, given: str) -> None:
    answer = ask(guarded.app, "GET", "/", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] not in (given, "")
    assert answer.headers["x-correlation-id"] == answer.headers["x-request-id"]


def test_every_request_without_an_id_gets_another_one(guarded: Guarded, ask: Ask) -> None:
    ids = {ask(guarded.app, "GET", "/").headers["x-request-id"] for _ in range(5)}
    assert len(ids) == 5


def test_the_path_stays_as_it_came(guarded: Guarded, ask: Ask) -> None:
    ask(guarded.app, "GET", "/a/..%2fx//%zz/../b?q=%31")
    assert guarded.requests[0].path == "/a/..%2fx//%zz/../b"
    assert guarded.requests[0].query == "q=%31"


def test_head_has_the_headers_of_get_and_no_body(guarded: Guarded, ask: Ask) -> None:
    answer = ask(guarded.app, "HEAD", "/")
    assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "3")


def test_an_app_that_breaks_answers_500_without_a_detail(clock: FakeClock, ask: Ask) -> None:
    async def broken(request: Request) -> Response:
        raise RuntimeError("the secret is hunter2")

    lines: list[Mapping[str, object]] = []
    answer = ask(Guard(broken, SETTINGS, clock=clock, access_log=into(lines)), "GET", "/")
    assert answer.status == 500
    assert answer.json == {
        "defined": False,
        "code": "INTERNAL_SERVER_ERROR",
        "status": 500,
        "message": "Internal server error",
    }
    assert lines[0]["status"] == 500


def test_websockets_are_refused(guarded: Guarded) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {"type": "websocket", "path": "/rpc", "headers": [(b"host", b"localhost")]}
    asyncio.run(guarded.app(scope, receive, send))
    assert [message["type"] for message in sent] == ["websocket.close"]
    assert guarded.requests == []


def test_each_request_leaves_one_access_line_without_secrets(guarded: Guarded, ask: Ask) -> None:
    secrets = {"authorization": "Bearer hunter2", "cookie": "hunter2", "x-request-id": "req-1"}
    ask(guarded.app, "POST", "/hunter2?token=hunter2", headers=secrets, body=b"hunter2")
    assert len(guarded.lines) == 1
    line = dict(guarded.lines[0])
    assert isinstance(line.pop("durationMs"), float)
    assert line == {
        "ts": "2026-11-22T11:37:44.000Z",
        "requestId": "req-1",
        "correlationId": "req-1",
        "method": "POST",
        "family": "yes",
        "operation": None,
        "route": None,
        "address": "127.0.0.1",
        "bytesIn": 0,
        "bytesOut": 3,
        "keyId": None,
        "status": 200,
        "caller": "unlabeled",
    }


def test_a_refused_request_is_logged_too(guarded: Guarded, ask: Ask) -> None:
    ask(guarded.app, "GET", "/", host="evil.example")
    assert [line["status"] for line in guarded.lines] == [421]


def test_nobody_may_guess_the_type_of_an_answer(guarded: Guarded, ask: Ask) -> None:
    assert ask(guarded.app, "GET", "/").headers["x-content-type-options"] == "nosniff"
