"""What the measured numbers say: medians, verdicts and the table. Pure; measures nothing."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from bench.repostate.judgement import Verdict

Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""What each case measured, round by round."""

RUNS: Final = 200
STEPS: Final = 5
PEER: Final = "DBOS: queue"
PEER_IN_LINE: Final = "DBOS: one by one"
"""Its cheapest form: nothing is queued, and nothing waits for anything else. Shown, not judged."""
SLEEPERS: Final = "100,000 sleeping runs"
ENDED: Final = "1,000,000 ended runs"


def medians(rounds: Rounds) -> dict[str, dict[str, float]]:
    return {
        name: {key: statistics.median(one[key] for one in found) for key in found[0]}
        for name, found in rounds.items()
        if found
    }


def judged(found: Mapping[str, Mapping[str, float]]) -> list[Verdict]:
    """A verdict on every bar whose cases were measured."""
    verdicts: list[Verdict] = []

    def judge(claim: str, ratio: float, bar: float, side: Any) -> None:
        verdicts.append(Verdict(claim=claim, ratio=ratio, bar=bar, side=side))

    engine = found["engine"]
    if PEER in found:
        judge("rate, engine / DBOS, both from a queue", found[PEER]["wallS"] / engine["wallS"], 2.0, "at least")
    judge("rate, engine / bare loop", found["bare loop"]["wallS"] / engine["wallS"], 0.8, "at least")
    judge("one run: step gap p50, ms", found["one run"]["gapP50Ms"], 5.0, "at most")
    short, long = found["runs of 50"]["cpuUsPerStep"], found["run of 500"]["cpuUsPerStep"]
    judge("engine CPU of a step, run of 500 / of 50", long / short, 1.3, "at most")
    idle, crowd = found["idle: nothing"], found[f"idle: {SLEEPERS}"]
    judge(f"{SLEEPERS}: MiB they add", crowd["memoryMib"] - idle["memoryMib"], 300.0, "at most")
    # An idle engine looks at its file a few times a second; "no more" allows for what timers measure.
    judge(f"{SLEEPERS}: idle CPU / of none", crowd["cpuPercent"] / idle["cpuPercent"], 1.5, "at most")
    fresh, full = found["start-up: empty file"], found[f"start-up: {ENDED}"]
    judge(f"start-up with {ENDED} / empty", full["wallS"] / fresh["wallS"], 2.0, "at most")
    judge(f"start-up CPU with {ENDED} / empty", full["cpuS"] / fresh["cpuS"], 2.0, "at most")
    return verdicts


def table(found: Mapping[str, Mapping[str, float]], verdicts: Sequence[Verdict], *, rounds: int) -> str:
    lines = [f"medians of up to {rounds} rounds; {RUNS} runs of {STEPS} steps where nothing else is said", ""]
    for name, numbers in found.items():
        shown = "  ".join(f"{key} {value:,.3f}" for key, value in numbers.items())
        lines.append(f"{name:<28} {shown}")
    lines += ["", f"{'claim':<48} {'found':>8} {'bar':>15}"]
    for verdict in verdicts:
        word = "met" if verdict.is_met else "MISSED"
        lines.append(f"{verdict.claim:<48} {verdict.ratio:>8.2f} {verdict.side + f' {verdict.bar:.2f}':>15}  {word}")
    if PEER not in found:
        lines.append("skipped: engine / DBOS, because dbos is not installed; `make bench` installs it")
    if PEER_IN_LINE in found:
        in_line = found[PEER_IN_LINE]["wallS"] / found["engine"]["wallS"]
        lines.append(f"{'not judged: rate, engine / DBOS without a queue':<48} {in_line:>8.2f}")
    return "\n".join(lines)


def report(found: Mapping[str, Mapping[str, float]], verdicts: Sequence[Verdict]) -> dict[str, object]:
    """For machines."""
    return {
        "cases": {name: {key: round(value, 5) for key, value in numbers.items()} for name, numbers in found.items()},
        "verdicts": [{**msgspec.to_builtins(verdict), "isMet": verdict.is_met} for verdict in verdicts],
    }
