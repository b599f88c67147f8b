"""The headline promise: kill -9 the server in the middle of repo-briefing, start it again, and the run completes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rawr.coordination.model import TERMINAL_STATUSES, Run
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.ids import RunId
from rawr.instance.init import init_instance
from rawr.telemetry.checker import check_timeline, observed_event

REPOSITORY = Path(__file__).parents[2]
COMMITTER = {"GIT_AUTHOR_NAME": "Ada", "GIT_AUTHOR_EMAIL": "a@b.example"}
COMMITTER |= {"GIT_COMMITTER_NAME": "Ada", "GIT_COMMITTER_EMAIL": "a@b.example", "GIT_CONFIG_GLOBAL": os.devnull}
KILLS = 6


def rawr(root: Path, *arguments: str) -> dict[str, Any]:
    """The document that a command prints."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAWR_")}
    done = subprocess.run(
        [sys.executable, "-m", "rawr", *arguments, "--json"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    document: dict[str, Any] = json.loads(done.stdout)
    assert document["ok"], document["error"]
    return document


@pytest.fixture
def hq(tmp_path: Path) -> Iterator[Path]:
    """An instance that is a git repository with two commits, and has the plugin `briefing`."""
    root = tmp_path / "hq"
    init_instance(root)
    shutil.copytree(
        REPOSITORY / "plugins/workflows/briefing",
        root / "plugins/workflows/briefing",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"], ["commit", "-qm", "two", "--allow-empty"]):
        subprocess.run(["git", "-C", root, *command], env={**os.environ, **COMMITTER}, check=True)
    yield root
    rawr(root, "down")


def plan_of(root: Path) -> dict[str, list[str]]:
    listed = rawr(root, "workflow", "coord", "list")["data"]["workflows"]
    [workflow] = [found for found in listed if found["workflowId"] == "repo-briefing"]
    plan: dict[str, list[str]] = {desk["deskId"]: [] for desk in workflow["desks"]}
    for handoff in workflow["handoffs"]:
        plan[handoff["toDeskId"]].append(handoff["fromDeskId"])
    return plan


def killed(root: Path) -> None:
    pid = json.loads((root / ".rawr/run/server.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    for _ in range(500):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        time.sleep(0.01)
    raise AssertionError(f"{pid} does not die")


def stored(store: SqliteCoordinationStore, run_id: str) -> tuple[Run | None, int]:
    """The run as it is on disk, and how many events it has."""
    run = asyncio.run(store.get_run(RunId(run_id)))
    return run, 0 if run is None else len(asyncio.run(store.timeline(RunId(run_id))))


def started_and_killed(root: Path, run_id: str, events: int) -> bool:
    """Start a run, kill the server when the run has that many events; whether that was before its end."""
    coord = [sys.executable, "-m", "rawr", "workflow", "coord"]
    command = [*coord, "run", "repo-briefing", "--run-id", run_id, "--no-wait"]
    with (
        SqliteCoordinationStore(root / ".rawr/coordination.sqlite") as store,
        subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as asking,
    ):
        deadline = time.monotonic() + 60
        while stored(store, run_id)[1] < events:
            assert time.monotonic() < deadline, f"{run_id} has no {events} events"
        killed(root)
        asking.wait(60)
        run, _ = stored(store, run_id)
    assert run is not None
    return run.status not in TERMINAL_STATUSES


def ended(root: Path, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        run: dict[str, Any] = rawr(root, "workflow", "coord", "status", run_id)["data"]["run"]
        if run["status"] in ("completed", "failed"):
            return run
        time.sleep(0.05)
    raise AssertionError(f"{run_id} does not end")


def test_repo_briefing_survives_any_kill_with_one_result_per_desk_and_a_gapless_timeline(hq: Path) -> None:
    dice = random.Random(20261122)
    rawr(hq, "up", "--port", "0")
    plan = plan_of(hq)
    interrupted = 0
    for number in range(KILLS):
        run_id = f"killed-{number}"
        interrupted += started_and_killed(hq, run_id, events=1 + dice.randrange(2 * len(plan)))
        rawr(hq, "up", "--port", "0")
        run = ended(hq, run_id)
        trace = rawr(hq, "workflow", "coord", "trace", run_id)["data"]
        events = [observed_event(event) for event in trace["timeline"]]
        assert run["status"] == "completed", run
        assert check_timeline(events, ended=True, plan=plan) == []
        completions = Counter(event.desk_id for event in events if event.type == "desk.completed")
        assert completions == dict.fromkeys(plan, 1)
        assert Path(run["output"]["path"]).read_text().startswith("# ")
    assert interrupted, "every kill came too late to interrupt anything"
