"""`rawr init DIR`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome


@command("init", "Make a folder an HQ with one small workflow.", dry_run=True)
@click.argument("folder", metavar="DIR")
def init(invocation: Invocation, folder: str) -> Outcome:
    """Nothing that is there is overwritten."""
    from rawr.instance.init import init_instance

    done = init_instance(invocation.cwd / Path(folder).expanduser(), dry_run=invocation.dry_run)
    data = {
        "root": str(done.root),
        "files": [msgspec.to_builtins(file) for file in done.files],
        "dryRun": invocation.dry_run,
    }
    verbs = {"create": "would create" if invocation.dry_run else "created", "skip": "kept"}
    rows = [f"{verbs[file.action]}  {file.path}" for file in done.files]
    if not invocation.dry_run:
        rows += ["", "next:", f"  cd {done.root}", "  rawr up --run hello"]
    return Outcome(data=data, text="\n".join(rows))
