"""Every gate by name: what it proves, which codes it can find, and where its check is. Data only."""

from __future__ import annotations

from typing import Final

import msgspec


class Gate(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    proves: str
    codes: tuple[str, ...]
    """Each has a sabotage in the tests that must produce it."""
    target: str
    """`module:function`, an async `(manifest, scratch folder) -> Inspection`."""


GATES: Final = (
    Gate(
        name="composition",
        proves="the manifest is whole: procedures once, capabilities with prefixes, handlers and workflows that fit",
        codes=(
            "PLUGIN_FAULT",
            "PROCEDURE_MISSING",
            "PROCEDURE_REPEATED",
            "CAPABILITY_PREFIX",
            "HANDLER_UNKNOWN",
            "WORKFLOW_INVALID",
            "FUNCTION_MISSING",
        ),
        target="rawr.gates.checks.composition:check",
    ),
    Gate(
        name="boundaries",
        proves="each route family lets in who may come in, and nobody else",
        codes=("FAMILY_OPEN", "FAMILY_SHUT", "ROUTE_UNEXPECTED"),
        target="rawr.gates.checks.boundaries:check",
    ),
    Gate(
        name="telemetry",
        proves="real runs, completed and failed, leave a complete timeline",
        codes=("TIMELINE_WRONG", "EVENT_NOT_OBSERVED", "RUN_NOT_ENDED", "RUN_ENDED_WRONGLY"),
        target="rawr.gates.checks.telemetry:check",
    ),
)


def gate_named(name: str) -> Gate | None:
    return next((gate for gate in GATES if gate.name == name), None)
