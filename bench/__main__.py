"""Runs every benchmark, one after the other; exits 1 when one is over its bar."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    names = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
    missed = []
    for name in names:
        print(f"== bench.{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False).returncode != 0:
            missed.append(name)
    print(f"over their bars: {', '.join(missed)}" if missed else "all within their bars")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
