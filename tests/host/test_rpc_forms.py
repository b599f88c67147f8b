"""Forms and files as input, in both dialects; and what hostile `meta` and `maps` come to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.host.test_families import save

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted

FILE = {"name": "notes.txt", "type": "text/plain", "base64": "aGVsbG8="}


def encoded(fields: dict[str, Any]) -> tuple[dict[str, str], bytes]:
    """The form as httpx sends it: texts and `(name, content, type)`."""
    files = {name: value if isinstance(value, tuple) else (None, value) for name, value in fields.items()}
    request = httpx.Request("POST", "http://x/", files=files)
    return {"content-type": request.headers["content-type"]}, request.read()


def post_form(hosted: Hosted, ask: Ask, procedure: str, document: object, *files: tuple[str, bytes, str]) -> Answer:
    numbered = {str(number): file for number, file in enumerate(files)}
    headers, body = encoded({"data": json.dumps(document), **numbered})
    return ask(hosted.app, "POST", f"/rpc/coordination/{procedure}", headers={**hosted.bearer(), **headers}, body=body)


NOTES = ("notes.txt", b"hello", "text/plain")


def test_a_run_may_be_given_files(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    given = {"workflowId": "wf", "runId": "r", "input": {"doc": {}, "since": "2020-01-01T00:00:00.000Z"}}
    document = {"json": given, "meta": [[1, "input", "since"]], "maps": [["input", "doc"]]}
    answer = post_form(hosted, ask, "queueRun", document, NOTES)
    assert answer.json["json"]["run"]["input"] == {"doc": FILE, "since": "2020-01-01T00:00:00.000Z"}


def test_a_file_is_refused_where_the_contract_wants_something_else(hosted: Hosted, ask: Ask) -> None:
    document = {"json": {"workflowId": {}}, "maps": [["workflowId"]]}
    answer = post_form(hosted, ask, "getWorkflow", document, NOTES)
    assert answer.json["json"]["data"] == {"issues": [{"message": "must be string", "path": ["workflowId"]}]}
    answer = post_form(hosted, ask, "getWorkflow", {"json": {}, "maps": [[]]}, NOTES)
    assert answer.json["json"]["data"] == {"issues": [{"message": "must be object"}]}


def test_the_published_families_read_forms_by_the_names_of_their_fields(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    headers, body = encoded({"runId": "r", "input[doc]": NOTES, "input[tags][]": "a"})
    bearer = hosted.bearer("workflows:*")
    target = "/api/workflows/coordination/workflows/wf/run"
    answer = ask(hosted.app, "POST", target, headers={**bearer, **headers}, body=body)
    assert answer.json["run"]["input"] == {"doc": FILE, "tags": ["a"]}


@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "text/plain", "application/octet-stream"])
def test_a_body_of_another_kind_holds_no_input(hosted: Hosted, ask: Ask, kind: str) -> None:
    headers = {**hosted.bearer(), "content-type": kind}
    answer = ask(hosted.app, "POST", "/rpc/coordination/getWorkflow", headers=headers, body=b'{"json":{}}')
    assert (answer.status, answer.json["json"]["message"]) == (400, "Input validation failed")


@pytest.mark.parametrize("family", ["/rpc/coordination/queueRun", "/api/orpc/coordination/workflows"])
def test_a_form_that_is_not_whole_is_malformed(hosted: Hosted, ask: Ask, family: str) -> None:
    bearer = hosted.bearer() if family.startswith("/rpc") else hosted.bearer("orpc:*")
    headers = {**bearer, "content-type": "multipart/form-data; boundary=b"}
    answer = ask(hosted.app, "POST", family, headers=headers, body=b"--b\r\nContent-Disposition: form-data; name=")
    error = answer.json.get("json", answer.json)
    assert (answer.status, error["code"]) == (400, "BAD_REQUEST")
    assert error["message"].startswith("Malformed request.")


HOSTILE_PATHS = [
    ["__proto__", "polluted"],
    ["constructor", "prototype", "polluted"],
    ["__class__"],
    ["__dict__", "x"],
    ["missing"],
    ["workflowId", "length"],
    ["workflowId", 0],
]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=lambda path: "/".join(map(str, path)))
def test_cve_2026_28794_a_path_reaches_only_what_the_document_holds(
    hosted: Hosted, ask: Ask, path: list[str | int]
) -> None:
    """The original walked such paths through the prototype of every object and polluted them all."""
    bearer = hosted.bearer()
    tagged = {"json": {"workflowId": "wf"}, "meta": [[1, *path]]}
    answers = [
        ask(hosted.app, "POST", "/rpc/coordination/getWorkflow", headers=bearer, body=json.dumps(tagged).encode()),
        ask(hosted.app, "GET", f"/rpc/coordination/getWorkflow?data={json.dumps(tagged)}", headers=bearer),
        post_form(hosted, ask, "getWorkflow", {"json": {"workflowId": "wf"}, "maps": [path]}, NOTES),
    ]
    for answer in answers:
        assert (answer.status, answer.json["json"]["code"]) == (400, "BAD_REQUEST")
        assert answer.json["json"]["message"].startswith("Malformed request.")
    batch = json.dumps([{"url": "http://x/rpc/coordination/getWorkflow", "body": tagged}]).encode()
    headers = {**bearer, "x-orpc-batch": "buffered"}
    (item,) = ask(hosted.app, "POST", "/rpc/coordination/getWorkflow/__batch__", headers=headers, body=batch).json
    assert item["status"] == 400
    clean = ask(hosted.app, "GET", "/api/orpc/state/runtime", headers=hosted.bearer("orpc:*"))
    assert "polluted" not in clean.text
