"""Asks git about a repository that nobody vouches for: read-only, bounded in time and output, running nothing of it.

A repository's own configuration can name programs (hooks, monitors, pagers, diff drivers, transports); each way
to start one is closed here. Arguments are lists, and what git prints is bytes that end in NUL.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from rawr.sdk import DeskFailed

TIMEOUT_S: Final = 30.0
OUTPUT_BYTES_MAX: Final = 32 * 1024 * 1024
_STDERR_SHOWN: Final = 500

_SETTINGS: Final = (
    "core.quotepath=off",
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.pager=cat",
    "core.sshCommand=false",
    "log.showSignature=false",  # it would start the gpg that the repository names
    "protocol.allow=never",  # a partial clone would fetch what is missing
    "i18n.logOutputEncoding=UTF-8",
)
# Inside a git hook GIT_DIR and its like point to another repository than the one we were asked about.
_KEPT: Final = frozenset({"GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM", "GIT_EXEC_PATH"})
_SET: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "LC_ALL": "C",
}


class GitRefusedError(DeskFailed):
    """git ended with an error; the message is git's own."""


@dataclass(frozen=True, kw_only=True)
class GitOutput:
    data: bytes
    cut: bool
    """Whether git had more to say than we take."""


def git(folder: Path, *arguments: str, timeout_s: float = TIMEOUT_S, most_bytes: int = OUTPUT_BYTES_MAX) -> GitOutput:
    """What `git <arguments>` prints in `folder`, at most `most_bytes`.

    Raises:
        GitRefusedError: git ended with an error.
        DeskFailed: git is missing, or not done in time.
    """
    with tempfile.TemporaryFile() as errors, _started(folder, arguments, errors) as process:
        assert process.stdout is not None
        out_of_time = threading.Event()
        timer = threading.Timer(timeout_s, _give_up, (process, out_of_time))
        timer.start()
        try:
            data = process.stdout.read(most_bytes + 1)
            cut = len(data) > most_bytes
            if cut:
                _kill(process)
            status = process.wait()
        finally:
            timer.cancel()
            _kill(process)
        if out_of_time.is_set():
            raise DeskFailed(f"git {arguments[0]} was not done within {timeout_s:g} s in {folder}")
        if status != 0 and not cut:
            raise GitRefusedError(_complaint(arguments[0], status, errors))
    return GitOutput(data=data[:most_bytes], cut=cut)


def _give_up(process: subprocess.Popen[bytes], out_of_time: threading.Event) -> None:
    out_of_time.set()
    _kill(process)


@contextlib.contextmanager
def _started(folder: Path, arguments: tuple[str, ...], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    try:
        process = subprocess.Popen(
            ["git", "--no-pager", "--literal-pathspecs", *settings, "-C", str(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=_environment(),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise DeskFailed("git is not installed, or not on PATH: install it to brief on a repository") from error
    with process:
        yield process


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or name in _KEPT}
    return {**kept, **_SET}


def _kill(process: subprocess.Popen[bytes]) -> None:
    """git and whatever it started, in a group of their own."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _complaint(command: str, status: int, errors: IO[bytes]) -> str:
    errors.seek(0)
    said = errors.read(_STDERR_SHOWN).decode("utf-8", "replace").strip()
    return f"git {command} failed with status {status}: {said or 'it did not say why'}"
