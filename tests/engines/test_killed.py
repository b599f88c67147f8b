"""kill -9 at random moments, again and again: nothing that was remembered is lost or done a second time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NURSERY = Path(__file__).with_name("nursery.py")
SOURCE = Path(__file__).parents[2] / "src"


def grow_up(root: Path, *, seed: int, kills: int) -> Any:
    done = subprocess.run(
        [sys.executable, str(NURSERY), str(root), str(seed), str(kills)],
        capture_output=True,
        timeout=100,
        check=False,
        env={"PYTHONPATH": str(SOURCE), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("seed", [1, 2])
def test_runs_survive_being_killed_at_any_moment(tmp_path: Path, seed: int) -> None:
    told = grow_up(tmp_path, seed=seed, kills=12)
    assert told["lives"][-1] == {**told["lives"][-1], "killed": False, "status": 0}

    ran = [line.split(" ", 1) for line in told["log"]]
    assert not [what for _, what in ran if what.startswith("failed")]
    for number, life in enumerate(told["lives"]):
        again = {what for when, what in ran if int(when) == number} & {
            name.replace("desk/", "desk ") for name in life["remembered_before"]
        }
        assert again == set(), f"life {number} did again what was remembered"
    assert {what for _, what in ran} == {f"step {n}" for n in range(40)} | {f"desk {d}" for d in "abcde"}

    assert sum(life["killed"] for life in told["lives"]) >= 8

    runs = {fn_id: (status, output) for fn_id, status, output, _ in told["runs"]}
    assert runs["rawr-coordination-count"] == ("completed", str(sum(range(40))))
    assert len(told["runs"]) == 2

    coordination = told["coordination"]
    assert coordination["status"] == "completed"
    assert coordination["seqs"] == list(range(1, len(coordination["seqs"]) + 1))
    assert coordination["completed"] == ["a", "b", "c", "d", "e"]
    assert coordination["types"].count("run.completed") == 1
    assert coordination["types"][-1] == "run.completed"
    assert sorted(coordination["output"]["given"]) == ["b", "c", "d"]
