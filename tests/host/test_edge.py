"""What the guard does with addresses, proxies, patience and headers, without a socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.host.access_lines import into

from rawr.host.guard import Guard
from rawr.host.peers import Peer, TrustedProxies
from rawr.host.request import Message, Request
from rawr.host.responses import Response, text_response
from rawr.host.settings import HostSettings, Limits
from rawr.workspace.config import LimitsConfig

if TYPE_CHECKING:
    from tests.host.conftest import Ask, AskAsync, Hosted

    from rawr.testing.clock import FakeClock

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "http.md"


class Edge:
    """A guard with settings of the test's, around an app that says who asks."""

    def __init__(self, clock: FakeClock, **settings: Any) -> None:
        self.lines: list[Mapping[str, object]] = []
        self.arrived = asyncio.Event()
        self.held: asyncio.Event | None = None
        self.app = Guard(self._answer, HostSettings(**settings), clock=clock, access_log=into(self.lines))

    async def _answer(self, request: Request) -> Response:
        self.arrived.set()
        if self.held is not None:
            await self.held.wait()
        return text_response(200, f"{request.scheme} {request.address}")


FROM_PROXY = {"x-forwarded-for": "198.51.100.7, 203.0.113.9", "x-forwarded-proto": "https"}


@pytest.mark.parametrize(
    ("trusted", "headers", "seen"),
    [
        ((), FROM_PROXY, "http 127.0.0.1"),
        (("10.0.0.0/8",), FROM_PROXY, "http 127.0.0.1"),
        (("127.0.0.1",), {}, "http 127.0.0.1"),
        (("127.0.0.1",), FROM_PROXY, "https 203.0.113.9"),
        (("127.0.0.0/8", "203.0.113.0/24"), FROM_PROXY, "https 198.51.100.7"),
        (("127.0.0.1",), {"x-forwarded-for": "evil, 203.0.113.9"}, "http 203.0.113.9"),
        (("127.0.0.1",), {"x-forwarded-for": "203.0.113.9, evil"}, "http 127.0.0.1"),
        (("127.0.0.1",), {"x-forwarded-for": "203.0.113.9,"}, "http 127.0.0.1"),
        (("127.0.0.1",), {"x-forwarded-proto": "ftp"}, "http 127.0.0.1"),
        (("127.0.0.1",), {"x-forwarded-proto": "https, http"}, "http 127.0.0.1"),
        (("127.0.0.1",), {"forwarded": "for=203.0.113.9;proto=https"}, "http 127.0.0.1"),
        (("127.0.0.1",), {"x-real-ip": "203.0.113.9"}, "http 127.0.0.1"),
    ],
)
def test_forwarded_headers_count_from_a_trusted_proxy_and_from_its_side(
    clock: FakeClock, ask: Ask, trusted: tuple[str, ...], headers: dict[str, str], seen: str
) -> None:
    edge = Edge(clock, trusted_proxies=trusted)
    assert ask(edge.app, "GET", "/x", headers=headers).text == seen
    assert edge.lines[0]["address"] == seen.split()[1]


@given(entries=st.lists(st.sampled_from(["10.1.2.3", "203.0.113.9", "evil", " ", "::1"]), max_size=5))
def test_what_a_caller_writes_before_the_proxy_never_changes_who_it_is(entries: list[str]) -> None:
    """The last entry is the proxy's own; whatever stands before it came from the caller."""
    connected = Peer(address="10.0.0.1", scheme="http")
    fields = {b"x-forwarded-for": ", ".join([*entries, "203.0.113.1"]).encode()}
    assert TrustedProxies(["10.0.0.1"]).caller(connected, fields).address == "203.0.113.1"


def test_an_origin_is_ours_under_the_scheme_that_the_caller_used(clock: FakeClock, ask: Ask) -> None:
    edge = Edge(clock, trusted_proxies=("127.0.0.1",))
    secure = {"x-forwarded-proto": "https", "origin": "https://127.0.0.1:3000"}
    assert ask(edge.app, "POST", "/x", headers=secure).status == 200
    assert ask(edge.app, "POST", "/x", headers={**secure, "x-forwarded-proto": "http"}).status == 403


def test_the_console_is_shown_to_other_machines_only_over_tls(clock: FakeClock, ask: Ask) -> None:
    exposed = Edge(clock, bind_host="0.0.0.0", insecure_bind=True, trusted_proxies=("127.0.0.1",))
    elsewhere = {"x-forwarded-for": "203.0.113.9"}
    for path in ("/", "/console/", "/console/login"):
        answer = ask(exposed.app, "GET", path, headers=elsewhere)
        assert (answer.status, json.loads(answer.body)["code"]) == (403, "TLS_REQUIRED")
    assert ask(exposed.app, "GET", "/api/orpc/x", headers=elsewhere).status == 200
    assert ask(exposed.app, "GET", "/console/").status == 200  # this machine
    local = Edge(clock, trusted_proxies=("127.0.0.1",))
    assert ask(local.app, "GET", "/console/", headers=elsewhere).status == 200  # the proxy speaks TLS


