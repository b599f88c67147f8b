"""What the doctor says about the owner file. It is nobody's duty to have one, so nothing here is an error."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from rawr.instance.doctor import Check, Finding, Severity
from rawr.instance.layout import InstanceLayout
from rawr.instance.owner import GlobalOwner, OwnerState, Seam, read_global_owner

_OF_STATE: Final[Mapping[OwnerState, tuple[str, Severity]]] = {
    OwnerState.MISSING: ("owner.file_missing", "info"),
    OwnerState.UNREADABLE: ("owner.file_unreadable", "warning"),
    OwnerState.EMPTY: ("owner.file_empty", "warning"),
    OwnerState.TARGET_GONE: ("owner.target_gone", "warning"),
    OwnerState.TARGET_NOT_INSTANCE: ("owner.target_not_instance", "warning"),
}
_OTHERS_MAY_WRITE: Final = 0o022


def owner_check(home: Path) -> Check:
    """The check of the owner file below `home`."""

    def check(layout: InstanceLayout) -> Iterator[Finding]:
        yield from owner_findings(read_global_owner(home), current=layout.root)

    return check


def owner_findings(owner: GlobalOwner, *, current: Path) -> Iterator[Finding]:
    """`current` is the real path of the instance that the doctor looks at."""
    evidence = _evidence(owner, current)
    if owner.problem is not None:
        finding_id, severity = _OF_STATE[owner.state]
        fix = f"write the path of an HQ into {owner.file}; only --global-owner needs it"
        yield Finding(id=finding_id, severity=severity, title=owner.problem, evidence=evidence, fix=fix)
    elif owner.seam(current) is Seam.OTHER_INSTANCE:
        title = f"the global owner is another HQ, {owner.root}; it is used only when --global-owner asks for it"
        yield Finding(id="owner.other_instance", severity="info", title=title, evidence=evidence)
    if owner.state is OwnerState.INSTANCE and owner.given != str(owner.root):
        title = f"{owner.file} names {owner.given}, which is an alias of {owner.root}"
        fix = f"write {owner.root} into {owner.file}"
        yield Finding(id="owner.not_realpath", severity="warning", title=title, evidence=evidence, fix=fix)
    if owner.mode is not None and owner.mode & _OTHERS_MAY_WRITE:
        title = f"{owner.file} can be written by other users (mode {owner.mode:o}), who would choose your HQ"
        fix = f"chmod go-w {shlex.quote(str(owner.file))}"
        yield Finding(id="owner.permissions", severity="warning", title=title, evidence=evidence, fix=fix)


def _evidence(owner: GlobalOwner, current: Path) -> dict[str, Any]:
    known = {"path": owner.file, "target": owner.given, "realpath": owner.root, "current": current}
    return {name: str(value) for name, value in known.items() if value is not None}
