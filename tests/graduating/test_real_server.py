"""The same instance with an Inngest server as its engine: `rawr` as people run it, the server played over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rawr.instance.init import init_instance

if TYPE_CHECKING:
    from tests.graduating.conftest import FakeInngest

EVENT_KEY = "fake-event-key"
SIGNING_KEY = "signkey-prod-" + "0a" * 32
OLD_KEY = "signkey-prod-" + "0b" * 32
PLUGIN = """
from rawr.sdk import DeskFailed, desk_handler, on_finished, workflow_from

@desk_handler("grow.work")
def work(received, ctx):
    if ctx.desk_id == "flaky" and ctx.attempt == 1:
        raise DeskFailed("not yet")
    if ctx.desk_id == "hopeless":
        raise DeskFailed("never")
    return {"desk": ctx.desk_id}

@on_finished("grow.notify")
def notify(run, fx):
    fx.once("note", lambda: run.run_id)

def desk(name):
    return {
        "deskId": name, "kind": "desk:join" if name == "end" else "desk:analysis", "name": name,
        "responsibility": "r", "domain": "d", "handler": "grow.work", "inputSchema": {}, "outputSchema": {},
        "memoryScope": {"persist": False}, "runtimePolicy": {"retries": 1},
    }

def flow(name, desks, edges):
    return workflow_from({
        "workflowId": name, "version": 1, "name": name, "entryDeskId": desks[0],
        "desks": [desk(one) for one in desks],
        "handoffs": [{"handoffId": f"{a}-{b}", "fromDeskId": a, "toDeskId": b} for a, b in edges],
    })