@pytest.mark.parametrize("path", ["/rpc/x", "/api/orpc/x"])
def test_what_takes_too_long_is_given_up_in_the_words_of_its_family(clock: FakeClock, ask: Ask, path: str) -> None:
    edge = Edge(clock, limits=Limits(handler_s=0.05))
    edge.held = asyncio.Event()
    answer = ask(edge.app, "POST", path)
    body = json.loads(answer.body)
    assert answer.status == 504
    assert (body.get("json") or body)["code"] == "GATEWAY_TIMEOUT"
    assert answer.headers["connection"] == "close"


def test_each_of_several_that_take_too_long_is_given_up(clock: FakeClock, ask_async: AskAsync) -> None:
    """One timer serves them all: it must come back for the later ones."""

    async def scenario() -> list[int]:
        edge = Edge(clock, limits=Limits(handler_s=0.05))
        edge.held = asyncio.Event()
        first = asyncio.create_task(ask_async(edge.app, "GET", "/x"))
        await edge.arrived.wait()
        await asyncio.sleep(0.02)  # so that the second is to be given up at another time
        second = await ask_async(edge.app, "GET", "/x")
        return [(await first).status, second.status]

    assert asyncio.run(scenario()) == [504, 504]


def test_a_task_that_somebody_else_cancels_is_cancelled(clock: FakeClock, ask_async: AskAsync) -> None:
    async def scenario() -> None:
        edge = Edge(clock)
        edge.held = asyncio.Event()
        asking = asyncio.create_task(ask_async(edge.app, "GET", "/x"))
        await edge.arrived.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [line["status"] for line in edge.lines] == [0]  # nothing was sent
        async with asyncio.timeout(10):
            await edge.app.idle()

    asyncio.run(scenario())


def test_calls_of_the_engine_take_no_place_and_go_on_while_the_host_stops(clock: FakeClock) -> None:
    async def scenario() -> list[int]:
        edge = Edge(clock, limits=Limits(requests=1, requests_per_address=1))
        edge.app.stop()
        statuses = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        scope = {
            "type": "http", "method": "POST", "scheme": "http", "path": "/api/inngest", "raw_path": b"/api/inngest",
            "query_string": b"", "headers": [(b"host", b"127.0.0.1")],
        }  # fmt: skip
        await edge.app({**scope, "client": None}, receive, send)
        await edge.app({**scope, "client": ("127.0.0.1", 1)}, receive, send)
        return statuses

    assert asyncio.run(scenario()) == [200, 503]


def test_a_form_has_no_more_fields_than_there_may_be(hosted: Hosted, ask: Ask) -> None:
    headers = {**hosted.bearer("orpc:*"), "content-type": "application/x-www-form-urlencoded"}
    path = "/api/orpc/coordination/workflows"
    refused = ask(hosted.app, "POST", path, headers=headers, body=b"&".join([b"a=1"] * 1001))
    assert (refused.status, json.loads(refused.body)["message"]) == (400, "more than 1000 fields")
    taken = ask(hosted.app, "POST", path, headers=headers, body=b"&".join([b"a=1"] * 1000))
    assert json.loads(taken.body)["message"] == "Input validation failed"


@pytest.mark.parametrize(
    ("path", "csp"),
    [
        ("/health", "default-src 'none'; frame-ancestors 'none'"),
        ("/rpc/x", "default-src 'none'; frame-ancestors 'none'"),
        ("/api/orpc/x", "default-src 'none'; frame-ancestors 'none'"),
        ("/console/login", "default-src 'none'; script-src 'self'"),
    ],
)
def test_every_answer_says_once_what_a_browser_must_not_do(hosted: Hosted, ask: Ask, path: str, csp: str) -> None:
    answer = ask(hosted.app, "GET", path)
    assert answer.headers["content-security-policy"].startswith(csp)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers
    assert "server" not in answer.headers


def test_a_preflight_of_another_origin_is_refused_without_a_word_that_would_allow_it(hosted: Hosted, ask: Ask) -> None:
    headers = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    answer = ask(hosted.app, "OPTIONS", "/api/orpc/coordination/workflows", headers=headers)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_the_limits_of_the_host_are_those_of_the_configuration() -> None:
    assert Limits(**msgspec.structs.asdict(LimitsConfig())) == Limits()


def test_the_document_has_every_limit_with_its_default_and_its_range() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([\d.]+)` \| ([\d.]+) to ([\d.]+) \|", DOCUMENT.read_text(), re.MULTILINE)
    documented = {name: (float(default), float(least), float(most)) for name, default, least, most in rows}
    assert documented == {field.name: _range(field) for field in msgspec.structs.fields(LimitsConfig)}


def _range(field: msgspec.structs.FieldInfo) -> tuple[float, float, float]:
    kind = msgspec.inspect.type_info(field.type)
    assert isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType)
    return float(field.default), float(kind.ge or 0), float(kind.le or 0)
