"""Apps of the real Inngest SDK for TypeScript on `rawr engine serve`, of both major versions that are in use.

Runs where node is and the kit's packages are installed (`make kit`); skipped with the reason elsewhere.
"""

from __future__ import annotations

import http.client
import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from tests.engine_server.conftest import (
    EVENT_KEY,
    SIGNING_KEY,
    EngineServer,
    Program,
    World,
    ask,
    clean_environ,
    free_port,
    wait_for,
)

KIT: Final = Path(__file__).with_name("ts_kit")
VERSIONS: Final = {"3": "3.54.2", "4": "4.24.0"}


def why_not(version: str) -> str | None:
    if shutil.which("node") is None:
        return "node is not on PATH"
    if not (KIT / "node_modules" / f"inngest-{version}").is_dir():
        return f"inngest {VERSIONS[version]} is not installed: make kit"
    return None


class TsApp(Program):
    def __init__(self, root: Path, version: str, engine: EngineServer, mode: str) -> None:
        keys = {"INNGEST_SIGNING_KEY": SIGNING_KEY, "INNGEST_EVENT_KEY": EVENT_KEY, "INNGEST_DEV": "0"}
        where = {**keys, "INNGEST_BASE_URL": engine.url} if mode != "dev" else {"INNGEST_DEV": engine.url}
        streaming = {"KIT_STREAMING": "1"} if mode == "streamed" else {}
        super().__init__(root, f"ts{version}", clean_environ(HOME=str(root), **where, **streaming))
        self.port = free_port()
        self.arguments = ["node", str(KIT / "app.mjs"), version, str(self.port)]
        self.url = f"http://127.0.0.1:{self.port}/api/inngest"

    def entered(self, run_id: str) -> dict[str, int]:
        """How often each step of the run was entered, by its name."""
        try:
            found = ask(self.port, "GET", "/entered").json
        except (OSError, http.client.HTTPException):
            return {}
        return {key.partition(" ")[2]: count for key, count in found.items() if key.startswith(run_id)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("mode", ["dev", "signed", "streamed"])
def test_an_app_in_typescript_has_everything_that_it_has_with_inngest(world: World, version: str, mode: str) -> None:
    if reason := why_not(version):
        pytest.skip(reason)
    engine = world.engine(dev=mode == "dev")
    app = world.kept(TsApp(world.root, version, engine, mode))
    engine.arguments += ["--app", app.url]
    app.start()
    engine.start()
    name = f"ts{version}"
    wait_for(lambda: f"{name}-all" in engine.ready().functions(), "the app is registered")

    event = engine.send(f"{name}/all", n=7)
    run = wait_for(lambda: engine.runs_of(event), "it runs")[0]["run_id"]

    def steps() -> dict[str, Any]:
        return {step["name"]: step for step in engine.data(f"/v1/runs/{run}/steps")}

    wait_for(lambda: "hear" in steps(), "it waits")
    engine.send(f"{name}/answer", n=6, word="not this")
    engine.send(f"{name}/answer", n=7, word="this")
    ended = engine.ended(event)
    assert ended["output"] == {
        "n": 7,
        "pair": ["a", "b"],
        "added": 3,
        "helped": {"helped": name},
        "heard": "this",
        "winner": "fast",
        "caught": "no",
    }
    assert app.entered(run) == {"one": 1, "a": 1, "b": 1, "bad": 4}
    told = steps()
    assert (told["add"]["input"], told["add"]["output"]) == ([1, 2], 3)
    assert (told["bad"]["status"], told["bad"]["attempt"], told["bad"]["error"]["message"]) == ("failed", 3, "no")
    assert told["help"]["op"] == "InvokeFunction"

    assert engine.ended(engine.send(f"{name}/large"))["output"] == 6_000_000
    doomed = engine.ended(engine.send(f"{name}/doomed", n=1))
    assert (doomed["status"], doomed["error"]["message"]) == ("Failed", "it cannot be")
    wait_for(lambda: app.entered(doomed["run_id"]) == {"mourned": 1}, "onFailure is called")
    again = engine.send(f"{name}/doomed", n=1)
    engine.ended(engine.send(f"{name}/helper"))
    assert engine.runs_of(again) == []  # idempotency


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kit_is_pinned(version: str) -> None:
    locked = json.loads((KIT / "package-lock.json").read_text())["packages"]
    package = locked[f"node_modules/inngest-{version}"]
    assert (package["name"], package["version"]) == ("inngest", VERSIONS[version])
    assert all(one["integrity"].startswith("sha512-") for path, one in locked.items() if path)
    assert not any("resolved" in one for one in locked.values())
