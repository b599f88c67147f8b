"""How runs, events and memory lie in the rows of the coordination store. Payloads are JSON text, kept as given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from rawr.coordination.model import (
    Finalization,
    FinalizationContract,
    FinishedHookState,
    MemoryKey,
    Run,
    RunStatus,
    TimelineEvent,
    TraceLink,
)
from rawr.coordination.store_rules import to_json
from rawr.storage.sqlite import Row, SqlValue

T = TypeVar("T")

SELECT_RUN: Final = """
SELECT number, last_seq, run_id, workflow_id, workflow_version, status, started_at, finished_at, run_input.input,
  output, error, trace_links, run_finalization.contract, run_finalization.finished_hook
FROM run LEFT JOIN run_input ON run_input.run_number = run.number
  LEFT JOIN run_finalization ON run_finalization.run_number = run.number
"""


def run_of(row: Row) -> Run:
    (_, _, run_id, workflow_id, version, status, started_at, finished_at, run_input, *rest) = row
    (output, error, links, contract, hook) = rest
    return Run(
        run_id=run_id,
        workflow_id=workflow_id,
        workflow_version=version,
        status=RunStatus(status),
        started_at=started_at,
        finished_at=_or_unset(finished_at),
        input=msgspec.UNSET if run_input is None else msgspec.json.decode(run_input),
        output=msgspec.UNSET if output is None else msgspec.json.decode(output),
        error=_or_unset(error),
        trace_links=msgspec.json.decode(links, type=tuple[TraceLink, ...]),
        finalization=msgspec.UNSET if contract is None else _finalization(contract, hook),
    )


def _finalization(contract: str, hook: str | None) -> Finalization:
    return Finalization(
        contract=msgspec.json.decode(contract, type=FinalizationContract),
        finished_hook=msgspec.UNSET if hook is None else msgspec.json.decode(hook, type=FinishedHookState),
    )


def list_of(rows: Sequence[Row]) -> bytes:
    """Documents as one JSON list. They are stored in their wire form, so nobody has to read them."""
    return f"[{','.join([document for (document,) in rows])}]".encode()


def timeline_event(document: str) -> TimelineEvent:
    return msgspec.json.decode(document, type=TimelineEvent)


def json_or_null(value: object) -> str | None:
    """SQL NULL for a payload that is not there; a payload that is JSON null is the text `null`."""
    return None if value is msgspec.UNSET else to_json(value)


def text_or_null(value: str | msgspec.UnsetType) -> str | None:
    return None if value is msgspec.UNSET else value


def _or_unset(value: T | None) -> T | msgspec.UnsetType:
    return msgspec.UNSET if value is None else value


def memory_key(at: MemoryKey) -> tuple[SqlValue, ...]:
    return (at.workflow_id, at.workflow_version, at.desk_id, at.namespace, at.key)
