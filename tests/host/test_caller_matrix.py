"""Who gets into which family, with what evidence. Claims in headers never count; labels only narrow."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

from rawr.security.policy import CallerClass, Family, opens

if TYPE_CHECKING:
    from tests.host.conftest import Ask, Hosted

CLAIMS: dict[str, str] = {
    "x-rawr-caller-surface": "first-party",
    "x-rawr-session-auth": "verified",
    "x-rawr-service-auth": "verified",
    "x-rawr-cli-auth": "1",
    "x-forwarded-host": "localhost",
    "x-forwarded-for": "127.0.0.1",
    "cookie": "session=verified",
    "user-agent": "rawr-cli",
}
LIST = {
    "rpc": ("POST", "/rpc/coordination/listWorkflows", b'{"json":{}}'),
    "orpc": ("GET", "/api/orpc/coordination/workflows", b""),
    "workflows": ("GET", "/api/workflows/coordination/workflows", b""),
    "ingress": ("POST", "/api/inngest?fnId=x&stepId=step", b"{}"),
    "document": ("GET", "/api/orpc/openapi.json", b""),
}
REFUSED = {"rpc": 403, "orpc": 401, "workflows": 401, "ingress": 403, "document": 401}


def status(hosted: Hosted, ask: Ask, family: str, headers: dict[str, str] | list[tuple[str, str]]) -> int:
    method, target, body = LIST[family]
    return ask(hosted.app, method, target, headers=headers, body=body).status


@pytest.mark.parametrize("family", sorted(LIST))
@pytest.mark.parametrize(
    "headers",
    [
        {},
        CLAIMS,
        {"authorization": "Bearer "},
        {"authorization": "Bearer wrong"},
        {"authorization": f"Bearer {'0' * 64}"},
        {"authorization": f"Bearer rawr_{'0' * 12}_{'A' * 43}"},
        {"authorization": "Basic YTpi"},
        {**CLAIMS, "authorization": "Bearer verified"},
    ],
)
def test_without_a_right_secret_every_family_refuses(
    hosted: Hosted, ask: Ask, family: str, headers: dict[str, str]
) -> None:
    hosted.bearer("orpc:*")  # there are keys; this caller has none of them
    assert status(hosted, ask, family, headers) == REFUSED[family]


def test_the_cli_key_opens_rpc_and_nothing_else(hosted: Hosted, ask: Ask) -> None:
    answers = {family: status(hosted, ask, family, hosted.bearer()) for family in LIST}
    assert answers == {**REFUSED, "rpc": 200}


def test_an_api_key_opens_what_its_scopes_name_and_never_rpc_or_the_ingress(hosted: Hosted, ask: Ask) -> None:
    cases: dict[tuple[str, ...], dict[str, int]] = {
        ("orpc:*",): {"orpc": 200, "workflows": 403, "document": 200},
        ("orpc:coordination",): {"orpc": 200, "workflows": 403, "document": 200},
        ("orpc:state",): {"orpc": 403, "workflows": 403, "document": 200},
        ("workflows:*",): {"orpc": 403, "workflows": 200, "document": 200},
        ("workflows:coordination",): {"orpc": 403, "workflows": 200, "document": 200},
        ("workflows:briefing",): {"orpc": 403, "workflows": 403, "document": 200},
        ("orpc:*", "workflows:*"): {"orpc": 200, "workflows": 200, "document": 200},
    }
    for scopes, opened in cases.items():
        bearer = hosted.bearer(*scopes)
        answers = {family: status(hosted, ask, family, bearer) for family in LIST}
        assert answers == {"rpc": 403, "ingress": 403, **opened}, scopes


def test_a_missing_scope_is_named(hosted: Hosted, ask: Ask) -> None:
    answer = ask(hosted.app, "GET", "/api/orpc/coordination/workflows", headers=hosted.bearer("orpc:state"))
    assert answer.json == {
        "defined": False,
        "code": "FORBIDDEN",
        "status": 403,
        "message": "this API key does not have the scope orpc:coordination",
    }


def test_a_missing_key_says_how_to_authenticate(hosted: Hosted, ask: Ask) -> None:
    answer = ask(hosted.app, "GET", "/api/orpc/coordination/workflows")
    assert (answer.status, answer.json["code"], answer.headers["www-authenticate"]) == (401, "UNAUTHORIZED", "Bearer")
    assert list(answer.json) == ["defined", "code", "status", "message"]


def test_the_key_is_asked_for_before_the_route_is_told(hosted: Hosted, ask: Ask) -> None:
    for target in ("/api/orpc/nope", "/api/workflows/nope/x", "/api/orpc"):
        assert ask(hosted.app, "GET", target).status == 401
        answer = ask(hosted.app, "GET", target, headers=hosted.bearer("orpc:state"))
        assert (answer.status, answer.text) == (404, "not found")
    assert ask(hosted.app, "POST", "/rpc/nope").status == 403
    assert ask(hosted.app, "POST", "/rpc/nope", headers=hosted.bearer()).status == 404


def test_a_revoked_key_is_refused_at_once(hosted: Hosted, ask: Ask) -> None:
    made = hosted.credentials.tokens.create("short-lived", ["orpc:*"])
    bearer = {"authorization": f"Bearer {made.token}"}
    assert status(hosted, ask, "orpc", bearer) == 200
    hosted.credentials.tokens.revoke(made.record.token_id)
    assert status(hosted, ask, "orpc", bearer) == 401


def test_an_expired_key_is_refused(hosted: Hosted, ask: Ask) -> None:
    made = hosted.credentials.tokens.create("dated", ["orpc:*"], expires_at_ms=hosted.clock.now_ms() + 1000)
    bearer = {"authorization": f"Bearer {made.token}"}
    assert status(hosted, ask, "orpc", bearer) == 200
    hosted.clock.advance(1000)
    assert status(hosted, ask, "orpc", bearer) == 401


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("cli", 200),
        ("First-Party", 200),
        ("internal", 200),
        ("trusted-service", 200),
        ("in-process", 200),
        ("external", 403),
        ("third-party", 403),
        ("runtime-ingress", 403),
        ("browser", 403),
        ("", 403),
    ],
)
def test_a_label_takes_the_cli_key_off_rpc_and_never_puts_anybody_on(
    hosted: Hosted, ask: Ask, label: str, expected: int
) -> None:
    assert status(hosted, ask, "rpc", {**hosted.bearer(), "x-rawr-caller-surface": label}) == expected
    assert status(hosted, ask, "rpc", {**CLAIMS, "x-rawr-caller-surface": label}) == 403


def test_two_credentials_are_none(hosted: Hosted, ask: Ask) -> None:
    right = hosted.bearer()["authorization"]
    doubled = [("authorization", right), ("authorization", right)]
    assert status(hosted, ask, "rpc", doubled) == 403
    assert status(hosted, ask, "rpc", [("authorization", right), ("authorization", "Bearer x")]) == 403


def test_a_signature_opens_the_ingress_and_nothing_else(hosted: Hosted, ask: Ask) -> None:
    for family, (method, target, body) in LIST.items():
        answer = ask(hosted.app, method, target, headers=hosted.signed(body), body=body)
        assert answer.status == (206 if family == "ingress" else REFUSED[family])


def test_key_files_that_cannot_be_trusted_let_nobody_in_and_are_not_described(hosted: Hosted, ask: Ask) -> None:
    bearer = hosted.bearer("orpc:*")
    path = hosted.credentials.tokens_path
    path.write_text("{")
    answer = ask(hosted.app, "GET", "/api/orpc/coordination/workflows", headers=bearer)
    assert (answer.status, answer.json["code"]) == (503, "CREDENTIALS_UNAVAILABLE")
    assert str(path) not in answer.text
    assert status(hosted, ask, "document", bearer) == 503


def test_the_access_log_knows_who_called_and_keeps_no_secret(hosted: Hosted, ask: Ask) -> None:
    bearer = hosted.bearer("orpc:*")
    status(hosted, ask, "orpc", bearer)
    status(hosted, ask, "rpc", hosted.bearer())
    status(hosted, ask, "rpc", {})
    told: list[tuple[Any, ...]] = [(line["family"], line["caller"], line["operation"]) for line in hosted.lines]
    assert told == [
        ("orpc", "external", "coordination/listWorkflows"),
        ("rpc", "cli", "coordination/listWorkflows"),
        ("rpc", "unlabeled", None),
    ]
    assert bearer["authorization"].split()[1] not in repr(hosted.lines)
    assert hosted.credentials.cli_key not in repr(hosted.lines)


# The table itself, with the evidence of each class


def evidence(hosted: Hosted, caller_class: CallerClass, body: bytes) -> dict[str, str]:
    tokens = hosted.credentials.tokens
    match caller_class:
        case CallerClass.FIRST_PARTY:
            secret = hosted.credentials.ring.sessions.open().secret
            own = {"sec-fetch-site": "same-origin", "content-type": "application/json"}
            return {"cookie": f"rawr_session_3000={secret}", **own}
        case CallerClass.INTERNAL | CallerClass.TRUSTED_SERVICE:
            return {"authorization": f"Bearer {tokens.create('s', ['rpc:*'], caller_class=caller_class).token}"}
        case CallerClass.CLI:
            return hosted.bearer()
        case CallerClass.EXTERNAL:
            return hosted.bearer("orpc:*", "workflows:*")
        case CallerClass.RUNTIME_INGRESS:
            return hosted.signed(body)
        case CallerClass.UNLABELED:
            return {}


PLACES: dict[Family, tuple[str, str, bytes, int, int]] = {
    Family.RPC: (*LIST["rpc"], 200, 403),
    Family.ORPC: (*LIST["orpc"], 200, 401),
    Family.WORKFLOWS: (*LIST["workflows"], 200, 401),
    Family.INGRESS: (*LIST["ingress"], 206, 403),
    Family.CONSOLE: ("GET", "/console/", b"", 200, 303),
    Family.OPEN: ("GET", "/health", b"", 200, 0),
}


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize("caller_class", list(CallerClass))
def test_a_class_opens_the_families_of_its_row_and_no_other(
    hosted: Hosted, ask: Ask, caller_class: CallerClass, family: Family
) -> None:
    method, target, body, welcome, refused = PLACES[family]
    headers = evidence(hosted, caller_class, body)
    answer = ask(hosted.app, method, target, headers=headers, body=body)
    assert answer.status == (welcome if opens(caller_class, family) else refused)


@pytest.mark.parametrize("label", [*CallerClass, "in-process", "third-party", "browser", ""])
@pytest.mark.parametrize("caller_class", list(CallerClass))
def test_a_label_opens_nothing_to_any_class(hosted: Hosted, ask: Ask, caller_class: CallerClass, label: str) -> None:
    for family, (method, target, body, welcome, _) in PLACES.items():
        headers = {**evidence(hosted, caller_class, body), "x-rawr-caller-surface": label}
        if ask(hosted.app, method, target, headers=headers, body=body).status == welcome:
            assert opens(caller_class, family)


def test_a_fault_of_ours_is_logged_without_the_credentials_of_who_met_it(
    hosted: Hosted, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    hosted.state.error = RuntimeError("broken")
    callers = [hosted.bearer(), evidence(hosted, CallerClass.FIRST_PARTY, b"")]
    for headers in callers:
        answer = ask(hosted.app, "POST", "/rpc/state/getRuntimeState", headers=headers, body=b'{"json":{}}')
        assert answer.status == 500
        secret = headers.get("cookie", headers.get("authorization", ""))[-43:]
        assert secret not in caplog.text + answer.text
    assert "RuntimeError: broken" in caplog.text


def test_the_log_says_which_key_was_refused_and_why_and_keeps_no_secret(
    hosted: Hosted, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    made = hosted.credentials.tokens.create("gone", ["orpc:*"])
    hosted.credentials.tokens.revoke(made.record.token_id)
    with caplog.at_level(logging.INFO, "rawr.host"):
        assert status(hosted, ask, "orpc", {"authorization": f"Bearer {made.token}"}) == 401
        assert status(hosted, ask, "orpc", {}) == 401
    (line,) = caplog.messages
    assert f"key {made.record.token_id} is refused: no such key, or it was revoked" in line
    assert made.token[-43:] not in caplog.text
