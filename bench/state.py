"""What a durable change of the repo state costs, alone and in a crowd, and whether everybody gets a turn.

Ratios of medians. Rounds go over all cases, so that a busy moment hits them alike; the processes of a crowd start
at a barrier and add ids that nobody else adds, so a lost update is seen, and ends the benchmark. A change counts
when its call returned, and is on disk then. The temporary folder must be on a disk: in memory, fsync costs nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench.repostate.crowd import LostUpdateError, crowd
from bench.repostate.judgement import (
    Pace,
    judged_alone,
    judged_crowd,
    judged_fairness,
    median_pace,
    pace_of,
    report,
    table,
)
from bench.repostate.writers import WRITERS, replace_durably, without_id
from rawr.state import RepoStateStore

PLUGINS: Final = 20
CHECKOUT: Final = Path(__file__).parent.parent
IN_MEMORY: Final = {"tmpfs", "ramfs"}


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    if file_system_of(chosen.folder) in IN_MEMORY:
        print(f"{chosen.folder} is in memory; name a folder on a disk with --folder", file=sys.stderr)
        return 2
    shape, seconds = chosen.crowds, chosen.seconds
    with tempfile.TemporaryDirectory(prefix=".bench-state-", dir=chosen.folder) as scratch:
        try:
            alone_ms = alone(Path(scratch) / "alone", rounds=chosen.alone_rounds, until=_in(seconds * 0.15))
            small = crowds(Path(scratch), *shape[0], rounds=chosen.rounds, until=_in(seconds * 0.5))
            large = crowds(Path(scratch), *shape[1], rounds=chosen.rounds, until=_in(seconds * 0.35))
        except LostUpdateError as error:
            print(f"lost update: {error}", file=sys.stderr)
            return 1
    (small_name, large_name) = (f"{processes} x {changes}" for processes, changes in shape)
    verdicts = judged_alone(alone_ms)
    verdicts += judged_crowd(small, name=small_name) + judged_fairness(large, name=large_name)
    print(table(alone_ms, {small_name: small, large_name: large}, verdicts))
    print(json.dumps(report(alone_ms, {small_name: small, large_name: large}, verdicts)))
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def alone(root: Path, *, rounds: int, until: Callable[[float], bool]) -> dict[str, float]:
    """Median milliseconds of one process, with `PLUGINS` plugins in the state. `mutate` undoes what `enable` did."""
    root.mkdir()
    store, floor = RepoStateStore(root), root / "floor.json"
    for number in range(PLUGINS):
        store.enable(f"@bench/plugin-{number}")
    extra = "@bench/one-more"
    data = store.path.read_bytes()
    cases: dict[str, Callable[[], object]] = {
        "floor": lambda: replace_durably(floor, data, flush_folder=True),
        "enable": lambda: store.enable(extra),
        "get": store.get,
        "mutate": lambda: store.mutate(lambda state: without_id(state, extra)),
    }
    samples_ms: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        began_s = time.monotonic()
        for name, case in cases.items():
            before_s = time.perf_counter()
            case()
            samples_ms[name].append((time.perf_counter() - before_s) * 1000)
        if until(time.monotonic() - began_s):
            break
    return {name: statistics.median(found) for name, found in samples_ms.items()}


def crowds(
    folder: Path, processes: int, changes: int, *, rounds: int, until: Callable[[float], bool]
) -> dict[str, Pace]:
    paces: dict[str, list[Pace]] = {writer.name: [] for writer in WRITERS}
    for number in range(rounds):
        began_s = time.monotonic()
        for writer in WRITERS:
            root = folder / f"{processes}-{number}-{writer.name}"
            paces[writer.name].append(pace_of(crowd(writer, root, processes=processes, changes=changes)))
        if until(time.monotonic() - began_s):
            break
    return {name: median_pace(found) for name, found in paces.items()}


def file_system_of(folder: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of file system that holds `folder`; empty where the system does not tell."""
    if not mounts.exists():
        return ""
    types = {fields[1]: fields[2] for fields in (line.split() for line in mounts.read_text().splitlines())}
    real = folder.resolve()
    return next((types[str(place)] for place in (real, *real.parents) if str(place) in types), "")


def _in(seconds: float) -> Callable[[float], bool]:
    """Whether another round, as long as the last one, would end later than `seconds` from now."""
    end_s = time.monotonic() + seconds
    return lambda round_s: time.monotonic() + round_s > end_s


def _shape(text: str) -> tuple[int, int]:
    processes, changes = text.split("x")
    return int(processes), int(changes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.state", description=__doc__)
    parser.add_argument("--folder", type=Path, default=CHECKOUT, help="on a disk; a folder in it is used and removed")
    parser.add_argument("--seconds", type=float, default=55, help="begin no round that would end later (%(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="of a crowd, at most (%(default)s)")
    parser.add_argument("--alone-rounds", type=int, default=200, help="of one process, at most (%(default)s)")
    parser.add_argument(
        "--crowds", type=_shape, nargs=2, default=[(8, 50), (24, 20)], metavar="PROCESSESxCHANGES", help="8x50 24x20"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
