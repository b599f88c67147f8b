"""Which procedures there are. A change here is a change of the published contract."""

from __future__ import annotations

from rawr.procedures.catalog import PROCEDURES, STREAMS
from rawr.procedures.coordination import COORDINATION_PROCEDURES

CATALOG = {
    ("coordination", "listWorkflows"): ("GET", "/coordination/workflows"),
    ("coordination", "saveWorkflow"): ("POST", "/coordination/workflows"),
    ("coordination", "getWorkflow"): ("GET", "/coordination/workflows/{workflowId}"),
    ("coordination", "validateWorkflow"): ("POST", "/coordination/workflows/{workflowId}/validate"),
    ("coordination", "queueRun"): ("POST", "/coordination/workflows/{workflowId}/run"),
    ("coordination", "getRunStatus"): ("GET", "/coordination/runs/{runId}"),
    ("coordination", "getRunTimeline"): ("GET", "/coordination/runs/{runId}/timeline"),
    ("state", "getRuntimeState"): ("GET", "/state/runtime"),
}


def test_the_procedures_are_exactly_these_eight() -> None:
    found = {(known.namespace, known.name): (known.method, known.path) for known in PROCEDURES}
    assert found == CATALOG
    assert len(PROCEDURES) == len(CATALOG)


def test_the_trigger_boundary_has_exactly_the_seven_of_coordination() -> None:
    assert [known.namespace for known in COORDINATION_PROCEDURES] == ["coordination"] * 7
    assert all(known.path.startswith("/coordination/") for known in COORDINATION_PROCEDURES)


def test_the_only_stream_is_that_of_a_run() -> None:
    assert [(known.rpc_path, known.method) for known in STREAMS] == [("coordination/watchRun", "GET")]


def test_every_error_is_documented_once() -> None:
    for known in (*PROCEDURES, *STREAMS):
        codes = [error.code for error in known.errors]
        assert len(codes) == len(set(codes))
