"""The published document: valid, complete, and true about where a call goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from openapi_spec_validator import validate

from rawr.procedures.catalog import PROCEDURES
from rawr.procedures.openapi import openapi_document

if TYPE_CHECKING:
    from tests.host.conftest import Ask, Hosted

OPERATION_IDS = {
    "coordinationListWorkflows",
    "coordinationSaveWorkflow",
    "coordinationGetWorkflow",
    "coordinationValidateWorkflow",
    "coordinationQueueRun",
    "coordinationGetRunStatus",
    "coordinationGetRunTimeline",
    "stateGetRuntimeState",
}


@pytest.fixture
def document(hosted: Hosted, ask: Ask) -> dict[str, Any]:
    answer = ask(hosted.app, "GET", "/api/orpc/openapi.json", headers=hosted.bearer("orpc:state"))
    assert (answer.status, answer.content_type) == (200, "application/json; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    parsed: dict[str, Any] = answer.json
    return parsed


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, item) for path, methods in document["paths"].items() for method, item in methods.items()]


def test_the_document_is_valid_openapi(document: dict[str, Any]) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "RAWR HQ ORPC API", "version": "1.0.0"}


def test_every_procedure_is_in_it_once_under_its_stable_id(document: dict[str, Any]) -> None:
    listed = [item["operationId"] for _, _, item in operations(document)]
    assert set(listed) == OPERATION_IDS
    assert len(listed) == len(OPERATION_IDS)
    assert {tag for _, _, item in operations(document) for tag in item["tags"]} == {"coordination", "state"}


def test_the_server_url_and_a_path_lead_to_the_procedure(hosted: Hosted, ask: Ask, document: dict[str, Any]) -> None:
    prefix = urlsplit(document["servers"][0]["url"]).path
    assert prefix == "/api/orpc"
    for method, path, _ in operations(document):
        target = prefix + path.replace("{workflowId}", "none").replace("{runId}", "none")
        answer = ask(hosted.app, method.upper(), target, headers=hosted.bearer("orpc:*"))
        assert answer.text != "not found", target


def test_every_operation_documents_its_errors_and_its_security(document: dict[str, Any]) -> None:
    assert document["security"] == [{"bearer": []}]
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    for _, _, item in operations(document):
        assert {"200", "400", "401", "403", "413", "500"} <= set(item["responses"])
    queue = document["paths"]["/coordination/workflows/{workflowId}/run"]["post"]["responses"]
    assert {"404", "409"} <= set(queue)
    assert "RUN_QUEUE_FAILED" in queue["500"]["description"]


def test_a_body_holds_what_the_path_does_not_say(document: dict[str, Any]) -> None:
    queue = document["paths"]["/coordination/workflows/{workflowId}/run"]["post"]
    assert [parameter["name"] for parameter in queue["parameters"]] == ["workflowId"]
    assert queue["requestBody"]["required"] is False
    assert set(queue["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {"runId", "input"}


def test_objects_are_closed_and_named_as_on_the_wire(document: dict[str, Any]) -> None:
    desk = document["components"]["schemas"]["Desk"]
    assert desk["additionalProperties"] is False
    assert {"deskId", "inputSchema", "memoryScope"} <= set(desk["required"])
    assert "handler" not in desk["required"]


def test_the_document_comes_from_the_contract_alone() -> None:
    first = openapi_document(PROCEDURES, server_url="http://x/api/orpc")
    assert first == openapi_document(PROCEDURES, server_url="http://x/api/orpc")
    assert openapi_document(PROCEDURES[:1], server_url="http://x")["paths"].keys() == {"/coordination/workflows"}
