"""What a gate says. Pure.

Only `pass` is green. A gate that inspected less than its floor is inconclusive, whatever it found, because a
check that saw nothing proves nothing; the floor is counted from another source than the inspection.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec


class GateStatus(StrEnum):
    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    ERROR = "error"


class GateFinding(msgspec.Struct, frozen=True, kw_only=True):
    """`code` is stable and documented by the gate; `place` names what it is about."""

    code: str
    message: str
    place: str = ""


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What a check looked at and what it found."""

    inspected: int
    floor: int
    findings: tuple[GateFinding, ...] = ()


class GateResult(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One run of one gate; this is also the form of its evidence file."""

    gate: str
    status: GateStatus
    inspected: int
    floor: int
    findings: tuple[GateFinding, ...]
    checked_at: str
    duration_ms: int
    reason: str | None = None
    """Why there is no verdict, for `error`."""


def status_of(inspection: Inspection) -> GateStatus:
    if inspection.findings:
        return GateStatus.FAIL
    if inspection.inspected < max(inspection.floor, 1):
        return GateStatus.INCONCLUSIVE
    return GateStatus.PASS


def all_green(results: Sequence[GateResult]) -> bool:
    return bool(results) and all(result.status is GateStatus.PASS for result in results)
