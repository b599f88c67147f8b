"""The contract of finished hooks, as data and as it is published."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rawr.coordination.model import FINALIZATION_CONTRACT, Finalization, Run
from rawr.procedures.catalog import PROCEDURES
from rawr.procedures.openapi import openapi_document
from rawr.security.policy import Family
from rawr.wire import encode

CONTRACT: dict[str, Any] = {
    "delivery": "at-least-once",
    "exactlyOnce": False,
    "sideEffectPolicy": "idempotent-non-critical",
    "failureMode": "best-effort-non-blocking",
}
HOOK: dict[str, Any] = {
    "attemptedAt": "2026-01-01T00:00:00.000Z",
    "outcome": "skipped",
    "nonCritical": True,
    "idempotencyRequired": True,
    "timeoutMs": 5000,
}
RUN: dict[str, Any] = {
    "runId": "r",
    "workflowId": "w",
    "workflowVersion": 1,
    "status": "queued",
    "startedAt": "2026-01-01T00:00:00.000Z",
    "traceLinks": [],
}


def test_the_contract_is_written_out_in_full() -> None:
    assert json.loads(encode(Finalization(contract=FINALIZATION_CONTRACT))) == {"contract": CONTRACT}


@pytest.mark.parametrize("finalization", [None, {"contract": CONTRACT}, {"contract": CONTRACT, "finishedHook": HOOK}])
def test_a_run_may_have_a_finalization_and_need_not(finalization: dict[str, Any] | None) -> None:
    given = RUN if finalization is None else {**RUN, "finalization": finalization}
    assert json.loads(encode(msgspec.convert(given, Run))) == given


@pytest.mark.parametrize(
    "change",
    [
        {"exactlyOnce": True},
        {"delivery": "exactly-once"},
        {"sideEffectPolicy": "any"},
        {"failureMode": "blocking"},
        {"exactlyOnce": None},
        {"more": 1},
    ],
)
def test_another_contract_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**RUN, "finalization": {"contract": {**CONTRACT, **change}}}, Run)


@pytest.mark.parametrize("name", list(CONTRACT))
def test_nothing_of_the_contract_may_be_missing(name: str) -> None:
    partial = {key: value for key, value in CONTRACT.items() if key != name}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**RUN, "finalization": {"contract": partial}}, Run)


def test_the_published_schema_says_that_there_is_no_exactly_once() -> None:
    document: Any = openapi_document(
        PROCEDURES, title="t", server_url="http://localhost", family=Family.ORPC, scope_of=lambda known: known.name
    )
    schemas = document["components"]["schemas"]
    assert schemas["FinalizationContract"]["properties"]["exactlyOnce"]["const"] is False
    assert sorted(schemas["FinalizationContract"]["required"]) == sorted(CONTRACT)
    assert "finalization" not in schemas["Run"]["required"]
    assert schemas["Finalization"]["required"] == ["contract"]
    assert schemas["HookOutcome"]["enum"] == ["failed", "skipped", "succeeded"]
