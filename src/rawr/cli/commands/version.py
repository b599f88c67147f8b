"""`rawr version`."""

from __future__ import annotations

from rawr import __version__
from rawr.cli.context import Invocation, command, version_text
from rawr.cli.output import Outcome


@command("version", "Show the version of rawr.")
def version(_: Invocation) -> Outcome:
    return Outcome(data={"version": __version__}, text=version_text())
