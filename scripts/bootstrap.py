"""Makes `.venv` from the hash-pinned requirements and runs a command in it. Standard library only.

    python3 scripts/bootstrap.py run [--dev | --bench] COMMAND [ARGUMENT ...]
    python3 scripts/bootstrap.py sync [--dev | --bench]

The environment is made once and again only when the pins, the Python or the place of the checkout changed.
uv installs it when uv is there, venv and pip otherwise. Everything comes from the package index that uv or pip
is configured for; this script knows no address. It refuses to download tools or another Python.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".rawr-bootstrap.json"
REQUIREMENTS = {name: ROOT / "requirements" / f"{name}.txt" for name in ("runtime", "dev", "bench")}
INSTALLED = {"runtime": ("runtime",), "dev": ("dev",), "bench": ("dev", "bench")}
"""The requirements that an environment of each group is made from."""
PYTHON_MIN = (3, 11)
DEPTH = "RAWR_BOOTSTRAP_DEPTH"
LAUNCHER = """import sys

from rawr.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
"""


class BootstrapError(Exception):
    """The environment cannot be made; the text says why and what to do."""


def main(argv: Sequence[str]) -> int:
    options = parse(argv)
    if sys.version_info < PYTHON_MIN:
        return rerun_with_newer_python(argv)
    group = "bench" if options.bench else "dev" if options.dev else "runtime"
    try:
        with only_one_at_a_time():
            ensure_environment(group)
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.action == "sync":
        return 0
    command = VENV / "bin" / options.command[0]
    if not command.is_file():
        print(f"error: {options.command[0]} is not in {VENV.name}/bin", file=sys.stderr)
        return 127
    sys.stdout.flush()
    return os.execv(command, [str(command), *options.command[1:]])  # does not return


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bootstrap.py", description="Make .venv and run a command in it.")
    actions = parser.add_subparsers(dest="action", required=True)
    sync = actions.add_parser("sync", help="only make the environment")
    run = actions.add_parser("run", help="make the environment and run a command in it")
    for action in (sync, run):
        more = action.add_mutually_exclusive_group()
        more.add_argument("--dev", action="store_true", help="with the tools for tests and checks")
        more.add_argument("--bench", action="store_true", help="and with what the benchmarks compare with")
    run.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args(argv)
    if options.action == "run" and not options.command:
        parser.error("run: which command?")
    return options


def rerun_with_newer_python(argv: Sequence[str]) -> int:
    found = next((path for minor in range(20, 10, -1) if (path := shutil.which(f"python3.{minor}"))), None)
    if found is None or os.environ.get(DEPTH):
        have = ".".join(map(str, sys.version_info[:3]))
        print(
            f"error: Python 3.11 or newer is needed, this is {have}. Install it, or: PY=/path/to/python make up",
            file=sys.stderr,
        )
        return 1
    os.environ[DEPTH] = "1"
    return os.execv(found, [found, str(Path(__file__).resolve()), *argv])  # does not return


@contextlib.contextmanager
def only_one_at_a_time() -> Iterator[None]:
    """Two `make up` at once must not install into one environment. The kernel frees the lock of a dead process."""
    folder = ROOT / ".rawr" / "bootstrap"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BootstrapError(f"cannot write in {ROOT}: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def ensure_environment(group: str) -> None:
    wanted = fingerprints()
    stamp = read_stamp()
    groups = INSTALLED[group]
    made_from = {name: stamp.get(name) for name in ("python", *groups)}
    same_place = stamp.get("place") == str(ROOT)
    if same_place and made_from == {name: wanted[name] for name in made_from} and VENV_PYTHON.exists():
        return
    started = time.monotonic()
    pinned = {
        line.split()[0] for name in groups for line in REQUIREMENTS[name].read_text().splitlines() if "==" in line
    }
    say(f"making .venv with {len(pinned)} pinned packages (only when they change) ...")
    uv = shutil.which("uv")
    make_venv(uv, fresh=not same_place or stamp.get("python") != wanted["python"])
    STAMP.unlink(missing_ok=True)  # from here to the end the environment is not to be trusted
    for name in groups:
        install(uv, REQUIREMENTS[name])
    link_project()
    compile_sources()
    installed = {"runtime", *groups}  # dev holds the same runtime pins
    made = {"place": str(ROOT), "python": wanted["python"], **{name: wanted[name] for name in installed}}
    write(STAMP, json.dumps(made))
    say(f"ready after {time.monotonic() - started:.0f} s")


def fingerprints() -> dict[str, str]:
    """What the environment is made from: the interpreter, and the pins of each group."""
    pins = {group: hashlib.sha256(path.read_bytes()).hexdigest() for group, path in REQUIREMENTS.items()}
    return {"python": f"{sys.version_info.major}.{sys.version_info.minor} {os.path.realpath(sys.executable)}", **pins}


def read_stamp() -> dict[str, str]:
    """What the environment was made from; empty when that is unknown, which means: make it again."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def make_venv(uv: str | None, *, fresh: bool) -> None:
    if not fresh and VENV_PYTHON.exists():
        return
    if VENV.exists() and not (VENV / "pyvenv.cfg").is_file():
        raise BootstrapError(f"{VENV} exists and is no virtual environment: move it away")
    if uv and attempt([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)]):
        return
    if attempt([sys.executable, "-m", "venv", "--clear", str(VENV)], quiet=True):
        return
    # Debian's python3 comes without ensurepip; the environment can then be filled by the host's own pip.
    if attempt([sys.executable, "-m", "venv", "--clear", "--without-pip", str(VENV)]):
        return
    raise BootstrapError("no virtual environment could be made: install uv, or Debian's python3-venv")


