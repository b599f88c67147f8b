"""Requests over kept connections, as fast as they are answered or at a given rate, from a process of its own.

`python -m bench.httpload.load` reads one `Job` as a line of JSON and writes one `Result`. It parses no more of an
answer than its status and length, so that it is not what is measured.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast

import msgspec
import uvloop


class Job(msgspec.Struct, kw_only=True):
    port: int
    head: str
    """The request line and headers, without a length."""
    body: str = ""
    """`{n}` in it becomes a number that no other request of this job has."""
    connections: int = 1
    seconds: float
    per_s: float | None = None
    """All connections together; None for as fast as they are answered."""


class Result(msgspec.Struct, kw_only=True):
    answered: int
    refused: int
    """Of these, the ones whose status was not 2xx."""
    seconds: float
    p50_ms: float
    p99_ms: float
    first_refusal: str = ""


class _Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, job: Job, tally: _Tally) -> None:
        self._job = job
        self._tally = tally
        self._head = job.head.encode()
        self._buffer = b""
        self._missing = 0
        self._sent_s = 0.0
        self._is_in_head = True
        self.is_over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def data_received(self, data: bytes) -> None:
        if not self._is_in_head:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._buffer[:end].lower()
            start = head.index(b"content-length:") + len(b"content-length:")
            length = int(head[start : head.find(b"\r\n", start) if b"\r\n" in head[start:] else None])
            self._missing = length - (len(self._buffer) - end - 4)
            if self._buffer[9:10] != b"2":
                self._tally.refuse(self._buffer)
            self._is_in_head = False
        if self._missing <= 0:
            self._buffer, self._is_in_head = b"", True
            now_s = time.perf_counter()
            self._tally.took_s.append(now_s - self._sent_s)
            self._go_on(now_s)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.is_over.done():
            self.is_over.set_exception(exc or ConnectionError("the server hung up"))

    def _go_on(self, now_s: float) -> None:
        if now_s >= self._tally.until_s:
            self.is_over.set_result(None)
            self._transport.close()
        elif self._job.per_s is None:
            self._next()
        else:
            due_s = self._sent_s + self._job.connections / self._job.per_s
            asyncio.get_running_loop().call_later(max(0.0, due_s - now_s), self._next)

    def _next(self) -> None:
        body = b""
        if self._job.body:
            self._tally.number += 1
            body = self._job.body.replace("{n}", str(self._tally.number)).encode()
        length = b"content-length: %d\r\n" % len(body) if body else b""
        self._sent_s = time.perf_counter()
        self._transport.write(self._head + length + b"\r\n" + body)


class _Tally:
    def __init__(self, until_s: float) -> None:
        self.until_s = until_s
        self.took_s: list[float] = []
        self.refused = 0
        self.first_refusal = ""
        self.number = 0

    def refuse(self, answer: bytes) -> None:
        self.refused += 1
        self.first_refusal = self.first_refusal or answer[:400].decode("latin-1")


async def carry_out(job: Job) -> Result:
    loop = asyncio.get_running_loop()
    began_s = time.perf_counter()
    tally = _Tally(began_s + job.seconds)
    made = [
        await loop.create_connection(lambda: _Connection(job, tally), "127.0.0.1", job.port)
        for _ in range(job.connections)
    ]
    await asyncio.gather(*[connection.is_over for _, connection in made])
    took_ms = sorted(one * 1000 for one in tally.took_s)
    return Result(
        answered=len(took_ms),
        refused=tally.refused,
        first_refusal=tally.first_refusal,
        seconds=time.perf_counter() - began_s,
        p50_ms=took_ms[len(took_ms) // 2],
        p99_ms=took_ms[len(took_ms) * 99 // 100],
    )


if __name__ == "__main__":
    asked = msgspec.json.decode(sys.stdin.readline(), type=Job)
    sys.stdout.write(msgspec.json.encode(uvloop.run(carry_out(asked))).decode())
