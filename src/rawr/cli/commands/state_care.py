"""`rawr state verify|repair|unlock`: whether the files of the state are sound, and what to do when not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import RawrError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rawr.state.care import Repair
    from rawr.state.files import StateFiles
    from rawr.state.findings import Finding
    from rawr.state.stale import Holder

_COLOURS = {"error": "red", "warning": "yellow", "info": "cyan"}


class StateUnsoundError(RawrError):
    """At least one finding is more than information."""

    code = "STATE_UNSOUND"


class RepairIncompleteError(RawrError):
    """What could be repaired was; something is left for a person."""

    code = "STATE_REPAIR_INCOMPLETE"


@command("verify", "Check the files of the state, and say who holds its lock.")
def verify(invocation: Invocation) -> Outcome:
    """Takes no lock and changes nothing. Exit code 1 when there is an error or a warning."""
    from rawr.clock import SystemClock
    from rawr.state.findings import findings
    from rawr.state.lockfile import present_holder

    files = _files(invocation)
    found = findings(files, SystemClock())
    holder = present_holder(files, SystemClock())
    bad = [finding for finding in found if finding.severity != "info"]
    error = None
    if bad:
        error = StateUnsoundError(f"{len(bad)} things about {files.state} are wrong", fix=bad[0].fix)
    data = {"findings": msgspec.to_builtins(found), "holder": _holder(holder), "statePath": str(files.state)}
    rows = [*_rows(found), *(_lines_of(holder)), *([] if bad else [f"ok: {files.state}"])]
    return Outcome(data=data, text="\n".join(rows), error=error)


@command("repair", "Set right what can safely be.", dry_run=True)
def repair(invocation: Invocation) -> Outcome:
    """A corrupt state becomes the newest revision again, and its bytes are kept; leftovers of killed writers go.

    Whatever `rawr state verify` does not find is left alone. Exit code 3 when something is left for a person.
    """
    from rawr.clock import SystemClock
    from rawr.state import care

    files = _files(invocation)
    if invocation.dry_run:
        planned = care.planned_repair(files, SystemClock())
        data: dict[str, Any] = {"planned": msgspec.to_builtins(planned)}
        return Outcome(data=data, text=_repair_text("would ", planned))
    done = care.repair(files, SystemClock(), invocation.warn)
    error = None
    if done.left:
        error = RepairIncompleteError(f"{len(done.left)} things about {files.state} are left", fix=done.left[0].fix)
    return Outcome(data=msgspec.to_builtins(done), text=_repair_text("did ", done), error=error)


@command("unlock", "Remove the lock file of a process that is gone.")
@click.option(
    "--force", metavar="HOLDER_ID", help="Remove it although that holder lives. `rawr state verify` has the id."
)
def unlock(invocation: Invocation, force: str | None) -> Outcome:
    """Refuses, with exit code 4, while its process lives. Seldom needed: a lock that is stale is taken over anyway.

    A kernel lock cannot be removed; it ends with its process, which is named.
    """
    from rawr.clock import SystemClock
    from rawr.state import care
    from rawr.state.stale import described

    files = _files(invocation)
    unlocked = care.unlock(files, SystemClock(), force=force)
    data = {
        "removed": unlocked.holder is not None,
        "holder": _holder(unlocked.holder),
        "reason": unlocked.reason,
        "lockPath": str(files.lock_file),
    }
    text = f"{files.state} is not locked"
    if unlocked.holder is not None:
        text = f"removed the lock file of {described(unlocked.holder)}: {unlocked.reason}"
    return Outcome(data=data, text=clean(text))


def _repair_text(verb: str, repair: Repair) -> str:
    rows = [f"{verb}{action.what}" for action in repair.actions] or ["nothing to repair"]
    return "\n".join([*rows, *_rows(repair.left)])


def _rows(findings: Iterable[Finding]) -> list[str]:
    rows = []
    for finding in findings:
        mark = click.style(f"{finding.severity:<8}", fg=_COLOURS[finding.severity])
        rows += [f"{mark} {clean(finding.title)}  [{finding.id}]", f"         try: {clean(finding.fix)}"]
    return rows


def _lines_of(holder: Holder | None) -> list[str]:
    from rawr.state.stale import described

    return [] if holder is None else [clean(f"held by {described(holder)}, holder id {holder.id}")]


def _holder(holder: Holder | None) -> dict[str, Any] | None:
    return None if holder is None else {**msgspec.to_builtins(holder), "id": holder.id}


def _files(invocation: Invocation) -> StateFiles:
    from rawr.state.files import files_of

    return files_of(invocation.instance.root)
