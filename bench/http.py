"""What a request costs, against the least that a Python server can do, and that it does not cost more with the years.

CPU of the server per request, one server process, rounds over all cases so that a busy moment hits them alike, and of
the rounds the one that cost least.
`queueRun` is compared by its rate with a loop that writes and flushes one file: each run that was answered is on disk.
That is judged where a flush takes as long as on most disks.
`--soak SECONDS` instead keeps 200 requests a second coming and looks whether anything grows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import msgspec

from bench.httpload import instances, servers, slowdisk
from bench.httpload.load import Job
from bench.httpload.servers import Measured, Server, Usage
from bench.repostate.judgement import Verdict
from rawr.security.credentials import SecretsFolder

FINISHED_RUNS: Final = 20_000
CONNECTIONS: Final = 16
CHECKOUT: Final = Path(__file__).parent.parent
BARS: Final = {"state": 1.6, "rpc state": 1.8, "list of 50 workflows": 12.0, "timeline of 200 events": 8.0}
GROWTH_BAR: Final = 1.25
"""What the noise of two servers that are measured in turn can make of 1."""
QUEUE_BAR: Final = 1.5
QUEUE_ROUNDS: Final = 3
"""After each of them thousands of runs have to end first."""
FLUSH: Final = "write + fdatasync"
SLOW_FLUSH: Final = "write + fdatasync, slower disk"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A running instance and what it lets in."""

    server: Server
    api_key: str
    cli_key: str

    def job(self, case: str, seconds: float) -> Job:
        get, post = ("GET", self.api_key), ("POST", self.cli_key)
        method, secret, path, body = {
            "state": (*get, "/api/orpc/state/runtime", ""),
            "rpc state": (*post, "/rpc/state/getRuntimeState", '{"json":{}}'),
            "list of 50 workflows": (*get, "/api/orpc/coordination/workflows", ""),
            "timeline of 200 events": (*get, f"/api/orpc/coordination/runs/{instances.LONG_RUN}/timeline", ""),
            "status of a run": (*get, f"/api/orpc/coordination/runs/{instances.FIRST}", ""),
            "queueRun": (*post, "/rpc/coordination/queueRun", _QUEUE_BODY),
        }[case]
        return Job(
            port=self.server.port,
            head=_head(method, path, secret),
            body=body,
            connections=CONNECTIONS if case == "queueRun" else 4,
            seconds=seconds,
        )


_QUEUE_BODY: Final = json.dumps({"json": {"workflowId": instances.SHORT, "input": {"n": 1}}})


def _head(method: str, path: str, secret: str) -> str:
    kind = "content-type: application/json\r\n" if method == "POST" else ""
    return f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {secret}\r\n{kind}"


def main(arguments: list[str] | None = None) -> int:
    chosen = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix=".bench-http-", dir=chosen.folder) as scratch, ExitStack() as stack:
        if chosen.soak:
            return _soak(stack, Path(scratch), chosen.soak)
        return _compare(stack, Path(scratch), rounds=chosen.rounds, seconds=chosen.seconds, flush_ms=chosen.flush_ms)


def _compare(stack: ExitStack, scratch: Path, *, rounds: int, seconds: float, flush_ms: float) -> int:
    bare = stack.enter_context(servers.bare())
    young = _started(stack, scratch / "young", finished_runs=0)
    old = _started(stack, scratch / "old", finished_runs=FINISHED_RUNS)
    cases: dict[str, Callable[[], Measured]] = {
        "bare GET": lambda: servers.measure(bare, _bare_job(bare, "GET", seconds)),
        "bare POST": lambda: servers.measure(bare, _bare_job(bare, "POST", seconds)),
    }
    for case in (*BARS, "status of a run"):
        for age, target in (("young", young), ("old", old)):
            cases[f"{case}, {age}"] = _measuring(target, case, seconds)
    measured = _rounds(cases, rounds)
    ages = {"young": young, "old": old}
    queue = _queueing(stack, ages, scratch, rounds=rounds, seconds=seconds, flush_ms=flush_ms)
    verdicts = _judged(measured) + _judged_queue(queue, flush_ms=flush_ms)
    print(_table(measured | queue, verdicts))
    here = queue["queueRun, young"].per_s / queue[FLUSH].per_s
    print(f"on this disk as it is: queueRun x {CONNECTIONS} / write + fdatasync {here:.2f}")
    print(json.dumps({name: msgspec.to_builtins(one) for name, one in (measured | queue).items()}))
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def _measuring(target: Target, case: str, seconds: float) -> Callable[[], Measured]:
    return lambda: servers.measure(target.server, target.job(case, seconds))