workflows = (
    flow("diamond", ["a", "b", "flaky", "end"], [("a", "b"), ("a", "flaky"), ("b", "end"), ("flaky", "end")]),
    flow("doomed", ["a", "hopeless"], [("a", "hopeless")]),
)
"""


class Hq:
    """An instance whose engine is the fake, and its commands."""

    def __init__(self, root: Path, server: FakeInngest) -> None:
        self.root = root
        self.server = server
        self.keys = {"INNGEST_EVENT_KEY": EVENT_KEY, "INNGEST_SIGNING_KEY": SIGNING_KEY}
        init_instance(root)
        folder = root / "plugins/workflows/grow"
        folder.mkdir(parents=True)
        (folder / "plugin.py").write_text(PLUGIN)
        (folder / "pyproject.toml").write_text('[tool.rawr]\nkind = "workflows"\ncapability = "grow"\n')
        self.configure(f'mode = "inngest"\nbase_url = "{server.url}"\ntrace_url = "http://pages.example/env/x"\n')

    def configure(self, engine: str) -> None:
        (self.root / "rawr.toml").write_text(f"[server]\nport = 0\n[engine]\n{engine}")

    def rawr(self, *arguments: str, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The document that a command prints."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAWR_", "INNGEST_"))}
        done = subprocess.run(
            [sys.executable, "-m", "rawr", *arguments, "--json"],
            cwd=self.root,
            env={**clean, **self.keys, **(environ or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def done(self, *arguments: str) -> dict[str, Any]:
        document = self.rawr(*arguments)
        assert document["ok"], document["error"]
        data: dict[str, Any] = document["data"]
        return data

    def up(self, **environ: str) -> None:
        document = self.rawr("up", environ=environ)
        assert document["ok"], document["error"]
        self.server.wait_until(1, "registrations")

    def findings(self) -> dict[str, dict[str, Any]]:
        """What the doctor finds about engines, by id."""
        found = self.rawr("doctor")["data"]["findings"]
        return {finding["id"]: finding for finding in found if finding["id"].startswith("engine.")}


@pytest.fixture
def hq(tmp_path: Path, inngest_server: FakeInngest) -> Iterator[Hq]:
    hq = Hq(tmp_path / "hq", inngest_server)
    yield hq
    hq.rawr("down")


def inngest_link(run: dict[str, Any]) -> str:
    [url] = [link["url"] for link in run["traceLinks"] if link["provider"] == "inngest"]
    return str(url)


def test_the_same_functions_run_on_an_inngest_server(hq: Hq, inngest_server: FakeInngest) -> None:
    hq.up(INNGEST_DEV="1", INNGEST_SERVE_ORIGIN="http://evil.example", INNGEST_BASE_URL="http://evil.example")
    [app] = inngest_server.registrations
    url = hq.done("status")["url"]
    assert (app["appname"], app["url"]) == ("rawr-coordination", f"{url}/api/inngest")
    assert [function["id"] for function in app["functions"]] == [
        "rawr-coordination-coordination-workflow-runner",
        "rawr-coordination-coordination-workflow-runner-failure",
    ]

    run = hq.done("workflow", "coord", "run", "diamond", "--run-id", "grown")["run"]
    assert (run["status"], run["output"]) == ("completed", {"desk": "end"})
    inngest_server.wait_until(1, "ended")  # the hook is told between the end of the run and that of its step
    run = hq.done("workflow", "coord", "status", "grown")["run"]
    assert run["finalization"]["finishedHook"]["outcome"] == "succeeded"
    [(engine_run, outcome)] = inngest_server.ended.items()
    assert outcome == "completed"
    assert inngest_link(run) == f"http://pages.example/env/x/runs/{engine_run}"
    timeline = hq.done("workflow", "coord", "trace", "grown")["timeline"]
    assert [event["type"] for event in timeline].count("desk.failed") == 1
    assert list(inngest_server.events) == ["grown"]

    again = hq.done("workflow", "coord", "run", "diamond", "--run-id", "grown")["run"]
    assert again == run
    assert len(inngest_server.ended) == 1
    assert not (hq.root / ".rawr/engine.sqlite").exists()
    assert hq.findings() == {}


def test_a_run_that_fails_on_an_inngest_server_ends_as_failed_here(hq: Hq, inngest_server: FakeInngest) -> None:
    hq.up()
    document = hq.rawr("workflow", "coord", "run", "doomed", "--run-id", "lost")
    assert document["error"]["code"] == "RUN_FAILED"
    run = document["error"]["details"]["run"]
    assert (run["status"], run["error"]) == ("failed", "desk hopeless failed: never")
    inngest_server.wait_until(2, "ended")  # the function and its failure handler
    assert sorted(inngest_server.ended.values()) == ["completed", "failed"]
    types = [event["type"] for event in hq.done("workflow", "coord", "trace", "lost")["timeline"]]
    assert types.count("run.failed") == 1


def test_only_what_the_inngest_server_signs_now_gets_in(hq: Hq, inngest_server: FakeInngest) -> None:
    hq.keys["INNGEST_SIGNING_KEY_FALLBACK"] = OLD_KEY
    hq.up()
    assert inngest_server.call("GET", {}, b"").json["mode"] == "cloud"
    assert inngest_server.call("GET", {}, b"", key=OLD_KEY).status == 200
    embedded_key = "0" * 64
    if (hq.root / ".rawr/secrets/engine.key").exists():
        embedded_key = (hq.root / ".rawr/secrets/engine.key").read_text().strip()
    for key, offset_s in ((SIGNING_KEY, -301), (SIGNING_KEY, 301), ("signkey-prod-" + "0c" * 32, 0), (embedded_key, 0)):
        assert inngest_server.call("GET", {}, b"", key=key, offset_s=offset_s).status == 403
    body = b'{"url":"http://x"}'
    assert inngest_server.call("PUT", {}, body).json["ok"] is True  # a sync that the server asks for
    assert len(inngest_server.registrations) == 2


def test_during_a_rotation_the_other_key_is_shown_to_the_server_too(hq: Hq, inngest_server: FakeInngest) -> None:
    inngest_server.signing_key = OLD_KEY
    hq.keys["INNGEST_SIGNING_KEY_FALLBACK"] = OLD_KEY
    hq.up()
    run = hq.done("workflow", "coord", "run", "diamond")["run"]
    assert run["status"] == "completed"
    assert len(set(inngest_server.tokens)) == 2
    assert hq.findings() == {}


def test_without_the_server_process_a_run_is_not_begun_that_nobody_could_call(hq: Hq) -> None:
    document = hq.rawr("workflow", "coord", "run", "diamond")
    assert document["error"]["code"] == "SERVER_NOT_RUNNING"
    assert document["error"]["fix"] == "rawr up"


def test_a_missing_key_keeps_the_server_from_starting_and_is_named(hq: Hq) -> None:
    del hq.keys["INNGEST_EVENT_KEY"]
    error = hq.rawr("up")["error"]
    assert error["code"] == "ENGINE_KEY_MISSING"
    assert "INNGEST_EVENT_KEY" in error["message"]
    assert hq.findings()["engine.keys_unusable"]["severity"] == "error"


def test_the_doctor_says_what_is_wrong_with_the_way_to_the_server(hq: Hq, inngest_server: FakeInngest) -> None:
    assert hq.findings() == {}
    hq.keys["INNGEST_SIGNING_KEY"] = "signkey-prod-" + "0d" * 4
    found = hq.findings()
    assert {name: finding["severity"] for name, finding in found.items()} == {
        "engine.key_refused": "error",
        "engine.signing_key_short": "warning",
    }
    inngest_server.stop()
    found = hq.findings()
    assert found["engine.unreachable"]["severity"] == "error"
    assert inngest_server.url in found["engine.unreachable"]["title"]
    assert "0d0d" not in json.dumps(found)
