"""Real processes for tests: started cheaply, talked to, suspended, killed, and never left behind.

A member runs a function of a test module in a process of its own, forked from a clean and warm one, so that it
inherits nothing from the test. It has one line to the test, whose end is how the test learns of its death.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any

from rawr.state import RepoStateMutationOptions

PATIENCE_S = 90.0
"""How long a test waits for a process that has work to do. Only a hanging one needs it."""

PATIENT = RepoStateMutationOptions(lock_timeout_ms=60_000)
"""For processes of which a test does not want to see that they lose patience on a busy machine."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["rawr.state.aio", "rawr.storage.processes", "psutil"])


class Member:
    def __init__(self, process: BaseProcess, line: Connection) -> None:
        self._process = process
        self._line = line

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def tell(self, what: object) -> None:
        self._line.send(what)

    def hear(self) -> Any:
        """What the process says next. Fails when it dies or says nothing."""
        assert self._line.poll(PATIENCE_S), f"process {self.pid} says nothing"
        return self._line.recv()

    def suspend(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_until_suspended()

    def wait_until_suspended(self) -> None:
        wait_until(lambda: _status(self.pid) in "TtZX", f"process {self.pid} does not stop")

    def go_on(self) -> None:
        """Let a suspended process go on; one that has ended needs nothing."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL; it is dead on return."""
        self._process.kill()
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None

    def ended(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        self._process.join(PATIENCE_S)
        assert self._process.exitcode is not None, f"process {self.pid} does not end"
        return self._process.exitcode


class Crew:
    """All processes of a test. Those that still live at its end are killed."""

    def __init__(self) -> None:
        self._members: list[Member] = []

    def start(self, work: Callable[..., None], *args: object) -> Member:
        """Run `work(line, *args)` in a new process; both come from a module, by name."""
        ours, theirs = CONTEXT.Pipe()
        process = CONTEXT.Process(target=work, args=(theirs, *args))
        process.start()
        theirs.close()
        self._members.append(Member(process, ours))
        return self._members[-1]

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.kill()
            member._process.close()
            member._line.close()


def wait_until(condition: Callable[[], object], otherwise: str) -> None:
    """Look until `condition` holds. For what has no other sign."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.002)


def _status(pid: int) -> str:
    """One letter: R and S for running and sleeping, T for suspended, Z for dead; X when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(") ")[2][0]
    except FileNotFoundError:
        return "X"