def _started(
    stack: ExitStack, root: Path, *, finished_runs: int, environment: Mapping[str, str] | None = None
) -> Target:
    api_key = instances.make(root, finished_runs=finished_runs)
    server = stack.enter_context(servers.rawr(root, environment))
    return Target(server=server, api_key=api_key, cli_key=SecretsFolder(root / ".rawr" / "secrets").cli_key())


def _bare_job(bare: Server, method: str, seconds: float) -> Job:
    body = '{"json":{}}' if method == "POST" else ""
    return Job(port=bare.port, head=_head(method, "/state", "x" * 43), body=body, connections=4, seconds=seconds)


def _rounds(cases: dict[str, Callable[[], Measured]], rounds: int) -> dict[str, Measured]:
    found: dict[str, list[Measured]] = {name: [] for name in cases}
    for _ in range(rounds):
        for name, measure in cases.items():
            found[name].append(measure())
    return {name: _undisturbed(every) for name, every in found.items()}


def _undisturbed(every: list[Measured]) -> Measured:
    """The least CPU, because whatever disturbs only adds to it (a neighbour on the same core a third); else medians."""
    return Measured(
        cpu_us=min(one.cpu_us for one in every),
        per_s=statistics.median(one.per_s for one in every),
        p99_ms=statistics.median(one.p99_ms for one in every),
    )


def _queueing(
    stack: ExitStack, targets: dict[str, Target], scratch: Path, *, rounds: int, seconds: float, flush_ms: float
) -> dict[str, Measured]:
    """Last, because what it queues is still being run when the next case begins; so each case waits for that."""
    slowly = slowdisk.environment(scratch, flush_ms=flush_ms)
    slow = _started(stack, scratch / "slow", finished_runs=0, environment=slowly)
    cases: dict[str, Callable[[], Measured]] = {
        FLUSH: lambda: servers.flushing(scratch / "floor", seconds, {}),
        SLOW_FLUSH: lambda: servers.flushing(scratch / "floor", seconds, slowly),
    }
    for age, target in {**targets, "slower disk": slow}.items():
        cases[f"queueRun, {age}"] = _then_idle(target, _measuring(target, "queueRun", seconds))
    return _rounds(cases, min(rounds, QUEUE_ROUNDS))


def _then_idle(target: Target, measure: Callable[[], Measured]) -> Callable[[], Measured]:
    def measure_and_wait() -> Measured:
        measured = measure()
        _wait_until_idle(target.server)
        return measured

    return measure_and_wait


def _wait_until_idle(server: Server) -> None:
    until_s = time.monotonic() + 300
    while time.monotonic() < until_s:
        before_s = server.usage().cpu_s
        time.sleep(0.5)
        if server.usage().cpu_s - before_s < 0.05:
            return
    raise RuntimeError("the runs that were queued did not end in time")


def _judged(measured: dict[str, Measured]) -> list[Verdict]:
    verdicts = []
    for case, bar in BARS.items():
        floor = measured["bare POST" if case.startswith("rpc") else "bare GET"]
        ratio = measured[f"{case}, young"].cpu_us / floor.cpu_us
        verdicts.append(Verdict(claim=f"CPU: {case} / bare", ratio=ratio, bar=bar, side="at most"))
    return verdicts + [_growth(measured, case) for case in (*BARS, "status of a run")]


