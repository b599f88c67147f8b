"""Runs gates, each in its own process, and keeps what they said as evidence in `.rawr/evidence/gates/`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import BadInputError
from rawr.gates.model import GateResult, GateStatus, Inspection, status_of
from rawr.gates.registry import GATES, Gate, gate_named
from rawr.storage.jsonfile import write_json
from rawr.wire import iso_from_ms

GATE_S: Final = 120.0
COMPLAINT_MAX: Final = 2000


class GateUnknownError(BadInputError):
    code = "GATE_NOT_FOUND"


def selected(names: Sequence[str]) -> tuple[Gate, ...]:
    """The named gates, or all. Raises GateUnknownError."""
    if not names:
        return GATES
    found = []
    for name in names:
        gate = gate_named(name)
        if gate is None:
            known = ", ".join(gate.name for gate in GATES)
            raise GateUnknownError(f"there is no gate {name}; known: {known}", fix="rawr gates list")
        found.append(gate)
    return tuple(found)


def run_gates(
    root: Path, gates: Sequence[Gate], *, clock: Clock, began: Callable[[Gate], None], timeout_s: float = GATE_S
) -> list[GateResult]:
    """Run the gates one after the other; each result is on disk before the next gate begins."""
    folder = root / ".rawr" / "evidence" / "gates"
    results = []
    for gate in gates:
        began(gate)
        result = _run(root, gate, clock, timeout_s)
        write_json(folder / f"{gate.name}.json", result)
        results.append(result)
    return results


def _run(root: Path, gate: Gate, clock: Clock, timeout_s: float) -> GateResult:
    started = time.perf_counter()
    inspection, reason = _inspection(root, gate, timeout_s)
    return GateResult(
        gate=gate.name,
        status=GateStatus.ERROR if inspection is None else status_of(inspection),
        inspected=0 if inspection is None else inspection.inspected,
        floor=0 if inspection is None else inspection.floor,
        findings=() if inspection is None else inspection.findings,
        checked_at=iso_from_ms(clock.now_ms()),
        duration_ms=round((time.perf_counter() - started) * 1000),
        reason=reason,
    )


def _inspection(root: Path, gate: Gate, timeout_s: float) -> tuple[Inspection | None, str | None]:
    """What the child found, or why it could not say."""
    command = [sys.executable, "-m", "rawr.gates.child", gate.name, str(root)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAWR_")}
    try:
        done = subprocess.run(
            command, capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return None, f"it had no verdict after {timeout_s:.0f} s"
    if done.returncode != 0:
        complaint = done.stderr.decode("utf-8", "replace").strip().splitlines()
        return None, (complaint[-1] if complaint else f"it ended with {done.returncode}")[:COMPLAINT_MAX]
    try:
        return msgspec.json.decode(done.stdout, type=Inspection), None
    except msgspec.DecodeError as error:
        return None, f"it said something that is no verdict: {error}"
