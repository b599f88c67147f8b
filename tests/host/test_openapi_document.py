"""The published documents: valid, complete, and true about where a call goes and what comes back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import jsonschema_rs
import msgspec
import pytest
from openapi_spec_validator import validate
from scripts.openapi import BASE_URL, FOLDER, documents, text_of

from rawr.errors import StorageError
from rawr.host.errors import STATUS_BY_CODE
from rawr.procedures.catalog import PROCEDURES
from rawr.procedures.contract import Procedure
from rawr.procedures.coordination import COORDINATION_PROCEDURES
from rawr.procedures.openapi import openapi_document
from rawr.procedures.schema_issues import schema_issues
from rawr.security.policy import MATRIX, Evidence, Family

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted

OPERATION_IDS: Final = {
    "coordinationListWorkflows",
    "coordinationSaveWorkflow",
    "coordinationGetWorkflow",
    "coordinationValidateWorkflow",
    "coordinationQueueRun",
    "coordinationGetRunStatus",
    "coordinationGetRunTimeline",
    "stateGetRuntimeState",
}
TITLES: Final = {
    "/api/orpc/openapi.json": "RAWR HQ ORPC API",
    "/api/workflows/openapi.json": "RAWR HQ workflows API",
    "/api/workflows/coordination/openapi.json": "RAWR HQ workflows API",
}


def read(hosted: Hosted, ask: Ask, path: str, scope: str = "orpc:state") -> dict[str, Any]:
    answer = ask(hosted.app, "GET", path, headers=hosted.bearer(scope))
    assert (answer.status, answer.content_type) == (200, "application/json; charset=utf-8")
    assert answer.headers["cache-control"] == "no-store"
    parsed: dict[str, Any] = answer.json
    return parsed


@pytest.fixture(params=sorted(TITLES))
def path(request: pytest.FixtureRequest) -> str:
    asked: str = request.param
    return asked


@pytest.fixture
def document(hosted: Hosted, ask: Ask, path: str) -> dict[str, Any]:
    return read(hosted, ask, path)


@pytest.fixture
def orpc(hosted: Hosted, ask: Ask) -> dict[str, Any]:
    return read(hosted, ask, "/api/orpc/openapi.json")


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(method, path, item) for path, methods in document["paths"].items() for method, item in methods.items()]


def test_a_document_is_valid_openapi(document: dict[str, Any], path: str) -> None:
    validate(document)
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": TITLES[path], "version": "1.0.0"}


def test_every_procedure_is_in_it_once_under_its_stable_id(document: dict[str, Any], path: str) -> None:
    expected = OPERATION_IDS if "orpc" in path else OPERATION_IDS - {"stateGetRuntimeState"}
    listed = [item["operationId"] for _, _, item in operations(document)]
    assert set(listed) == expected
    assert len(listed) == len(expected)
    tags = {tag for _, _, item in operations(document) for tag in item["tags"]}
    assert tags == {tag["name"] for tag in document["tags"]}


def test_the_server_url_and_a_path_lead_to_the_procedure(
    hosted: Hosted, ask: Ask, document: dict[str, Any], path: str
) -> None:
    prefix = urlsplit(document["servers"][0]["url"]).path
    assert path.startswith(f"{prefix}/")
    for method, below, _ in operations(document):
        target = prefix + below.replace("{workflowId}", "none").replace("{runId}", "none")
        answer = ask(hosted.app, method.upper(), target, headers=hosted.bearer("orpc:*", "workflows:*"))
        assert answer.text != "not found", target


def test_the_scope_that_an_operation_names_opens_it_and_no_other(
    hosted: Hosted, ask: Ask, document: dict[str, Any]
) -> None:
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    prefix = urlsplit(document["servers"][0]["url"]).path
    for method, below, item in operations(document):
        ((scope,),) = (requirement["bearer"] for requirement in item["security"])
        target = prefix + below.replace("{workflowId}", "none").replace("{runId}", "none")
        other = "orpc:other" if scope.startswith("orpc") else "workflows:other"
        assert ask(hosted.app, method.upper(), target, headers=hosted.bearer(scope)).status not in (401, 403)
        assert ask(hosted.app, method.upper(), target, headers=hosted.bearer(other)).status == 403


def test_the_security_schemes_are_the_evidence_that_opens_the_family(document: dict[str, Any], path: str) -> None:
    family = Family.ORPC if "orpc" in path else Family.WORKFLOWS
    evidence = {row.evidence for row in MATRIX.values() if family in row.families}
    assert evidence == {Evidence.API_KEY}
    assert set(document["components"]["securitySchemes"]) == {"bearer"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_a_document_is_only_read_and_only_by_key_holders(hosted: Hosted, ask: Ask, path: str, method: str) -> None:
    assert ask(hosted.app, method, path, headers=hosted.bearer("orpc:*", "workflows:*")).status == 404
    assert ask(hosted.app, "GET", path).status == 401
    assert ask(hosted.app, "GET", path, headers=hosted.bearer()).status == 401


def test_every_operation_documents_its_errors(document: dict[str, Any]) -> None:
    for method, _, item in operations(document):
        always = {"200", "400", "401", "403", "429", "500", "503"} | ({"408", "413"} if method == "post" else set())
        assert always <= set(item["responses"])
        assert "WWW-Authenticate" in item["responses"]["401"]["headers"]
        assert "Retry-After" in item["responses"]["503"]["headers"]
    by_id = {known.operation_id: known for known in PROCEDURES}
    for _, _, item in operations(document):
        for error in by_id[item["operationId"]].errors:
            assert f"`{error.code}`" in item["responses"][str(error.status)]["description"]


def test_a_body_holds_what_the_path_does_not_say(orpc: dict[str, Any]) -> None:
    queue = orpc["paths"]["/coordination/workflows/{workflowId}/run"]["post"]
    assert [parameter["name"] for parameter in queue["parameters"]] == ["workflowId"]
    assert queue["requestBody"]["required"] is False
    assert set(queue["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {"runId", "input"}
    assert "requestBody" not in orpc["paths"]["/coordination/workflows/{workflowId}/validate"]["post"]


def test_objects_are_closed_and_named_as_on_the_wire(orpc: dict[str, Any]) -> None:
    desk = orpc["components"]["schemas"]["Desk"]
    assert desk["additionalProperties"] is False
    assert {"deskId", "inputSchema", "memoryScope"} <= set(desk["required"])
    assert "handler" not in desk["required"]


def test_every_component_is_used(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f'"#/components/schemas/{name}"' in text, name


def test_the_document_comes_from_the_contract_alone() -> None:
    def made(*procedures: Procedure) -> dict[str, Any]:
        return openapi_document(
            procedures, title="t", server_url="http://x", family=Family.ORPC, scope_of=lambda known: known.name
        )

    assert made(*PROCEDURES) == made(*PROCEDURES)
    assert made(PROCEDURES[0])["paths"].keys() == {"/coordination/workflows"}
    assert set(made(PROCEDURES[0])["components"]["schemas"]) < set(made(*PROCEDURES)["components"]["schemas"])


@pytest.mark.parametrize("name", sorted(documents()))
def test_the_committed_copy_is_what_the_contract_says(name: str) -> None:
    assert (FOLDER / name).read_text() == text_of(documents()[name]), "make openapi writes it anew"


@pytest.mark.parametrize("name", ["orpc", "workflows"])
def test_the_committed_copy_is_what_a_server_serves(hosted: Hosted, ask: Ask, name: str) -> None:
    served = read(hosted, ask, f"/api/{name}/openapi.json")
    served["servers"] = [{"url": f"{BASE_URL}/api/{name}"}]
    assert served == json.loads((FOLDER / f"{name}.json").read_text())


class Checked:
    """Calls by the document alone: where an operation is, what it takes, and whether the answer is a documented one."""

    def __init__(self, hosted: Hosted, ask: Ask, document: dict[str, Any]) -> None:
        self._hosted = hosted
        self._ask = ask
        self._document = document
        self._operations = {item["operationId"]: (method, path, item) for method, path, item in operations(document)}
        self.bearer = hosted.bearer("orpc:*", "workflows:*")
        self.seen: set[tuple[str, int, str]] = set()

    def call(self, operation_id: str, given: Any = None, *, raw: bytes | None = None, **headers: str) -> Answer:
        method, path, item = self._operations[operation_id]
        rest = dict(given or {})
        for parameter in item["parameters"]:
            path = path.replace(f"{{{parameter['name']}}}", rest.pop(parameter["name"], "none"))
        body = raw if raw is not None else json.dumps(rest).encode() if "requestBody" in item else b""
        target = urlsplit(self._document["servers"][0]["url"]).path + path
        answer = self._ask(self._hosted.app, method.upper(), target, headers={**self.bearer, **headers}, body=body)
        self._check(item, answer)
        return answer

    def _check(self, item: dict[str, Any], answer: Answer) -> None:
        response = item["responses"][str(answer.status)]
        (media_type,) = response["content"]
        assert answer.content_type == media_type
        schema = {**response["content"][media_type]["schema"], "components": self._document["components"]}
        jsonschema_rs.validator_for(schema).validate(answer.json)
        for name in response.get("headers", {}):
            assert name.lower() in answer.headers
        code = "" if answer.status == 200 else answer.json["code"]
        if code and answer.status < 500:
            assert f"`{code}`" in response["description"]
        self.seen.add((item["operationId"], answer.status, code))


@pytest.fixture
def checked(hosted: Hosted, ask: Ask, orpc: dict[str, Any]) -> Checked:
    return Checked(hosted, ask, orpc)


def test_the_examples_go_as_they_are_written(checked: Checked, hosted: Hosted) -> None:
    hosted.state.enable("@rawr/plugin-mfe-demo")
    order = ["saveWorkflow", "listWorkflows", "getWorkflow", "validateWorkflow", "queueRun", "getRunStatus"]
    by_name = {known.name: known for known in PROCEDURES}
    for name in [*order, "getRunTimeline", "getRuntimeState"]:
        known = by_name[name]
        given, expected = as_json(known.example.given), as_json(known.example.answer)
        assert schema_issues(given, known.input_type) == ()
        answer = checked.call(known.operation_id, given)
        assert answer.status == 200
        assert shape(answer.json) == shape(expected), name


def as_json(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def shape(value: Any) -> Any:
    """What is where, whatever it says. Stores add their own time, and only a real instance knows its root."""
    if isinstance(value, dict):
        return {key: shape(child) for key, child in value.items() if key not in ("updatedAt", "authorityRepoRoot")}
    return [shape(child) for child in value] if isinstance(value, list) else type(value)


def test_every_documented_refusal_comes_as_documented(checked: Checked, hosted: Hosted) -> None:
    workflow = as_json(COORDINATION_PROCEDURES[1].example.given)["workflow"]
    waiting_desks = [{**desk, "kind": "desk:human-wait"} for desk in workflow["desks"]]
    waiting = {**workflow, "workflowId": "waits", "desks": waiting_desks}
    run = {"workflowId": "release-notes", "runId": "r"}
    for given in (workflow, {**workflow, "workflowId": "other"}, waiting):
        assert checked.call("coordinationSaveWorkflow", {"workflow": given}).status == 200
    checked.call("coordinationQueueRun", run)
    checked.call("coordinationSaveWorkflow", {"workflow": {**workflow, "name": "changed"}})
    checked.call("coordinationSaveWorkflow", {"workflow": {**workflow, "entryDeskId": "none"}})
    checked.call("coordinationSaveWorkflow", {"workflow": 5})
    checked.call("coordinationSaveWorkflow", raw=b"{")
    checked.call("coordinationSaveWorkflow", raw=b"x" * 20, **{"content-length": str(10**9)})
    checked.call("coordinationSaveWorkflow", authorization="Bearer wrong")
    narrow = hosted.bearer("workflows:*")["authorization"]
    checked.call("coordinationGetRunStatus", {"runId": "r"}, authorization=narrow)
    for operation in ("GetWorkflow", "ValidateWorkflow", "QueueRun"):
        for workflow_id in ("-", "none"):
            checked.call(f"coordination{operation}", {"workflowId": workflow_id})
    for operation in ("GetRunStatus", "GetRunTimeline"):
        for run_id in ("-", "none"):
            checked.call(f"coordination{operation}", {"runId": run_id})
    checked.call("coordinationQueueRun", {**run, "runId": "-"})
    checked.call("coordinationQueueRun", {**run, "workflowId": "waits", "runId": "r-2"})
    checked.call("coordinationQueueRun", {**run, "workflowId": "other"})
    hosted.dispatcher.refuses = True
    checked.call("coordinationQueueRun", {**run, "runId": "r-3"})
    hosted.state.error = RuntimeError("boom")
    checked.call("stateGetRuntimeState")
    hosted.state.error = StorageError("the disk is full")
    checked.call("stateGetRuntimeState")
    documented = {(known.operation_id, error.status, error.code) for known in PROCEDURES for error in known.errors}
    # A workflow that was saved before a rule was made cannot be had here.
    assert documented - checked.seen == {("coordinationQueueRun", 400, "WORKFLOW_VALIDATION_FAILED")}
    statuses = {status for _, status, _ in checked.seen}
    assert statuses == {200, 400, 401, 403, 404, 409, 413, 500, 503}


def test_every_status_of_the_table_of_codes_is_documented_somewhere(orpc: dict[str, Any]) -> None:
    """Those that the guard, the console or other families give are not of these operations."""
    documented = {int(status) for _, _, item in operations(orpc) for status in item["responses"]}
    assert set(STATUS_BY_CODE.values()) - documented == {405, 499}
