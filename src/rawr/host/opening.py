"""What an instance does once when it is opened: plugins' workflows are saved, and what a dead host left goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from rawr.coordination.model import Workflow
from rawr.coordination.ports import WorkflowVersionConflictError
from rawr.coordination.runnable import WorkflowInvalidError
from rawr.coordination.service import CoordinationService
from rawr.errors import RawrError
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.ports import EventSink
from rawr.hq import Manifest, PluginFault

_log: Final = logging.getLogger("rawr.host")


async def begin(service: CoordinationService, manifest: Manifest, engine: EventSink) -> None:
    """Save what plugins ship, and hand over what a dead host could not. Neither keeps the instance from opening.

    An engine whose file is new knows no run: those that another file knew are handed over to it again.
    """
    _report_faults(manifest.faults)
    for workflow in manifest.workflows:
        await _save_shipped(service, workflow)
    try:
        resumed = await service.resume_undispatched()
        if isinstance(engine, EmbeddedEngine) and not await engine.has_taken_over():
            resumed += await service.resume_unfinished()
            await engine.mark_taken_over()
    except RawrError as error:
        _log.warning("some queued runs could not be handed to the engine: %s", error.message)
    else:
        if resumed:
            _log.info("handed %d queued runs to the engine", resumed)
    try:
        await service.tell_unheard()
    except RawrError as error:
        _log.warning("finished hooks of some failed runs could not be called: %s", error.message)


async def _save_shipped(service: CoordinationService, workflow: Workflow) -> None:
    try:
        await service.save_workflow(workflow)
    except (WorkflowVersionConflictError, WorkflowInvalidError) as error:
        _log.warning("workflow %s of a plugin was not saved: %s", workflow.workflow_id, error.message)


def _report_faults(faults: Iterable[PluginFault]) -> None:
    for fault in faults:
        _log.warning("plugin %s is left out: %s: %s", fault.path, fault.code, fault.message)
