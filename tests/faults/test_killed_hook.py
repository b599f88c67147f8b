"""A process that is killed inside a finished hook: the hook is told again, and what it had done is not done again."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from rawr.coordination.model import HookOutcome, Run, RunStatus
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.ids import RunId
from rawr.instance.init import init_instance

HOOK = """
import os, signal
from pathlib import Path
from rawr.sdk import on_finished

HERE = Path(__file__).parent

def note(name):
    with (HERE / name).open("a") as file:
        file.write("x")

@on_finished("killed.hook", workflow_id="hello")
def dies_once(run, fx):
    note("told")
    fx.once("before", lambda: note("before"))
    if not (HERE / "died").exists():
        note("died")
        os.kill(os.getpid(), signal.SIGKILL)
    fx.once("after", lambda: note("after"))
"""
HOST = """
import asyncio, sys
from pathlib import Path
import msgspec
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings
from rawr.hq import load_manifest
from rawr.ids import InstanceId

async def main(root):
    async with open_host(root, InstanceId("killed"), load_manifest(root), HostSettings()) as host:
        await host.coordination.queue_run("hello", "run-1")
        while (await host.coordination.get_run("run-1")).finalization.finished_hook is msgspec.UNSET:
            await asyncio.sleep(0.02)

asyncio.run(asyncio.wait_for(main(Path(sys.argv[1])), 120))
"""


def host(root: Path) -> int:
    return subprocess.run([sys.executable, "-c", HOST, str(root)], timeout=180, check=False).returncode


def stored(root: Path) -> Run:
    with SqliteCoordinationStore(root / ".rawr/coordination.sqlite") as store:
        run = asyncio.run(store.get_run(RunId("run-1")))
    assert run is not None
    return run


def test_a_hook_whose_process_was_killed_is_told_again_and_repeats_no_recorded_effect(tmp_path: Path) -> None:
    root = tmp_path / "hq"
    init_instance(root)
    folder = root / "plugins/workflows/hooks"
    folder.mkdir(parents=True)
    (folder / "plugin.py").write_text(HOOK)
    (folder / "pyproject.toml").write_text('[tool.rawr]\nkind = "workflows"\ncapability = "hooks"\n')

    assert host(root) == -signal.SIGKILL
    killed = stored(root)
    assert killed.status is RunStatus.COMPLETED
    assert killed.finalization is not msgspec.UNSET
    assert killed.finalization.finished_hook is msgspec.UNSET

    assert host(root) == 0
    assert {name: (folder / name).read_text() for name in ("told", "before", "after")} == {
        "told": "xx",
        "before": "x",
        "after": "x",
    }
    after = stored(root)
    assert after.finalization is not msgspec.UNSET
    assert after.finalization.finished_hook is not msgspec.UNSET
    assert after.finalization.finished_hook.outcome is HookOutcome.SUCCEEDED
