"""Compiles `requirements/*.txt` from `pyproject.toml`: universal, hash-pinned, without any address in them.

uv does the resolving. When uv is not on PATH it is installed from the configured package index into
`.rawr/bootstrap/uv`, which is not committed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTIONS = [
    "--universal",
    "--python-version",
    "3.11",
    "--generate-hashes",
    "--no-emit-index-url",
    "--no-emit-find-links",
    "--no-annotate",
    "--no-header",
    "--quiet",
]


def main() -> int:
    uv = shutil.which("uv") or uv_of_our_own()
    runtime, dev, bench = (ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "dev", "bench"))
    upgrade = ["--upgrade"] if "--upgrade" in sys.argv[1:] else []
    for target, extra in (
        (runtime, []),
        (dev, ["--group", "dev", "-c", str(runtime)]),
        (bench, ["--group", "bench", "-c", str(dev)]),  # what the benchmarks compare with; beside the dev packages
    ):
        subprocess.run(
            [uv, "pip", "compile", *OPTIONS, *upgrade, "pyproject.toml", *extra, "-o", str(target)],
            cwd=ROOT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        if re.search(r"://|^-|^\s*/", target.read_text(), flags=re.MULTILINE):
            print(f"error: {target.name} holds an address or an option; it must not be committed", file=sys.stderr)
            return 1
        print(f"{target.relative_to(ROOT)}: {target.read_text().count('==')} packages")
    return 0


def uv_of_our_own() -> str:
    folder = ROOT / ".rawr" / "bootstrap" / "uv"
    if not (folder / "bin" / "uv").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "uv"],
            check=True,
            env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        )
    return str(folder / "bin" / "uv")


if __name__ == "__main__":
    sys.exit(main())
