"""What an attacker can send to `/api/inngest`, and that none of it reaches the functions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from tests.host.access_lines import into

from rawr.clock import SystemClock
from rawr.execution.signing import mac, sign
from rawr.host.app import build_app
from rawr.host.asgi_call import asgi_call
from rawr.host.ingress import Signature
from rawr.host.replay import SeenSignatures
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings
from rawr.hq import compose
from rawr.ids import InstanceId

if TYPE_CHECKING:
    from tests.host.conftest import Ask, Hosted

NOW_S = 1_795_347_464  # by the clock of `hosted`
ENGINE_KEY = "0123456789abcdef" * 4  # its key
BODY = b'{"ctx":{"run_id":"01K"},"event":{"name":"go"},"events":[],"steps":{}}'
QUERY = "fnId=app-fn&stepId=step"
OTHER_KEY = "f" * 64
HEADER = "x-inngest-signature"


class Attack(msgspec.Struct, frozen=True, kw_only=True):
    """One request. What it leaves out is as in a good call."""

    headers: tuple[tuple[str, str], ...]
    method: str = "POST"
    query: str = QUERY
    body: bytes = BODY
    is_read: bool = False
    """Whether the body has to be read to find out."""


def signature(body: bytes = BODY, *, key: str = ENGINE_KEY, t: int = NOW_S) -> str:
    return sign(body, key, t)


GOOD = signature()
MAC_OF_GOOD = GOOD.partition("&s=")[2]
BARE_MAC = mac(BODY, ENGINE_KEY, NOW_S)


def signed_by(value: str, *more: tuple[str, str], **changes: object) -> Attack:
    return msgspec.convert({"headers": ((HEADER, value), *more), **changes}, Attack)


ATTACKS: dict[str, Attack] = {
    "no signature": Attack(headers=()),
    "no signature, as a development server": Attack(headers=(("x-inngest-server-kind", "dev"),)),
    "no signature, as a sync": Attack(headers=(), method="PUT", body=b""),
    "no signature, as an in-band sync": Attack(headers=(("x-inngest-sync-kind", "in_band"),), method="PUT"),
    "no signature, as an inspection": Attack(headers=(), method="GET", body=b""),
    "no signature, as a probe": Attack(headers=(), query="probe=trust", body=b""),
    "claims to come from here": Attack(
        headers=(
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1;proto=https"),
            ("x-forwarded-host", "127.0.0.1"),
            ("x-rawr-caller-surface", "runtime-ingress"),
            ("x-rawr-service-auth", "verified"),
        )
    ),
    "another key": signed_by(signature(key=OTHER_KEY), is_read=True),
    "no key": signed_by(signature(key=""), is_read=True),
    "301 seconds old": signed_by(signature(t=NOW_S - 301)),
    "an hour old": signed_by(signature(t=NOW_S - 3600)),
    "301 seconds early": signed_by(signature(t=NOW_S + 301)),
    "a time in milliseconds": signed_by(signature(t=NOW_S * 1000)),
    "a newer time under an old MAC": signed_by(f"t={NOW_S + 1}&s={MAC_OF_GOOD}", is_read=True),
    "no time": signed_by(f"s={BARE_MAC}"),
    "an empty time": signed_by(f"t=&s={BARE_MAC}"),
    "no MAC": signed_by(f"t={NOW_S}"),
    "an empty MAC": signed_by(f"t={NOW_S}&s="),
    "half a MAC": signed_by(f"t={NOW_S}&s={MAC_OF_GOOD[:32]}"),
    "a MAC in capitals": signed_by(f"t={NOW_S}&s={MAC_OF_GOOD.upper()}"),
    "the fields in the other order": signed_by(f"s={MAC_OF_GOOD}&t={NOW_S}"),
    "two times": signed_by(f"t={NOW_S - 9999}&{GOOD}"),
    "two MACs": signed_by(f"{GOOD}&s={'0' * 64}"),
    "a further field": signed_by(f"{GOOD}&v=2"),
    "two signatures in one header": signed_by(f"{GOOD}, {GOOD}"),
    "two headers": signed_by(GOOD, (HEADER, GOOD)),
    "two headers, the second is the good one": signed_by(signature(key=OTHER_KEY), (HEADER, GOOD)),
    "two names of the header": signed_by(GOOD, ("inngest-signature", GOOD)),
    "only white space around it": signed_by(f" {GOOD}"),
    "another body": signed_by(GOOD, body=BODY.replace(b"01K", b"01L"), is_read=True),
    "no body": signed_by(GOOD, body=b"", is_read=True),
    "something after the body": signed_by(GOOD, body=BODY + b" {}", is_read=True),
    "a body that is not JSON, and no MAC of it": signed_by(f"t={NOW_S}&s={'0' * 64}", body=b"\xff", is_read=True),
    "NaN": signed_by(f"t={NOW_S}&s={'0' * 64}", body=b'{"a":NaN}', is_read=True),
    "a doubled function": signed_by(GOOD, query="fnId=app-fn&stepId=step&fnId=app-other"),
    "a doubled function, once encoded": signed_by(GOOD, query="fnId=app-fn&%66nId=app-other"),
    "a doubled probe": signed_by(GOOD, query=f"{QUERY}&probe=trust&probe="),
    "a query without end": signed_by(GOOD, query="&".join(f"q{number}=1" for number in range(17))),
    "a doubled sync kind": signed_by(
        GOOD, ("x-inngest-sync-kind", "in_band"), ("x-inngest-sync-kind", "out_of_band"), method="PUT"
    ),
    "a doubled job": signed_by(GOOD, ("x-inngest-job-id", "a"), ("X-Inngest-Job-Id", "b")),
    "HEAD": signed_by(GOOD, method="HEAD"),
    "OPTIONS": signed_by(GOOD, method="OPTIONS"),
    "DELETE": signed_by(GOOD, method="DELETE"),
    "PATCH": signed_by(GOOD, method="PATCH"),
    "a method in small letters": signed_by(GOOD, method="post"),
    "TRACE": signed_by(GOOD, method="TRACE"),
}


@pytest.fixture(autouse=True)
def _hostile_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "INNGEST_DEV": "1",
        "INNGEST_SIGNING_KEY": OTHER_KEY,
        "INNGEST_SIGNING_KEY_FALLBACK": OTHER_KEY,
        "INNGEST_ENABLE_UNAUTHED_SYNC": "1",
        "INNGEST_ALLOW_IN_BAND_SYNC": "1",
        "FORWARDED_ALLOW_IPS": "*",
    }.items():
        monkeypatch.setenv(name, value)


def test_a_good_call_gets_through(hosted: Hosted, ask: Ask) -> None:
    answer = ask(hosted.app, "POST", f"/api/inngest?{QUERY}", headers={HEADER: GOOD}, body=BODY)
    assert answer.status == 206
    assert [request.body for request in hosted.ingress.requests] == [BODY]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_alike_and_reaches_nothing(hosted: Hosted, ask: Ask, name: str) -> None:
    attack = ATTACKS[name]
    target = f"/api/inngest?{attack.query}"
    answer = ask(hosted.app, attack.method, target, headers=list(attack.headers), body=attack.body)
    assert (answer.status, answer.body) == (403, b"" if attack.method == "HEAD" else b"forbidden")
    assert hosted.ingress.requests == []
    assert (answer.chunks_taken > 0) is attack.is_read


@pytest.mark.parametrize("method", ["POST", "PUT", "GET"])
@pytest.mark.parametrize("query", [QUERY, "fnId=app-other&stepId=step", "probe=trust", ""])
def test_a_signature_is_good_for_one_call_whatever_the_second_one_asks_for(
    hosted: Hosted, ask: Ask, method: str, query: str
) -> None:
    first = ask(hosted.app, "POST", f"/api/inngest?{QUERY}", headers={HEADER: GOOD}, body=BODY)
    headers = {HEADER: GOOD, "x-request-id": "another"}
    again = ask(hosted.app, method, f"/api/inngest?{query}", headers=headers, body=b" " + BODY)
    assert (first.status, again.status, again.text) == (206, 403, "forbidden")
    assert len(hosted.ingress.requests) == 1


def test_a_forged_call_does_not_use_the_signature_up(hosted: Hosted, ask: Ask) -> None:
    forged = ask(hosted.app, "POST", f"/api/inngest?{QUERY}", headers={HEADER: GOOD}, body=b"{}")
    good = ask(hosted.app, "POST", f"/api/inngest?{QUERY}", headers={HEADER: GOOD}, body=BODY)
    assert (forged.status, good.status) == (403, 206)


@pytest.mark.parametrize("waited_s", [1, 299, 300, 301, 600])
def test_a_recorded_call_is_refused_at_any_later_time(hosted: Hosted, ask: Ask, waited_s: int) -> None:
    statuses = []
    for step_s in (0, waited_s):
        hosted.clock.advance(step_s * 1000)
        statuses.append(ask(hosted.app, "POST", f"/api/inngest?{QUERY}", headers={HEADER: GOOD}, body=BODY).status)
    assert statuses == [206, 403]


def test_during_a_rotation_the_old_key_is_accepted_too_and_no_third_one(hosted: Hosted, ask: Ask) -> None:
    new_key, old_key = "1" * 64, "2" * 64
    parts = msgspec.structs.replace(hosted.parts(), signing_keys=(new_key, old_key))
    app = build_app(hosted.manifest(), hosted.settings, parts, access_log=into(hosted.lines))
    statuses = [
        ask(app, "POST", f"/api/inngest?{QUERY}", headers={HEADER: signature(key=key)}, body=BODY).status
        for key in (new_key, old_key, ENGINE_KEY, OTHER_KEY)
    ]
    assert statuses == [206, 206, 403, 403]


@pytest.mark.parametrize(
    ("method", "key", "headers", "status"),
    [
        ("PUT", "own", {"x-inngest-sync-kind": "in_band"}, 200),
        ("PUT", "own", {}, 400),  # a sync that would call out: no server is configured
        ("PUT", "other", {"x-inngest-sync-kind": "in_band"}, 403),
        ("PUT", "none", {}, 403),
        ("PUT", "none", {"x-inngest-sync-kind": "in_band"}, 403),
        ("GET", "own", {}, 200),
        ("GET", "none", {}, 403),
        ("POST", "none", {"x-inngest-server-kind": "dev"}, 403),
    ],
)
def test_an_open_instance_is_not_weakened_by_development_switches(
    tmp_path: Path, method: str, key: str, headers: dict[str, str], status: int
) -> None:
    async def call() -> int:
        async with open_host(tmp_path, InstanceId("guarded"), compose(tmp_path), HostSettings()) as host:
            own = (tmp_path / ".rawr" / "secrets" / "engine.key").read_text().strip()
            body = b"" if method == "GET" else b'{"url":"http://evil.example/api/inngest"}'
            given = dict(headers)
            if key != "none":
                given[HEADER] = sign(body, {"own": own, "other": OTHER_KEY}[key], SystemClock().now_ms() // 1000)
            return (await asgi_call(host.app, method, {}, given, body)).status

    assert asyncio.run(asyncio.wait_for(call(), 60)) == status


def use(seen: SeenSignatures, number: int, *, at_s: int, now_s: int = 1000) -> bool:
    return seen.first_use(Signature(at_s=at_s, mac=f"{number:064x}"), now_s=now_s)


def test_a_signature_is_new_once_for_as_long_as_the_window_lets_it_in() -> None:
    seen = SeenSignatures()
    assert all(use(seen, 1, at_s=at_s) for at_s in (700, 1000, 1300))
    for at_s, now_s in ((700, 1000), (1000, 1300), (1300, 1600), (1300, 1000)):
        assert not use(seen, 1, at_s=at_s, now_s=now_s)


def test_what_has_left_the_window_is_forgotten() -> None:
    seen = SeenSignatures(seen_max=3)
    for second in range(0, 10_000, 301):  # two such threes would be too many
        assert all(use(seen, number, at_s=second, now_s=second) for number in range(3))


def test_a_full_memory_refuses_the_oldest_and_lets_nothing_in_twice() -> None:
    seen = SeenSignatures(seen_max=3)
    assert all(use(seen, 1, at_s=at_s) for at_s in (998, 999, 1000, 1001))
    assert not use(seen, 1, at_s=998)  # forgotten, so refused for its age
    assert not use(seen, 2, at_s=998)
    assert not use(seen, 1, at_s=999)
    assert use(seen, 2, at_s=999)
