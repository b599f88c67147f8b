"""`rawr open` gives a link that a running server accepts once."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from tests.cli.conftest import Hq


def redeemed(url: str) -> int:
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    body = json.dumps({"code": parts.fragment})
    connection.request("POST", "/console/login", body, {"content-type": "application/json"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_without_a_server_there_is_nothing_to_open(hq: Hq) -> None:
    answer = hq.json("open")
    assert (answer.code, answer.error["code"], answer.error["fix"]) == (69, "SERVER_NOT_RUNNING", "rawr up")
    assert not (hq.root / ".rawr/secrets/login-codes.json").exists()


def test_the_link_works_once(hq: Hq) -> None:
    server_url = hq.json("up").data["url"]
    try:
        data = hq.json("open").data
        assert data["url"].startswith(f"{server_url}/console/login#")
        assert "five minutes" in data["hint"]
        assert [redeemed(data["url"]), redeemed(data["url"])] == [200, 401]
        text = hq("open").out
        assert text.splitlines()[0].startswith(f"{server_url}/console/login#")
        assert data["hint"] in text
    finally:
        hq("down")
