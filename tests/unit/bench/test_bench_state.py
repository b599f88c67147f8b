"""What the benchmark of the repo state makes of its numbers, and that it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bench.repostate.crowd import LostUpdateError, verify
from bench.repostate.judgement import (
    Pace,
    Process,
    Verdict,
    judged_alone,
    judged_crowd,
    judged_fairness,
    median_pace,
    pace_of,
    percentile,
    report,
    table,
)
from bench.state import file_system_of

ROOT = Path(__file__).parents[3]


def pace(per_s: float, p99_ms: float = 1.0, last_over_median: float = 1.0) -> Pace:
    return Pace(per_s=per_s, p99_ms=p99_ms, last_over_median=last_over_median)


def test_a_pace_counts_from_the_first_start_to_the_last_end() -> None:
    crowd = [
        Process(began_s=10.0, ended_s=11.0, took_s=(0.5, 0.5)),
        Process(began_s=10.5, ended_s=12.0, took_s=(0.7, 0.8)),
        Process(began_s=10.0, ended_s=14.0, took_s=(1.0, 3.0)),
    ]
    assert pace_of(crowd) == Pace(per_s=6 / 4.0, p99_ms=3000.0, last_over_median=4.0 / 2.0)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (50, 50), (100, 99), (400, 396)])
def test_the_99th_percentile_is_the_smallest_value_that_99_of_100_do_not_exceed(count: int, expected: int) -> None:
    assert percentile(list(range(count, 0, -1)), 99) == expected


def test_each_figure_is_the_median_of_its_rounds() -> None:
    rounds = [pace(100, 9, 1.5), pace(300, 2, 1.1), pace(200, 5, 3.0)]
    assert median_pace(rounds) == Pace(per_s=200, p99_ms=5, last_over_median=1.5, rounds=3)


def test_what_one_process_costs_is_judged_as_a_multiple_of_the_floor() -> None:
    verdicts = judged_alone({"floor": 4.0, "enable": 7.2, "mutate": 7.3, "get": 0.4})
    assert [(round(one.ratio, 3), one.is_met) for one in verdicts] == [(1.8, True), (1.825, False), (0.1, True)]


def test_a_crowd_is_judged_against_the_naive_writer_and_the_unshared_change() -> None:
    paces = {"enable": pace(300, 35), "mutate": pace(250, 100), "naive": pace(200)}
    verdicts = judged_crowd(paces, name="8 x 50")
    assert [(round(one.ratio, 2), one.is_met) for one in verdicts] == [(1.5, True), (1.2, False), (0.35, True)]


def test_one_who_finishes_later_than_three_times_the_median_misses_the_bar() -> None:
    paces = {"enable": pace(1, last_over_median=3.0), "mutate": pace(1, last_over_median=3.01)}
    assert [one.is_met for one in judged_fairness(paces, name="24 x 20")] == [True, False]


@pytest.mark.parametrize("found", [{"a"}, {"a", "b", "c"}, {"a", "c"}])
def test_a_lost_or_unknown_update_ends_the_benchmark(found: set[str]) -> None:
    verify({"a", "b"}, {"b", "a"}, writer="enable")
    with pytest.raises(LostUpdateError, match="enable"):
        verify({"a", "b"}, found, writer="enable")


def test_the_table_and_the_report_say_what_was_missed() -> None:
    alone = {"floor": 4.0, "enable": 6.0}
    crowds = {"8 x 50": {"enable": pace(300, 35)}}
    verdicts = [
        Verdict(claim="quick", ratio=1.5, bar=1.8, side="at most"),
        Verdict(claim="many", ratio=1.2, bar=1.5, side="at least"),
    ]
    lines = table(alone, crowds, verdicts).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith(("quick", "many"))] == ["met", "MISSED"]
    said = json.loads(json.dumps(report(alone, crowds, verdicts)))
    assert [one["isMet"] for one in said["verdicts"]] == [True, False]
    assert said["crowds"]["8 x 50"]["enable"]["p99Ms"] == 35


def test_the_nearest_mount_tells_the_file_system(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    real = tmp_path.resolve()
    mounts.write_text(f"disk / ext4 rw 0 0\nnone {real}/memory tmpfs rw 0 0\n")
    assert file_system_of(tmp_path / "memory" / "below", mounts) == "tmpfs"
    assert file_system_of(tmp_path, mounts) == "ext4"
    assert file_system_of(tmp_path, tmp_path / "missing") == ""


def test_the_benchmark_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    if file_system_of(tmp_path) in {"tmpfs", "ramfs"}:
        pytest.skip("the temporary folder is in memory")
    few = ["--rounds", "1", "--alone-rounds", "2", "--crowds", "2x3", "3x2", "--folder", str(tmp_path)]
    run = subprocess.run(
        [sys.executable, "-m", "bench.state", *few], cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert run.stderr == ""
    said = json.loads(run.stdout.splitlines()[-1])
    assert set(said["crowds"]) == {"2 x 3", "3 x 2"}
    assert run.returncode == (0 if all(one["isMet"] for one in said["verdicts"]) else 1)
    assert list(tmp_path.iterdir()) == []
