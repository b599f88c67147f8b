"""What the measured numbers say: medians, ratios, verdicts and the table. Pure; measures nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

COLUMNS: Final = f"{'case':<34} {'changes/s':>10} {'p99 ms':>8} {'last/median':>12} {'rounds':>7}"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """One process of a crowd: when it began and ended, on a clock that all share, and how long each change took."""

    began_s: float
    ended_s: float
    took_s: tuple[float, ...]


class Pace(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A crowd in one round, or the medians of its rounds."""

    per_s: float
    p99_ms: float
    last_over_median: float
    """When the last process was ready, as a multiple of when the middle one was."""
    rounds: int = 1


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    claim: str
    ratio: float
    bar: float
    side: Literal["at most", "at least"]

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.bar if self.side == "at most" else self.ratio >= self.bar


def pace_of(crowd: Sequence[Process]) -> Pace:
    began_s = min(process.began_s for process in crowd)
    ready_s = [process.ended_s - began_s for process in crowd]
    took_s = [one for process in crowd for one in process.took_s]
    return Pace(
        per_s=len(took_s) / max(ready_s),
        p99_ms=percentile(took_s, 99) * 1000,
        last_over_median=max(ready_s) / statistics.median(ready_s),
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """The smallest value that at least `percent` of all do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def median_pace(rounds: Sequence[Pace]) -> Pace:
    return Pace(
        per_s=statistics.median(one.per_s for one in rounds),
        p99_ms=statistics.median(one.p99_ms for one in rounds),
        last_over_median=statistics.median(one.last_over_median for one in rounds),
        rounds=len(rounds),
    )


def judged_alone(medians_ms: dict[str, float]) -> list[Verdict]:
    """One process: what a change and a read cost, as multiples of the least that a durable replacement costs."""
    floor_ms = medians_ms["floor"]
    bars = {"enable": 1.8, "mutate": 1.8, "get": 0.1}
    return [
        Verdict(claim=f"alone: {name} / floor", ratio=medians_ms[name] / floor_ms, bar=bar, side="at most")
        for name, bar in bars.items()
    ]


def judged_crowd(paces: dict[str, Pace], *, name: str) -> list[Verdict]:
    """Many processes: `enable`, whose commits are shared between processes, against a naive writer and `mutate`."""
    enable, mutate, naive = paces["enable"], paces["mutate"], paces["naive"]
    faster: Final = "at least"
    return [
        Verdict(claim=f"{name}: rate, enable / naive", ratio=enable.per_s / naive.per_s, bar=1.5, side=faster),
        Verdict(claim=f"{name}: rate, enable / mutate", ratio=enable.per_s / mutate.per_s, bar=1.5, side=faster),
        Verdict(claim=f"{name}: p99, enable / mutate", ratio=enable.p99_ms / mutate.p99_ms, bar=0.35, side="at most"),
    ]


def judged_fairness(paces: dict[str, Pace], *, name: str) -> list[Verdict]:
    return [
        Verdict(
            claim=f"{name}: last process / median, {who}", ratio=paces[who].last_over_median, bar=3.0, side="at most"
        )
        for who in ("enable", "mutate")
    ]


def table(medians_ms: dict[str, float], crowds: dict[str, dict[str, Pace]], verdicts: Sequence[Verdict]) -> str:
    lines = [f"{'case':<34} {'median ms':>10} {'of floor':>8}"]
    for name, ms in medians_ms.items():
        lines.append(f"{'alone: ' + name:<34} {ms:>10.3f} {ms / medians_ms['floor']:>8.2f}")
    lines += ["", COLUMNS]
    for crowd, paces in crowds.items():
        for name, pace in paces.items():
            shown = f"{pace.per_s:>10.0f} {pace.p99_ms:>8.1f} {pace.last_over_median:>12.2f} {pace.rounds:>7}"
            lines.append(f"{crowd + ': ' + name:<34} {shown}")
    lines += ["", f"{'claim':<42} {'ratio':>6} {'bar':>14}"]
    for verdict in verdicts:
        word = "met" if verdict.is_met else "MISSED"
        lines.append(f"{verdict.claim:<42} {verdict.ratio:>6.2f} {verdict.side + f' {verdict.bar:.2f}':>14}  {word}")
    return "\n".join(lines)


def report(
    medians_ms: dict[str, float], crowds: dict[str, dict[str, Pace]], verdicts: Sequence[Verdict]
) -> dict[str, object]:
    """For machines. Milliseconds, changes per second, ratios."""
    return {
        "aloneMs": {name: round(ms, 4) for name, ms in medians_ms.items()},
        "crowds": {crowd: msgspec.to_builtins(paces) for crowd, paces in crowds.items()},
        "verdicts": [{**msgspec.to_builtins(verdict), "isMet": verdict.is_met} for verdict in verdicts],
    }
