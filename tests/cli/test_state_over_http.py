"""A real host and the state of its instance: contended writes, aliases that go away, and clones."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from rawr.instance.init import init_instance
from rawr.security.credentials import SecretsFolder
from rawr.state import RepoStateStore, enable_plugin

if TYPE_CHECKING:
    from tests.cli.conftest import Hq


class Caller:
    """A first-party caller: it has the key of the instance, and says that it is first-party."""

    def __init__(self, hq: Hq, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._address = (parts.hostname, parts.port)
        key = SecretsFolder(hq.root / ".rawr" / "secrets").cli_key()
        self._headers = {
            "authorization": f"Bearer {key}",
            "content-type": "application/json",
            "x-rawr-caller-surface": "first-party",
        }

    def status_of(self, path: str, *, api_key: str) -> int:
        """Of a GET by somebody with that key."""
        return self._exchange("GET", path, None, {"authorization": f"Bearer {api_key}"})[0]

    def runtime_state(self) -> Any:
        status, body = self._exchange("POST", "/rpc/state/getRuntimeState", {"json": {}}, self._headers)
        assert status == 200, body
        return json.loads(body)["json"]["state"]

    def _exchange(self, method: str, path: str, body: object, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(*self._address, timeout=20)
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        answer = response.status, response.read()
        connection.close()
        return answer


@pytest.fixture
def caller(hq: Hq) -> Iterator[Caller]:
    yield Caller(hq, hq.json("up", "--port", "0").data["url"])
    hq("down")


def test_after_contended_writes_the_host_answers_with_exactly_what_is_enabled(hq: Hq, caller: Caller) -> None:
    names = [f"plugin-{number:02}" for number in range(24)]
    with ThreadPoolExecutor(24) as threads:
        list(threads.map(lambda name: enable_plugin(hq.root, name), names))
    api_key = hq.json("token", "create", "--name", "reader", "--scope", "workflows:*").data["token"]
    assert caller.status_of("/api/workflows/state/runtime", api_key=api_key) == 404
    assert caller.runtime_state()["plugins"]["enabled"] == names


def test_a_host_that_was_started_by_an_alias_goes_on_when_the_alias_is_gone(hq: Hq, tmp_path: Path) -> None:
    alias = tmp_path / "alias"
    alias.symlink_to(hq.root, target_is_directory=True)
    url = hq.json("up", "--port", "0", "-I", str(alias)).data["url"]
    try:
        caller = Caller(hq, url)
        enable_plugin(alias, "by-alias")
        alias.unlink()
        enable_plugin(hq.root, "by-real-path")
        state = caller.runtime_state()
        assert state["plugins"]["enabled"] == ["by-alias", "by-real-path"]
        assert state["authorityRepoRoot"] == str(hq.root.resolve())
    finally:
        hq("down")


def test_the_host_of_one_clone_knows_nothing_of_the_other(hq: Hq, caller: Caller, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    init_instance(clone)
    enable_plugin(clone, "of-the-clone")
    enable_plugin(hq.root, "of-this-one")
    assert caller.runtime_state()["plugins"]["enabled"] == ["of-this-one"]
    assert RepoStateStore(clone).get().plugins.enabled == ("of-the-clone",)