def install(uv: str | None, requirements: Path) -> None:
    if uv and attempt(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(VENV_PYTHON),
            "--require-hashes",
            "--compile-bytecode",
            "-r",
            str(requirements),
        ]
    ):
        return
    options = [
        "install",
        "-qq",
        "--require-hashes",
        "--no-input",
        "--disable-pip-version-check",
        "--compile",
        "-r",
        str(requirements),
    ]
    own_pip = [str(VENV_PYTHON), "-m", "pip"]
    if not attempt([*own_pip, "--version"], quiet=True):
        own_pip = [sys.executable, "-m", "pip", "--python", str(VENV_PYTHON)]
        if not attempt([sys.executable, "-m", "pip", "--version"], quiet=True):
            raise BootstrapError("neither uv nor pip is there: install uv, or Debian's python3-venv")
    if not attempt([*own_pip, *options]):
        raise BootstrapError(
            f"the packages of {requirements.name} could not be installed (see above); is the package index reachable?"
        )


def attempt(command: Sequence[str], *, quiet: bool = False) -> bool:
    """Run `command`; whether it worked. Its output goes to stderr, so that stdout stays the command's own."""
    sink = subprocess.DEVNULL if quiet else sys.stderr
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never", "PIP_ROOT_USER_ACTION": "ignore"}
    environment.setdefault("UV_SYSTEM_CERTS", "true")  # as pip on most systems: trust what the machine trusts
    for name in ("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV"):
        environment.pop(name, None)
    try:
        done = subprocess.run(
            command, check=False, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=environment, cwd=ROOT
        )
    except OSError:
        return False
    return done.returncode == 0


def link_project() -> None:
    """Make `rawr` importable and runnable without building a wheel: a path file and a launcher."""
    for packages in (VENV / "lib").glob("python3.*/site-packages"):
        write(packages / "rawr.pth", f"{ROOT / 'src'}\n")
    launcher = VENV / "bin" / "rawr"
    write(launcher, f"#!{interpreter_line()}\n{LAUNCHER}")
    launcher.chmod(0o755)


def interpreter_line() -> str:
    """What follows `#!`. The kernel splits it at spaces and cuts it at 127 bytes; a shell does neither."""
    if len(os.fsencode(VENV_PYTHON)) < 120 and " " not in str(VENV_PYTHON):
        return str(VENV_PYTHON)
    quoted = shlex.quote(str(VENV_PYTHON))
    return "/bin/sh\n'''exec' " + quoted + ' "$0" "$@"\n' + "' '''"


def compile_sources() -> None:
    attempt([str(VENV_PYTHON), "-m", "compileall", "-q", str(ROOT / "src")], quiet=True)


def write(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    os.replace(fresh, path)


def say(text: str) -> None:
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
