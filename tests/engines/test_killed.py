"""kill -9 at random moments, again and again: nothing that was remembered is lost or done a second time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.engines import household

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


def run_household(*arguments: object) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.household", *map(str, arguments)],
        capture_output=True,
        timeout=110,
        check=False,
        cwd=SOURCE.parent,
        env={"PYTHONPATH": f"{SOURCE}:{SOURCE.parent}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def assert_all_is_done_once(told: Any, counts: int, families: int) -> None:
    """Every run has its output, none is missing, and a step ran again only if its host died in it."""
    outputs = Counter((fn_id, status, output) for _, fn_id, status, output, _ in told["runs"])
    assert outputs == Counter(
        {
            ("app-count", "completed", '["count0","count1","count2","count3"]'): counts,
            ("app-parent", "completed", '["a","b","c","child"]'): families,
            ("app-child", "completed", '"child"'): families,
            ("app-listener", "completed", '"heard"'): families,
        }
    )
    dead = {life for life, what, *_ in told["log"] if what == "dies"}
    lives: dict[tuple[str, str], list[str]] = {}
    for life, what, *step in told["log"]:
        if what == "enter":
            lives.setdefault((step[0], step[1]), []).append(life)
    assert len(lives) == counts * 4 + families * 5
    for step, lived in lives.items():
        assert len(set(lived)) == len(lived), f"{step} ran twice in one life"
        assert set(lived[:-1]) <= dead, f"{step} ran again although its host lived"


def test_two_hosts_of_one_instance_survive_that_one_of_them_is_killed_again_and_again(tmp_path: Path) -> None:
    told = run_household("kill", tmp_path, 7, 12)
    assert told["statuses"] == [0, 0]
    assert sum(what == "dies" for _, what, *_ in told["log"]) == 12
    assert_all_is_done_once(told, household.COUNTS, household.FAMILIES)
    inside: set[tuple[str, str]] = set()
    dead: set[str] = set()
    for life, what, *step in told["log"]:
        if what == "dies":
            dead.add(life)
            inside = {entry for entry in inside if entry[0] != life}
        elif life not in dead and step[1].startswith("count"):
            entry = (life, " ".join(step))
            inside = inside | {entry} if what == "enter" else inside - {entry}
            assert len(inside) <= household.LIMIT


def test_two_hosts_with_different_code_are_killed_again_and_again_and_every_run_stays_in_its_code(
    tmp_path: Path,
) -> None:
    told = run_household("codes", tmp_path, 5, 12)
    assert told["statuses"] == [0, 0]
    assert_all_is_done_once(told, household.COUNTS, household.FAMILIES)
    codes: dict[str, set[str]] = {}
    for life, what, *step in told["log"]:
        if what == "enter":
            codes.setdefault(step[0], set()).add(told["codes"][life])
    assert {frozenset(one) for one in codes.values()} == {frozenset({"old"}), frozenset({"new"})}


def test_work_whose_host_is_killed_at_any_of_its_transactions_is_neither_lost_nor_repeated(tmp_path: Path) -> None:
    told = run_household("boundaries", tmp_path)
    assert sum(one["killed"] for one in told) > 30
    for one in told:
        assert one["statuses"] == [0]
        assert_all_is_done_once(one, 0, 1)
