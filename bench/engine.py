"""What durable runs cost: against DBOS, against the least that is durable, in long runs, and in large numbers.

Every measurement is a process of its own with a file of its own; rounds go over all cases, so that a busy moment hits
them alike, and what is judged are medians. All contestants make every commit durable: a write-ahead log and
`synchronous=FULL`. The temporary folder must be on a disk: in memory, fsync costs nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.engineparts.judgement import ENDED, PEER, PEER_IN_LINE, RUNS, SLEEPERS, STEPS, judged, medians, report, table
from bench.state import CHECKOUT, IN_MEMORY, file_system_of

CHILD_TIMEOUT_S: Final = 300


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything; a test has little time."""

    runs: int = RUNS
    gap_steps: int = 60
    short: tuple[int, int] = (10, 50)
    """Runs, and steps of each."""
    long: tuple[int, int] = (1, 500)
    sleeping: int = 100_000
    put_to_sleep: int = 500
    """So many of them by the engine that is measured; the others lie in its file."""
    idle_s: float = 3.0
    ended: int = 1_000_000


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    if file_system_of(chosen.folder) in IN_MEMORY:
        print(f"{chosen.folder} is in memory; name a folder on a disk with --folder", file=sys.stderr)
        return 2
    size = SMALL if chosen.small else Size()
    with tempfile.TemporaryDirectory(prefix=".bench-engine-", dir=chosen.folder) as scratch:
        found = medians(measure(Path(scratch), size, rounds=chosen.rounds))
    verdicts = judged(found)
    print(table(found, verdicts, rounds=chosen.rounds))
    print(json.dumps(report(found, verdicts)))
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def measure(scratch: Path, size: Size, *, rounds: int) -> dict[str, list[dict[str, float]]]:
    kept = {name: scratch / name for name in ("awake", "asleep", "empty", "ended")}
    for folder in kept.values():
        folder.mkdir()
    _child("make", kept["awake"], runs=0, sleeping=True)
    _child("make", kept["asleep"], runs=size.sleeping - size.put_to_sleep, sleeping=True)
    _child("make", kept["empty"], runs=0, sleeping=False)
    _child("make", kept["ended"], runs=size.ended, sleeping=False)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for number in range(rounds):
        for name, (case, kept_in, given) in _cases(size, kept).items():
            own = kept_in or scratch / f"{number}-{name.replace(': ', '-').replace(' ', '-')}"
            own.mkdir(exist_ok=True)
            found[name].append(_child(case, own, **given))
    return found


def _cases(size: Size, kept: Mapping[str, Path]) -> dict[str, tuple[str, Path | None, dict[str, Any]]]:
    """Each case: the measurement, its folder if it is kept from round to round, and its arguments."""
    work = {"runs": size.runs, "steps": STEPS}
    lengths = {"runs of 50": size.short, "run of 500": size.long}
    peers = {PEER: "queue", PEER_IN_LINE: "call"} if find_spec("dbos") is not None else {}
    return {
        "engine": ("engine", None, work),
        "bare loop": ("bare", None, work),
        **{name: ("dbos", None, {**work, "form": form}) for name, form in peers.items()},
        "one run": ("gaps", None, {"steps": size.gap_steps}),
        **{name: ("lengths", None, {"runs": runs, "steps": steps}) for name, (runs, steps) in lengths.items()},
        "idle: nothing": ("idle", kept["awake"], {"runs": 0, "seconds": size.idle_s}),
        f"idle: {SLEEPERS}": ("idle", kept["asleep"], {"runs": size.put_to_sleep, "seconds": size.idle_s}),
        "start-up: empty file": ("start-up", kept["empty"], {}),
        f"start-up: {ENDED}": ("start-up", kept["ended"], {}),
    }


def _child(case: str, folder: Path, **given: Any) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.engineparts.child", case, str(folder), json.dumps(given)]
    done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, timeout=CHILD_TIMEOUT_S, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


SMALL: Final = Size(runs=4, gap_steps=4, short=(2, 3), long=(1, 6), sleeping=60, put_to_sleep=10, idle_s=0.1, ended=50)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.engine", description=__doc__)
    parser.add_argument("--folder", type=Path, default=CHECKOUT, help="on a disk; a folder in it is used and removed")
    parser.add_argument("--rounds", type=int, default=5, help="of all cases (%(default)s)")
    parser.add_argument("--small", action="store_true", help="tiny sizes: whether it runs, not what it shows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
