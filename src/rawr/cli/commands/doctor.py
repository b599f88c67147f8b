"""`rawr doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import RawrError

if TYPE_CHECKING:
    from rawr.instance.doctor import Diagnosis, Finding

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


class UnhealthyError(RawrError):
    """At least one finding is an error."""

    code = "DOCTOR_FOUND_ERRORS"


@command("doctor", "Check what an HQ needs, and say what is wrong.")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
def doctor(invocation: Invocation, strict: bool) -> Outcome:
    """Looks, and changes, downloads and starts nothing. Exit code 1 when there is an error."""
    from rawr.execution.doctor import CHECKS as ENGINE_CHECKS
    from rawr.instance.doctor import CHECKS, diagnose
    from rawr.instance.layout import InstanceLayout
    from rawr.instance.owner_check import owner_check

    # Not `invocation.instance`: an identity that is damaged is something to find, not to fail on.
    layout = InstanceLayout(invocation.resolve().root)
    diagnosis = diagnose(layout, checks={**CHECKS, **ENGINE_CHECKS, "owner": owner_check(invocation.home)})
    bad = [finding for finding in diagnosis.findings if _counts(finding, strict=strict)]
    error = None
    if bad:
        error = UnhealthyError(f"{len(bad)} of {len(diagnosis.checks)} checks found something wrong")
    return Outcome(data=_data(diagnosis), text=_text(diagnosis), error=error)


def _counts(finding: Finding, *, strict: bool) -> bool:
    return finding.severity == "error" or (strict and finding.severity == "warning")


def _data(diagnosis: Diagnosis) -> dict[str, object]:
    severities: list[str] = [finding.severity for finding in diagnosis.findings]
    return {
        "summary": {severity: severities.count(severity) for severity in _COLOURS} | {"checks": len(diagnosis.checks)},
        "findings": [msgspec.to_builtins(finding) for finding in diagnosis.findings],
        "checks": list(diagnosis.checks),
    }


def _text(diagnosis: Diagnosis) -> str:
    rows = []
    for finding in diagnosis.findings:
        mark = click.style(f"{finding.severity:<8}", fg=_COLOURS[finding.severity])
        rows.append(f"{mark} {clean(finding.title)}  [{finding.id}]")
        if finding.fix is not None:
            rows.append(f"         try: {clean(finding.fix)}")
    if diagnosis.ok:
        rows.append(f"ok: {len(diagnosis.checks)} checks, no error")
    return "\n".join(rows)
