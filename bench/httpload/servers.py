"""The servers that are compared, each in a process of its own, and what they have used of the machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import psutil

from bench.httpload.load import Job, Result
from rawr.host.run_folder import RunFolder

CHECKOUT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Of one process, at one moment."""

    cpu_s: float
    rss_mib: float
    descriptors: int
    threads: int


class Server(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    port: int

    def usage(self) -> Usage:
        process = psutil.Process(self.pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(
                cpu_s=times.user + times.system,
                rss_mib=process.memory_info().rss / 2**20,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
            )


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    cpu_us: float
    """Of the server, per request."""
    per_s: float
    p99_ms: float


@contextlib.contextmanager
def bare() -> Iterator[Server]:
    port = _free_port()
    with _running(["-m", "bench.httpload.bare", str(port)]) as process:
        _wait_for(port, process)
        yield Server(pid=process.pid, port=port)


@contextlib.contextmanager
def rawr(root: Path, environment: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The server of the instance at `root`, as `rawr serve` starts it."""
    with _running(["-m", "rawr", "--instance", str(root), "serve", "--port", "0"], environment) as process:
        folder = RunFolder(root / ".rawr" / "run")
        until_s = time.monotonic() + PATIENCE_S
        while (record := folder.running()) is None:
            if process.poll() is not None or time.monotonic() > until_s:
                raise RuntimeError(f"rawr did not come up: exit code {process.returncode}")
            time.sleep(0.05)
        yield Server(pid=process.pid, port=int(record.url.rsplit(":", 1)[1]))


def load(job: Job) -> Result:
    """Carry the job out in another process."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.httpload.load"],
        input=msgspec.json.encode(job),
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        timeout=job.seconds + PATIENCE_S,
        check=True,
    )
    result = msgspec.json.decode(done.stdout, type=Result)
    if result.refused:
        raise RuntimeError(f"{result.refused} of {result.answered} were refused: {result.first_refusal}")
    return result


def flushing(path: Path, seconds: float, environment: Mapping[str, str]) -> Measured:
    """The loop of `bench.httpload.flushing`, in another process."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.httpload.flushing", str(path), str(seconds)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        timeout=seconds + PATIENCE_S,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Measured)


def measure(server: Server, job: Job) -> Measured:
    before_s = server.usage().cpu_s
    result = load(job)
    used_s = server.usage().cpu_s - before_s
    return Measured(cpu_us=used_s / result.answered * 1e6, per_s=result.answered / result.seconds, p99_ms=result.p99_ms)


@contextlib.contextmanager
def _running(arguments: list[str], environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=CHECKOUT,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError("the bare server did not come up")
