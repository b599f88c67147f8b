"""`rawr token` and `rawr session`: keys are made, listed, rotated and taken back; sessions are listed and ended."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cli.conftest import Hq

ORPC = "/api/orpc/coordination/workflows"


def asked(
    url: str, method: str, path: str, headers: dict[str, str], body: bytes = b""
) -> tuple[int, http.client.HTTPMessage]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.headers


def status(url: str, token: str, path: str = ORPC) -> int:
    return asked(url, "GET", path, {"authorization": f"Bearer {token}"})[0]


def signed_in(hq: Hq) -> dict[str, str]:
    """The header with the cookie of a new session."""
    link = hq.json("open").data["url"]
    body = json.dumps({"code": urlsplit(link).fragment}).encode()
    _, headers = asked(link, "POST", "/console/login", {"content-type": "application/json"}, body)
    return {"cookie": headers["set-cookie"].partition(";")[0]}


@pytest.fixture
def url(hq: Hq) -> Iterator[str]:
    yield hq.json("up").data["url"]
    hq("down")


def test_a_key_is_made_listed_rotated_and_revoked_while_the_server_runs(hq: Hq, url: str) -> None:
    made = hq.json("token", "create", "--name", "ci", "--scope", "orpc:*", "--rate-per-minute", "600").data
    assert status(url, made["token"]) == 200
    fresh = hq.json("token", "rotate", made["id"]).data
    assert fresh["id"] == made["id"]
    assert [status(url, fresh["token"]), status(url, made["token"])] == [200, 200]
    last = hq.json("token", "rotate", made["id"], "--overlap-minutes", "0").data
    assert [status(url, token) for token in (last["token"], fresh["token"], made["token"])] == [200, 401, 401]
    assert hq.json("token", "revoke", made["id"]).data["revoked"]["id"] == made["id"]
    assert status(url, last["token"]) == 401
    assert hq.json("token", "list").data == {"tokens": []}


def test_a_list_tells_everything_but_secrets(hq: Hq) -> None:
    create = ("token", "create", "--name", "night \x1b[31mwatch", "--scope", "rpc:state", "--class", "trusted-service")
    made = hq.json(*create, "--principal", "agent", "--expires-in-days", "2", "--rate-per-minute", "90").data
    hq.json("token", "rotate", made["id"])
    (row,) = hq.json("token", "list").data["tokens"]
    times = {name: row.pop(name) for name in ("createdAt", "expiresAt", "formerSecretEndsAt")}
    assert row == {
        "id": made["id"],
        "name": "night \x1b[31mwatch",
        "class": "trusted-service",
        "scopes": ["rpc:state"],
        "principal": "agent",
        "ratePerMinute": 90,
    }
    assert times["createdAt"] < times["formerSecretEndsAt"] < times["expiresAt"]
    text = hq("token", "list").out
    assert "trusted-service/agent" in text
    assert "90/min" in text
    assert "\x1b" not in text
    assert made["token"][-43:] not in text


def test_a_list_tells_when_a_key_was_last_used(hq: Hq) -> None:
    url = hq.json("up").data["url"]
    made = hq.json("token", "create", "--name", "ci", "--scope", "orpc:*").data
    assert "lastUsedAt" not in hq.json("token", "list").data["tokens"][0]
    assert status(url, made["token"]) == 200
    hq("down")  # writes it down
    (row,) = hq.json("token", "list").data["tokens"]
    assert row["createdAt"] <= row["lastUsedAt"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "--name", "x", "--scope", "rpc:*"), "INVALID_SCOPE"),
        (("create", "--name", "x", "--scope", "orpc:*", "--class", "internal"), "INVALID_SCOPE"),
        (("create", "--name", "x", "--scope", "orpc:*", "--class", "cli"), "USAGE"),
        (("create", "--name", "x", "--scope", "orpc:*", "--rate-per-minute", "0"), "USAGE"),
        (("rotate", "000000000000"), "TOKEN_NOT_FOUND"),
        (("revoke", "000000000000"), "TOKEN_NOT_FOUND"),
    ],
)
def test_what_cannot_be_done_says_why(hq: Hq, words: tuple[str, ...], code: str) -> None:
    answer = hq.json("token", *words)
    assert (answer.code, answer.error["code"]) == (2, code)
    assert hq.json("token", "list").data["tokens"] == []


def test_the_key_of_the_command_line_is_replaced_under_a_running_server(hq: Hq, url: str) -> None:
    path = hq.root / ".rawr/secrets/cli.key"
    before = path.read_text().strip()
    assert hq.json("token", "rotate", "cli").data == {"rotated": "cli", "path": str(path)}

    def listed(secret: str) -> int:
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
        return asked(url, "POST", "/rpc/coordination/listWorkflows", headers, b'{"json":{}}')[0]

    assert [listed(before), listed(path.read_text().strip())] == [403, 200]
    assert hq.json("workflow", "coord", "list").code == 0


def test_sessions_are_listed_and_ended_one_by_one_or_together(hq: Hq, url: str) -> None:
    def pages(*cookies: dict[str, str]) -> list[int]:
        return [asked(url, "GET", "/console/", cookie)[0] for cookie in cookies]

    def rows() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = hq.json("session", "list").data["sessions"]
        return listed

    assert rows() == []
    cookies = [signed_in(hq) for _ in range(3)]
    assert pages(*cookies) == [200, 200, 200]
    ids = [row["id"] for row in rows()]
    assert len(set(ids)) == 3
    assert {"id", "openedAt", "lastUsedAt", "expiresAt"} == set(rows()[0])
    assert hq.json("session", "revoke", ids[0]).data == {"revoked": 1}
    assert pages(*cookies) == [303, 200, 200]
    assert hq.json("session", "revoke", "--all").data == {"revoked": 2}
    assert pages(*cookies) == [303, 303, 303]
    assert hq("session", "list").out.strip() == "nobody is signed in"


@pytest.mark.parametrize(
    ("words", "code"), [((), "BAD_REQUEST"), (("a", "--all"), "BAD_REQUEST"), (("000000000000",), "SESSION_NOT_FOUND")]
)
def test_a_revocation_names_what_is_to_end(hq: Hq, words: tuple[str, ...], code: str) -> None:
    answer = hq.json("session", "revoke", *words)
    assert (answer.code, answer.error["code"]) == (2, code)
