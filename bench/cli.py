"""What the command line costs before it does anything: CPU of `--version` and `--help` against `python -c pass`.

User plus system time of the child processes, median of interleaved runs, bytecode present. The children run
what the launcher in `.venv/bin/rawr` runs, with the same interpreter and no flags.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Final

ROUNDS: Final = 25
LAUNCHER: Final = "import sys; from rawr.__main__ import main; sys.exit(main())"
CASES: Final[dict[str, tuple[list[str], float]]] = {
    "rawr --version": (["-c", LAUNCHER, "--version"], 2.0),
    "rawr --help": (["-c", LAUNCHER, "--help"], 6.0),
}
"""The arguments of the interpreter, and the most it may cost as a multiple of `python -c pass`."""


def main() -> int:
    measured = measure({"python -c pass": ["-c", "pass"], **{name: case for name, (case, _) in CASES.items()}})
    floor_ms = measured.pop("python -c pass")
    rows = [
        {"case": name, "cpuMs": round(cpu_ms, 2), "ratio": round(cpu_ms / floor_ms, 2), "bar": CASES[name][1]}
        for name, cpu_ms in measured.items()
    ]
    print(f"{'case':<16} {'CPU ms':>8} {'ratio':>6} {'bar':>5}")
    print(f"{'python -c pass':<16} {floor_ms:>8.2f} {1:>6.2f}")
    for row in rows:
        print(f"{row['case']:<16} {row['cpuMs']:>8.2f} {row['ratio']:>6.2f} {row['bar']:>5.1f}")
    print(json.dumps({"floorCpuMs": round(floor_ms, 2), "rows": rows}))
    return 1 if any(row["ratio"] > row["bar"] for row in rows) else 0  # type: ignore[operator]  # both are numbers


def measure(cases: dict[str, list[str]]) -> dict[str, float]:
    """Median CPU milliseconds of each case. Rounds go over all cases, so that a busy moment hits them alike."""
    for arguments in cases.values():
        cpu_ms(arguments)  # writes the bytecode
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(ROUNDS):
        for name, arguments in cases.items():
            samples[name].append(cpu_ms(arguments))
    return {name: statistics.median(found) for name, found in samples.items()}


def cpu_ms(arguments: list[str]) -> float:
    child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    assert child.returncode == 0, arguments
    return (usage.ru_utime + usage.ru_stime) * 1000


if __name__ == "__main__":
    sys.exit(main())