def _growth(measured: dict[str, Measured], case: str) -> Verdict:
    ratio = measured[f"{case}, old"].cpu_us / measured[f"{case}, young"].cpu_us
    claim = f"CPU: {case}, {FINISHED_RUNS} runs / none"
    return Verdict(claim=claim, ratio=ratio, bar=GROWTH_BAR, side="at most")


def _judged_queue(queue: dict[str, Measured], *, flush_ms: float) -> list[Verdict]:
    """Where flushing takes less time than a request does, one core is the limit and not the disk: shown, not judged."""
    shared = queue["queueRun, slower disk"].per_s / queue[SLOW_FLUSH].per_s
    claim = f"rate: queueRun x {CONNECTIONS} / write + fdatasync, {flush_ms:g} ms more"
    return [Verdict(claim=claim, ratio=shared, bar=QUEUE_BAR, side="at least"), _growth(queue, "queueRun")]


def _table(measured: dict[str, Measured], verdicts: list[Verdict]) -> str:
    lines = [f"{'case':<34} {'CPU us':>9} {'per s':>8} {'p99 ms':>8}"]
    for name, one in measured.items():
        lines.append(f"{name:<34} {one.cpu_us:>9.1f} {one.per_s:>8.0f} {one.p99_ms:>8.2f}")
    lines += ["", f"{'claim':<52} {'ratio':>6} {'bar':>14}"]
    for verdict in verdicts:
        word = "met" if verdict.is_met else "MISSED"
        lines.append(f"{verdict.claim:<52} {verdict.ratio:>6.2f} {verdict.side + f' {verdict.bar:.2f}':>14}  {word}")
    return "\n".join(lines)


def _soak(stack: ExitStack, scratch: Path, seconds: float) -> int:
    """200 requests a second of all kinds but queueRun and 2 of that, after a rush in which caches and pools fill up."""
    target = _started(stack, scratch / "soak", finished_runs=0)
    for kind in (*BARS, "queueRun"):
        servers.load(msgspec.structs.replace(target.job(kind, seconds=5.0), connections=CONNECTIONS))
    _wait_until_idle(target.server)
    began_s = time.monotonic()
    usages: list[Usage] = []
    kinds = [*BARS, "status of a run"]
    answered = 0
    number = 0
    while time.monotonic() - began_s < seconds:
        job = target.job(kinds[number % len(kinds)], seconds=min(10.0, seconds / 30))
        answered += servers.load(msgspec.structs.replace(job, per_s=200.0)).answered
        queue = target.job("queueRun", seconds=1.0)
        answered += servers.load(msgspec.structs.replace(queue, connections=2, per_s=20.0)).answered
        number += 1
        usages.append(target.server.usage())
    fifth = max(1, len(usages) // 5)
    settled, last = _most(usages[:fifth]), _most(usages[-fifth:])
    print(f"{answered} requests in {time.monotonic() - began_s:.0f} s, all of them answered with 2xx")
    print(f"most in the first fifth of the time: {msgspec.to_builtins(settled)}")
    print(f"most in the last fifth: {msgspec.to_builtins(last)}")
    verdicts = [
        Verdict(claim="memory, end / settled", ratio=last.rss_mib / settled.rss_mib, bar=1.05, side="at most"),
        Verdict(
            claim="descriptors, end / settled", ratio=last.descriptors / settled.descriptors, bar=1.0, side="at most"
        ),
        Verdict(claim="threads, end / settled", ratio=last.threads / settled.threads, bar=1.0, side="at most"),
    ]
    print(_table({}, verdicts))
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def _most(usages: list[Usage]) -> Usage:
    return Usage(
        cpu_s=max(one.cpu_s for one in usages),
        rss_mib=max(one.rss_mib for one in usages),
        descriptors=max(one.descriptors for one in usages),
        threads=max(one.threads for one in usages),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.http", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round")
    parser.add_argument("--flush-ms", type=float, default=2.0, help="what each flush of the slower disk takes more")
    parser.add_argument("--soak", type=float, help="look for growth for this many seconds instead")
    parser.add_argument("--folder", type=Path, default=CHECKOUT, help="on a disk: in memory, flushing costs nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main())
