"""Answers in the shapes of Inngest's API: data with metadata, and its one form of error. Pure.

Fields that Inngest has and this engine has no thought of (accounts, environments) are left out.
"""

from __future__ import annotations

from typing import Any, Final

from rawr.execution.embedded.inspection import AppTold, RunTold, StepTold, StoredEvent
from rawr.execution.embedded.model import EngineRunStatus
from rawr.host.errors import ErrorBody
from rawr.host.responses import Response, json_response
from rawr.wire import JsonValue, iso_from_ms

_STATUS: Final = {
    EngineRunStatus.QUEUED: "Queued",
    EngineRunStatus.RUNNING: "Running",
    EngineRunStatus.COMPLETED: "Completed",
    EngineRunStatus.FAILED: "Failed",
    EngineRunStatus.CANCELLED: "Cancelled",
}


def data_answer(data: JsonValue, *, now_ms: int, status: int = 200, cursor: str | None = None) -> Response:
    metadata: dict[str, Any] = {"fetched_at": iso_from_ms(now_ms), "cached_until": None}
    if cursor is not None:
        metadata["next_cursor"] = cursor
    return json_response({"data": data, "metadata": metadata}, status=status)


def error_answer(status: int, message: str, *, code: str | None = None, **more: JsonValue) -> Response:
    body: dict[str, Any] = {"error": message, "status": status, **more}
    if code is not None:
        body["code"] = code
    headers = ((b"connection", b"close"),) if status in (408, 413) else ()
    return json_response(body, status=status, headers=headers)


def fault_answer(error: ErrorBody) -> Response:
    return error_answer(error.status, error.message, code=error.code)


def event_json(event: StoredEvent) -> JsonValue:
    return {**event.body, "internal_id": event.ulid, "received_at": iso_from_ms(event.received_at_ms)}


def run_json(run: RunTold) -> JsonValue:
    """A failed or cancelled run has its error as its output too, as Inngest has it."""
    return {
        "run_id": run.run_id,
        "run_started_at": iso_from_ms(run.queued_at_ms if run.started_at_ms is None else run.started_at_ms),
        "queued_at": iso_from_ms(run.queued_at_ms),
        "app_id": run.app_id,
        "function_id": run.fn_id,
        "function_version": run.version,
        "event_id": run.event_ulid,
        "status": _STATUS[run.status],
        "ended_at": _time(run.ended_at_ms),
        "output": run.output if run.error is None else run.error,
        "error": run.error,
        "step_count": run.steps,
    }


def step_json(step: StepTold) -> JsonValue:
    return {
        "id": step.step_id,
        "name": step.name,
        "op": step.op,
        "status": step.status.value,
        "attempt": step.attempt,
        "input": step.input,
        "output": step.output,
        "error": step.error,
        "ended_at": _time(step.ended_at_ms),
        "due_at": _time(step.due_at_ms),
    }


def app_json(app: AppTold) -> JsonValue:
    return {
        "app_id": app.app_id,
        "url": app.url,
        "synced_at": iso_from_ms(app.synced_at_ms),
        "functions": [{"id": one.fn_id, "name": one.name} for one in app.functions],
    }


def _time(ms: int | None) -> str | None:
    return None if ms is None else iso_from_ms(ms)
