"""`rawr instance current`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from rawr.instance.owner import GlobalOwner


@command("current", "Show which HQ commands work on here, and why.")
def current(invocation: Invocation) -> Outcome:
    """Looks at the owner file in any case and lets it decide nothing. Only --global-owner makes the HQ that it
    names the one whose plugins count, inside of another HQ too.
    """
    from rawr.instance.install import assess_install_state
    from rawr.instance.owner import read_global_owner

    instance = invocation.instance
    install = assess_install_state(
        instance.root, home=invocation.home, allow_global_owner_fallback=invocation.global_owner
    )
    owner = read_global_owner(invocation.home)
    data = {
        "root": str(instance.root),
        "id": instance.id,
        "source": instance.source,
        "seam": owner.seam(instance.root).value,
        "owner": _owner_data(owner),
        "installState": msgspec.to_builtins(install),
    }
    canonical = f"{install.canonical_workspace_root} ({install.canonical_workspace_source.value})"
    rows = [
        ("hq", data["root"]),
        ("id", data["id"]),
        ("chosen by", data["source"]),
        ("plugins of", canonical),
        ("owner", f"{owner.problem or owner.root} ({data['seam']})"),
    ]
    return Outcome(data=data, text="\n".join(f"{name:<10}  {clean(str(value))}" for name, value in rows))


def _owner_data(owner: GlobalOwner) -> dict[str, Any]:
    known = {"file": owner.file, "state": owner.state.value, "target": owner.given, "realpath": owner.root}
    return {name: str(value) for name, value in known.items() if value is not None}
