"""Gate `composition`: what the manifest holds fits together. Drives nothing; the manifest is already composed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from rawr.coordination.validate import validate_workflow
from rawr.gates.model import GateFinding, Inspection
from rawr.hq import Manifest

PUBLISHED: Final = frozenset(
    {
        "coordination/listWorkflows",
        "coordination/saveWorkflow",
        "coordination/getWorkflow",
        "coordination/validateWorkflow",
        "coordination/queueRun",
        "coordination/getRunStatus",
        "coordination/getRunTimeline",
        "state/getRuntimeState",
    }
)
"""The published contract, said here once more so that a change of the code alone cannot change it."""


async def check(manifest: Manifest, scratch: Path) -> Inspection:
    del scratch
    return inspect(manifest)


def inspect(manifest: Manifest) -> Inspection:
    seen = [*manifest.procedures, *manifest.capabilities, *manifest.functions, *manifest.workflows]
    return Inspection(inspected=len(seen), floor=len(PUBLISHED) + 2, findings=tuple(_findings(manifest)))


def _findings(manifest: Manifest) -> Iterator[GateFinding]:
    for fault in manifest.faults:
        yield GateFinding(code="PLUGIN_FAULT", message=fault.message, place=fault.path)
    count = Counter(procedure.rpc_path for procedure in manifest.procedures)
    for name in sorted(PUBLISHED - count.keys()):
        yield GateFinding(code="PROCEDURE_MISSING", message=f"procedure {name} is not in the manifest", place=name)
    for name in sorted(name for name, times in count.items() if times > 1):
        yield GateFinding(code="PROCEDURE_REPEATED", message=f"procedure {name} is there twice", place=name)
    yield from _capabilities(manifest)
    if not manifest.functions:
        yield GateFinding(code="FUNCTION_MISSING", message="no durable function, so no run can ever start")
    yield from _workflows(manifest)


def _capabilities(manifest: Manifest) -> Iterator[GateFinding]:
    for capability in manifest.capabilities:
        prefix = capability.path_prefix
        if not prefix.startswith("/") or prefix.endswith("/") or prefix.count("/") != 1:
            message = f"capability {capability.name} has the path prefix {prefix!r} instead of one segment like /name"
            yield GateFinding(code="CAPABILITY_PREFIX", message=message, place=capability.name)
        for procedure in capability.procedures:
            if not procedure.path.startswith(f"{prefix}/"):
                message = f"{procedure.rpc_path} of capability {capability.name} lies outside {prefix}"
                yield GateFinding(code="CAPABILITY_PREFIX", message=message, place=procedure.rpc_path)


def _workflows(manifest: Manifest) -> Iterator[GateFinding]:
    for workflow in manifest.workflows:
        for issue in validate_workflow(workflow).errors:
            message = f"{issue.code}: {issue.message}"
            yield GateFinding(code="WORKFLOW_INVALID", message=message, place=workflow.workflow_id)
        for desk in workflow.desks:
            if desk.handler is not msgspec.UNSET and desk.handler not in manifest.desk_handlers:
                message = f"desk {desk.desk_id} needs the handler {desk.handler}, which no plugin has"
                yield GateFinding(code="HANDLER_UNKNOWN", message=message, place=workflow.workflow_id)
