"""One durable write after the other, of as many bytes as a queued run has.

`python -m bench.httpload.flushing FILE SECONDS` writes what was measured.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from bench.httpload.servers import Measured


def flushing(path: Path, seconds: float) -> Measured:
    data = b"x" * 1024
    took_ms: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        began_s, before_s = time.perf_counter(), time.process_time()
        while time.perf_counter() - began_s < seconds:
            started_s = time.perf_counter()
            os.write(descriptor, data)
            os.fdatasync(descriptor)
            took_ms.append((time.perf_counter() - started_s) * 1000)
        used_s, elapsed_s = time.process_time() - before_s, time.perf_counter() - began_s
    finally:
        os.close(descriptor)
    p99_ms = sorted(took_ms)[len(took_ms) * 99 // 100]
    return Measured(cpu_us=used_s / len(took_ms) * 1e6, per_s=len(took_ms) / elapsed_s, p99_ms=p99_ms)


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(flushing(Path(sys.argv[1]), float(sys.argv[2]))))
