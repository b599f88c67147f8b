"""`rawr gates ...`: run the conformance gates of an instance, and list them."""

from __future__ import annotations

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.clock import SystemClock
from rawr.errors import RawrError
from rawr.gates.model import GateResult, GateStatus, all_green
from rawr.gates.registry import GATES
from rawr.gates.runner import run_gates, selected

_COLOURS = {
    GateStatus.PASS: "green",
    GateStatus.FAIL: "red",
    GateStatus.INCONCLUSIVE: "yellow",
    GateStatus.ERROR: "red",
}


class GatesNotGreenError(RawrError):
    code = "GATES_NOT_GREEN"


class GatesInconclusiveError(RawrError):
    """Nothing failed, and something proved nothing."""

    code = "GATES_INCONCLUSIVE"


@command("run", "Prove by driving it that this HQ behaves as it must.")
@click.argument("names", metavar="[GATE]...", nargs=-1)
def run(invocation: Invocation, names: tuple[str, ...]) -> Outcome:
    """All gates, or the named ones. Hosts are opened in scratch folders; the HQ itself is only read, and what the
    gates said is kept in .rawr/evidence/gates. Only `pass` is green."""
    root = invocation.instance.root
    gates = selected(names)
    results = run_gates(
        root, gates, clock=SystemClock(), began=lambda gate: invocation.say(f"gate {gate.name}: {gate.proves} ...")
    )
    return Outcome(
        data={"results": [msgspec.to_builtins(result) for result in results]},
        text="\n".join(line for result in results for line in _lines(result)),
        error=_error(results),
    )


@command("list", "List the conformance gates and what they prove.")
def list_(invocation: Invocation) -> Outcome:
    del invocation
    rows = [f"{gate.name:<12} {gate.proves}" for gate in GATES]
    data = [{"name": gate.name, "proves": gate.proves, "codes": list(gate.codes)} for gate in GATES]
    return Outcome(data={"gates": data}, text="\n".join(rows))


def _lines(result: GateResult) -> list[str]:
    status = click.style(f"{result.status.value:<13}", fg=_COLOURS[result.status])
    lines = [f"{status} {result.gate:<12} {result.inspected} inspected, at least {result.floor} expected"]
    lines += [f"  {finding.code}: {clean(finding.message)}" for finding in result.findings]
    if result.reason is not None:
        lines.append(f"  {clean(result.reason)}")
    return lines


def _error(results: list[GateResult]) -> RawrError | None:
    if all_green(results):
        return None
    bad = [result.gate for result in results if result.status is not GateStatus.PASS]
    message = f"not green: {', '.join(bad)}"
    if all(result.status in (GateStatus.PASS, GateStatus.INCONCLUSIVE) for result in results):
        return GatesInconclusiveError(message)
    return GatesNotGreenError(message)
