"""Handing runs to the engine of the host."""

from __future__ import annotations

from collections.abc import Sequence

from rawr.coordination.model import Run
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.ports import EventSink, OutgoingEvent
from rawr.execution.program import EVENT_NAME
from rawr.host.request import CURRENT_REQUEST
from rawr.ids import EventId
from rawr.wire import JsonValue


class EngineDispatcher:
    """Hands a run to the engine as an event. The run's id makes the event unique: twice is once.

    The event says which request it comes from, when it is handed over while that is answered.
    """

    def __init__(self, sink: EventSink) -> None:
        self._sink = sink

    async def dispatch(self, run: Run) -> Sequence[EventId]:
        data: dict[str, JsonValue] = {
            "runId": run.run_id,
            "workflowId": run.workflow_id,
            "workflowVersion": run.workflow_version,
        }
        if (request := CURRENT_REQUEST.get()) is not None:
            data |= {"requestId": request.request_id, "correlationId": request.correlation_id}
        event = OutgoingEvent(name=EVENT_NAME, data=data, event_id=run.run_id)
        return [EventId(event_id) for event_id in await self._sink.send([event])]

    async def withdraw(self, run: Run, reason: str) -> None:
        if isinstance(self._sink, EmbeddedEngine):
            await self._sink.cancel_of_event(run.run_id, reason)
