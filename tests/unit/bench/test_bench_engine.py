"""What the benchmark of the engine makes of its numbers, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.engineparts.judgement import ENDED, SLEEPERS, judged, medians, report, table
from bench.state import file_system_of

ROOT = Path(__file__).parents[3]
FOUND = {
    "engine": {"wallS": 2.0},
    "bare loop": {"wallS": 1.6},
    "DBOS: queue": {"wallS": 4.0},
    "DBOS: one by one": {"wallS": 3.0},
    "one run": {"gapP50Ms": 5.0},
    "runs of 50": {"cpuUsPerStep": 100.0},
    "run of 500": {"cpuUsPerStep": 130.0},
    "idle: nothing": {"cpuPercent": 0.2, "memoryMib": 40.0},
    f"idle: {SLEEPERS}": {"cpuPercent": 0.3, "memoryMib": 340.0},
    "start-up: empty file": {"wallS": 0.1, "cpuS": 0.05},
    f"start-up: {ENDED}": {"wallS": 0.2, "cpuS": 0.1},
}


def test_each_figure_is_the_median_of_its_rounds() -> None:
    found = medians({"engine": [{"wallS": 3.0, "cpuS": 1.0}, {"wallS": 1.0, "cpuS": 9.0}, {"wallS": 2.0, "cpuS": 2.0}]})
    assert found == {"engine": {"wallS": 2.0, "cpuS": 2.0}}


def test_what_is_exactly_at_its_bar_is_met() -> None:
    verdicts = judged(FOUND)
    assert len(verdicts) == 8
    assert all(verdict.is_met for verdict in verdicts)


@pytest.mark.parametrize(
    ("case", "measured"),
    [
        ("engine", {"wallS": 2.01}),
        ("bare loop", {"wallS": 1.59}),
        ("DBOS: queue", {"wallS": 3.9}),
        ("one run", {"gapP50Ms": 5.1}),
        ("run of 500", {"cpuUsPerStep": 131.0}),
        (f"idle: {SLEEPERS}", {"cpuPercent": 0.3, "memoryMib": 341.0}),
        (f"idle: {SLEEPERS}", {"cpuPercent": 0.31, "memoryMib": 340.0}),
        (f"start-up: {ENDED}", {"wallS": 0.21, "cpuS": 0.1}),
        (f"start-up: {ENDED}", {"wallS": 0.2, "cpuS": 0.11}),
    ],
)
def test_what_is_beyond_its_bar_is_missed(case: str, measured: dict[str, float]) -> None:
    missed = [verdict.claim for verdict in judged({**FOUND, case: measured}) if not verdict.is_met]
    assert len(missed) == (2 if case == "engine" else 1)


def test_without_the_peer_its_bar_is_left_out_and_that_is_said() -> None:
    found = {name: measured for name, measured in FOUND.items() if not name.startswith("DBOS")}
    verdicts = judged(found)
    assert not [verdict for verdict in verdicts if "DBOS" in verdict.claim]
    assert "dbos is not installed; `make bench` installs it" in table(found, verdicts, rounds=1)
    assert "not installed" not in table(FOUND, judged(FOUND), rounds=1)


def test_the_report_says_what_was_missed() -> None:
    found = {**FOUND, "one run": {"gapP50Ms": 7.0}}
    said = json.loads(json.dumps(report(found, judged(found))))
    assert [one["claim"] for one in said["verdicts"] if not one["isMet"]] == ["one run: step gap p50, ms"]
    assert said["cases"]["one run"] == {"gapP50Ms": 7.0}
    assert "7.00    at most 5.00  MISSED" in table(found, judged(found), rounds=3)


def test_the_benchmark_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if file_system_of(tmp_path) in {"tmpfs", "ramfs"}:
        pytest.skip("the temporary folder is in memory")
    run = subprocess.run(
        [sys.executable, "-m", "bench.engine", "--small", "--rounds", "1", "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert run.stderr == ""
    said = json.loads(run.stdout.splitlines()[-1])
    assert {"engine", "bare loop", "one run", "runs of 50", "run of 500"} < set(said["cases"])
    assert run.returncode == (0 if all(one["isMet"] for one in said["verdicts"]) else 1)
    assert list(tmp_path.iterdir()) == []
