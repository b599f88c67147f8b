"""How often callers may call: by key, and by address without one; and what they are told when it was too often."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from rawr.client.aio import AsyncHqClient
from rawr.client.http import HqClient, RemoteError
from rawr.host.authority import Authority
from rawr.host.settings import Rates
from rawr.procedures import operations
from rawr.procedures.coordination_wire import ListWorkflowsInput
from rawr.security.credentials import SecretsFolder, TokenStore
from rawr.security.policy import CallerClass
from rawr.testing.clock import FakeClock

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted
    from tests.host.server_process import Server

ORPC = "/api/orpc/coordination/workflows"
RPC = "/rpc/coordination/listWorkflows"
LIST = b'{"json":{}}'


@pytest.fixture
def slow(hosted: Hosted) -> Hosted:
    """The same host, where an address may fail twice at once and then once in five seconds."""
    hosted.authority = Authority(
        hosted.credentials.ring,
        port=3000,
        rates=Rates(address_per_minute=12, tracked=50),
        clock=hosted.clock,
    )
    hosted.rebuild()
    return hosted


def key(hosted: Hosted, rate: int | None, *, caller_class: CallerClass = CallerClass.EXTERNAL) -> dict[str, str]:
    scopes = ["orpc:*", "workflows:*"] if caller_class is CallerClass.EXTERNAL else ["rpc:*"]
    made = hosted.credentials.tokens.create("k", scopes, caller_class=caller_class, rate_per_minute=rate)
    return {"authorization": f"Bearer {made.token}"}


def asked(hosted: Hosted, ask: Ask, target: str, headers: dict[str, str]) -> Answer:
    return (
        ask(hosted.app, "POST", target, headers=headers, body=LIST)
        if target == RPC
        else ask(hosted.app, "GET", target, headers=headers)
    )


@pytest.mark.parametrize("target", [ORPC, "/api/workflows/coordination/workflows", "/api/orpc/openapi.json"])
def test_a_key_that_calls_too_often_is_told_when_to_come_again(
    hosted: Hosted, ask: Ask, clock: FakeClock, target: str
) -> None:
    bearer = key(hosted, 18)  # three at once
    assert [asked(hosted, ask, target, bearer).status for _ in range(4)] == [200, 200, 200, 429]
    answer = asked(hosted, ask, target, bearer)
    assert answer.headers["retry-after"] == "4"  # 3.33 s, never too early
    assert answer.json == {
        "defined": False,
        "code": "TOO_MANY_REQUESTS",
        "status": 429,
        "message": "too many requests; the header Retry-After says how many seconds to wait",
    }
    clock.advance(4000)
    assert [asked(hosted, ask, target, bearer).status for _ in range(2)] == [200, 429]


def test_on_rpc_the_same_is_said_in_an_envelope(hosted: Hosted, ask: Ask) -> None:
    bearer = key(hosted, 6, caller_class=CallerClass.TRUSTED_SERVICE)
    assert asked(hosted, ask, RPC, bearer).status == 200
    answer = asked(hosted, ask, RPC, bearer)
    assert (answer.status, answer.headers["retry-after"]) == (429, "10")
    assert list(answer.json["json"]) == ["defined", "code", "status", "message"]
    assert answer.json["json"]["code"] == "TOO_MANY_REQUESTS"
    of_v2 = asked(hosted, ask, RPC, {**bearer, "x-orpc-protocol": "2"})
    assert (of_v2.status, of_v2.headers["retry-after"]) == (429, "10")
    assert list(of_v2.json["json"]) == ["defined", "inferable", "code", "message"]


def test_each_key_has_its_own_rate_whatever_family_it_calls(hosted: Hosted, ask: Ask) -> None:
    busy, idle = key(hosted, 6), key(hosted, 6)
    assert asked(hosted, ask, ORPC, busy).status == 200
    assert asked(hosted, ask, "/api/workflows/coordination/workflows", busy).status == 429
    assert asked(hosted, ask, ORPC, idle).status == 200


def test_a_rotated_key_has_the_rate_that_it_had(hosted: Hosted, ask: Ask) -> None:
    made = hosted.credentials.tokens.create("k", ["orpc:*"], rate_per_minute=6)
    fresh = hosted.credentials.tokens.rotate(made.record.token_id, overlap_ms=60_000)
    statuses = [
        asked(hosted, ask, ORPC, {"authorization": f"Bearer {token}"}).status
        for token in (made.token, fresh.token, made.token)
    ]
    assert statuses == [200, 429, 429]


def test_a_key_without_a_rate_has_the_configured_one(hosted: Hosted, ask: Ask) -> None:
    bearer = key(hosted, None)
    statuses = [asked(hosted, ask, ORPC, bearer).status for _ in range(1001)]  # 6000 a minute
    assert statuses == [200] * 1000 + [429]


@pytest.mark.parametrize(
    ("method", "target", "refused"),
    [("POST", RPC, 403), ("GET", ORPC, 401), ("POST", "/api/inngest", 403), ("GET", "/console/", 303)],
)
def test_an_address_that_fails_too_often_is_slowed_down(
    slow: Hosted, ask: Ask, *, method: str, target: str, refused: int
) -> None:
    answers = [ask(slow.app, method, target, headers={"authorization": "Bearer wrong"}) for _ in range(4)]
    assert [answer.status for answer in answers] == [refused, refused, 429, 429]
    assert answers[-1].headers["retry-after"] == "5"
    slow.clock.advance(5000)
    assert ask(slow.app, method, target).status == refused


def test_wrong_login_codes_are_slowed_down_and_a_right_one_is_not(slow: Hosted, ask: Ask) -> None:
    def log_in(code: str) -> Answer:
        headers = {"content-type": "application/json"}
        return ask(slow.app, "POST", "/console/login", headers=headers, body=json.dumps({"code": code}).encode())

    answers = [log_in("a" * 43) for _ in range(3)]
    assert [answer.status for answer in answers] == [401, 401, 429]
    assert (answers[-1].json["code"], answers[-1].headers["retry-after"]) == ("TOO_MANY_REQUESTS", "5")
    assert log_in(slow.login_codes.mint()).status == 200


def test_nobody_shuts_out_others_of_the_same_address(slow: Hosted, ask: Ask) -> None:
    for _ in range(20):
        asked(slow, ask, ORPC, {"authorization": "Bearer wrong"})
    assert asked(slow, ask, ORPC, {}).status == 429
    assert asked(slow, ask, ORPC, key(slow, None)).status == 200
    assert asked(slow, ask, RPC, slow.bearer()).status == 200
    assert asked(slow, ask, "/health", {}).status == 200
    assert ask(slow.app, "POST", "/api/inngest", headers=slow.signed(b"{}"), body=b"{}").status == 206


def test_all_that_is_refused_alike_is_slowed_down_alike(slow: Hosted, ask: Ask) -> None:
    """Unknown, expired, revoked, rotated away: from outside one cannot tell, by status, body or headers."""
    tokens = slow.credentials.tokens
    revoked, expired, rotated = (
        tokens.create(name, ["orpc:*"], expires_at_ms=ends)
        for name, ends in (("revoked", None), ("expired", slow.clock.now_ms()), ("rotated", None))
    )
    tokens.revoke(revoked.record.token_id)
    tokens.rotate(rotated.record.token_id, overlap_ms=0)
    secrets = ["wrong", f"rawr_{'0' * 12}_{'A' * 43}", revoked.token, expired.token, rotated.token]
    told: set[tuple[Any, ...]] = set()
    for secret in secrets:
        slow.clock.advance(60_000)
        answers = [asked(slow, ask, ORPC, {"authorization": f"Bearer {secret}"}) for _ in range(3)]
        own = {"x-request-id", "x-correlation-id"}
        told.add(
            tuple(
                (answer.status, answer.body, tuple(pair for pair in answer.headers.items() if pair[0] not in own))
                for answer in answers
            )
        )
    assert len(told) == 1
    assert [status for status, *_ in told.pop()] == [401, 401, 429]


def test_the_python_client_waits_and_asks_again(hosted: Hosted, clock: FakeClock) -> None:
    made = hosted.credentials.tokens.create(
        "worker", ["rpc:*"], caller_class=CallerClass.TRUSTED_SERVICE, rate_per_minute=6
    )
    paused: list[float] = []

    async def pause(seconds: float) -> None:
        paused.append(seconds)
        clock.advance(round(seconds * 1000))

    async def twice() -> None:
        transport = httpx.ASGITransport(app=hosted.app)
        async with AsyncHqClient("http://127.0.0.1", made.token, transport=transport, pause=pause) as client:
            for _ in range(2):
                await client.invoke(operations.LIST_WORKFLOWS, ListWorkflowsInput())

    asyncio.run(asyncio.wait_for(twice(), 60))
    assert paused == [10.0]


def test_over_a_socket_the_blocking_client_is_told_the_same(server: Server) -> None:
    url = server.ready().url
    tokens = TokenStore(SecretsFolder(server.root / ".rawr" / "secrets").tokens_path(), _Now())
    made = tokens.create("w", ["rpc:*"], caller_class=CallerClass.INTERNAL, rate_per_minute=1)
    paused: list[float] = []
    client = HqClient(url, made.token, timeout_s=20, pause=paused.append)
    client.invoke(operations.LIST_WORKFLOWS, ListWorkflowsInput())
    with pytest.raises(RemoteError) as refusal:
        client.invoke(operations.LIST_WORKFLOWS, ListWorkflowsInput())
    assert (refusal.value.code, refusal.value.status) == ("TOO_MANY_REQUESTS", 429)
    assert len(paused) == 2
    assert all(0 < seconds <= 60 for seconds in paused)
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()


class _Now:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000
