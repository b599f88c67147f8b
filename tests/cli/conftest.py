"""Running `rawr` as people do, in a process of its own, on instances of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.instance.init import init_instance

PATIENCE_S = 60.0

GATED_MANIFEST = """[project]
name = "gated"
version = "0.1.0"

[tool.rawr]
kind = "workflows"
capability = "gated"
"""

# `first` notes that it ran; `second` waits until somebody makes the file `open` in the instance.
GATED_PLUGIN = """
import time
from rawr.sdk import DeskFailed, desk_handler, workflow_from

ANYTHING = {}

def note(ctx, name):
    with open(ctx.instance_root / "calls.txt", "a") as calls:
        calls.write(f"{name} {ctx.run_id}\\n")

@desk_handler("gated.first")
def first(received, ctx):
    note(ctx, "first")
    return {"given": received}

@desk_handler("gated.second")
def second(received, ctx):
    note(ctx, "second")
    deadline = time.monotonic() + 50
    while not (ctx.instance_root / "open").exists():
        if time.monotonic() > deadline:
            raise DeskFailed("nobody opened the gate")
        time.sleep(0.02)
    return {"path": str(ctx.instance_root / "written.md"), **received}

@desk_handler("gated.refuse")
def refuse(received, ctx):
    raise DeskFailed("the numbers \\x1b[31mcontradict\\x1b[0m each other")

def desk(desk_id, handler):
    return {
        "deskId": desk_id, "kind": "desk:analysis", "name": desk_id, "responsibility": "test", "domain": "test",
        "handler": handler, "inputSchema": ANYTHING, "outputSchema": ANYTHING, "memoryScope": {"persist": False},
    }

def workflow(workflow_id, desks):
    ids = [d["deskId"] for d in desks]
    return workflow_from({
        "workflowId": workflow_id, "version": 1, "name": workflow_id, "entryDeskId": ids[0], "desks": desks,
        "handoffs": [
            {"handoffId": f"{a}-{b}", "fromDeskId": a, "toDeskId": b} for a, b in zip(ids, ids[1:])
        ],
    })

workflows = (
    workflow("gated", [desk("first", "gated.first"), desk("second", "gated.second")]),
    workflow("echo", [desk("first", "gated.first")]),
    workflow("refusing", [desk("first", "gated.first"), desk("qa", "gated.refuse")]),
)
"""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The one JSON document on stdout; anything beside it fails here."""
        return json.loads(self.out)

    @property
    def data(self) -> Any:
        assert self.document["ok"] is True, self.out + self.err
        return self.document["data"]

    @property
    def error(self) -> Any:
        assert self.document["ok"] is False, self.out
        return self.document["error"]


def environment(home: Path, extra: dict[str, str] | None = None) -> dict[str, str]:
    """The environment of the test, without what would choose an instance or colours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAWR", "_RAWR"))}
    for name in ("NO_COLOR", "FORCE_COLOR"):
        kept.pop(name, None)
    return {**kept, "HOME": str(home), **(extra or {})}


class Hq:
    """An instance in a temporary folder, and `rawr` in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *args: str | bytes, env: dict[str, str] | None = None, given: bytes | None = None) -> Result:
        done = subprocess.run(
            self.command(*args),
            cwd=self.root,
            env=environment(self.root, env),
            input=given,
            stdin=subprocess.DEVNULL if given is None else None,
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return Result(code=done.returncode, out=done.stdout.decode(), err=done.stderr.decode())

    def json(self, *args: str, given: bytes | None = None) -> Result:
        return self(*args, "--json", given=given)

    @contextlib.contextmanager
    def started(self, *args: str) -> Iterator[subprocess.Popen[bytes]]:
        """`rawr` in the background; killed at the end of the block when it still runs."""
        process = subprocess.Popen(
            self.command(*args),
            cwd=self.root,
            env=environment(self.root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()

    def ended(self, process: subprocess.Popen[bytes]) -> Result:
        out, err = process.communicate(timeout=PATIENCE_S)
        return Result(code=process.returncode, out=out.decode(), err=err.decode())

    def command(self, *args: str | bytes) -> list[str | bytes]:
        return [sys.executable, "-W", "error", "-m", "rawr", *args]

    @property
    def record(self) -> Any:
        return json.loads((self.root / ".rawr/run/server.json").read_text())

    @property
    def calls(self) -> list[str]:
        """`<desk> <run>` of every call of a handler."""
        path = self.root / "calls.txt"
        return path.read_text().splitlines() if path.exists() else []

    def open_gate(self) -> None:
        (self.root / "open").touch()

    def wait_for_call(self, desk: str, run_id: str, *, times: int = 1) -> None:
        self.wait_until(lambda: self.calls.count(f"{desk} {run_id}") >= times, f"{desk} was not called")

    def wait_for_status(self, run_id: str, status: str) -> None:
        def has_it() -> bool:
            return bool(self.json("workflow", "coord", "status", run_id).data["run"]["status"] == status)

        self.wait_until(has_it, f"{run_id} is not {status}")

    def wait_until(self, true: Callable[[], bool], otherwise: str) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline_s, otherwise
            time.sleep(0.05)

    def kill_server(self) -> None:
        os.kill(self.record["pid"], signal.SIGKILL)


def make_hq(root: Path) -> Hq:
    init_instance(root)
    plugin = root / "plugins" / "workflows" / "gated"
    plugin.mkdir()
    (plugin / "pyproject.toml").write_text(GATED_MANIFEST)
    (plugin / "plugin.py").write_text(GATED_PLUGIN)
    (root / "rawr.toml").write_text("[server]\nport = 0\n")
    return Hq(root.resolve())


@pytest.fixture
def hq(tmp_path: Path) -> Iterator[Hq]:
    """An instance whose port is chosen by the system; its server is stopped at the end."""
    made = make_hq(tmp_path / "hq")
    yield made
    stop(made)


@pytest.fixture
def other_hq(tmp_path: Path) -> Iterator[Hq]:
    made = make_hq(tmp_path / "other")
    yield made
    stop(made)


def stop(made: Hq) -> None:
    made.open_gate()
    with contextlib.suppress(OSError, ValueError):
        if (made.root / ".rawr/run/server.json").exists():
            made("down")
