"""The routes of one instance, and what hostile requests get from them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from rawr.errors import CorruptFileError, StorageError
from rawr.host.app import mounts

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted

MIB = 1024 * 1024
DESK: dict[str, Any] = {
    "deskId": "d",
    "kind": "desk:analysis",
    "name": "n",
    "responsibility": "r",
    "domain": "o",
    "inputSchema": {},
    "outputSchema": {},
    "memoryScope": {"persist": False},
}


def workflow(workflow_id: str, **changes: Any) -> dict[str, Any]:
    base = {"workflowId": workflow_id, "version": 1, "name": "n", "entryDeskId": "d", "desks": [DESK], "handoffs": []}
    return {**base, **changes}


def rpc(hosted: Hosted, ask: Ask, procedure: str, given: object) -> Answer:
    body = json.dumps({"json": given}).encode()
    return ask(hosted.app, "POST", f"/rpc/{procedure}", headers=hosted.bearer(), body=body)


def api(hosted: Hosted, ask: Ask, method: str, path: str, given: object = None, **headers: str) -> Answer:
    body = b"" if given is None else json.dumps(given).encode()
    bearer = hosted.bearer("orpc:*", "workflows:*")
    return ask(hosted.app, method, path, headers={**bearer, **headers}, body=body)


def save(hosted: Hosted, ask: Ask, *workflow_ids: str) -> None:
    for workflow_id in workflow_ids:
        assert rpc(hosted, ask, "coordination/saveWorkflow", {"workflow": workflow(workflow_id)}).status == 200


def test_the_families_are_mounted_in_the_locked_order(hosted: Hosted) -> None:
    names = [mount.name for mount in mounts(hosted.manifest(), hosted.settings, hosted.parts())]
    assert names == ["ingress", "workflows", "rpc", "orpc", "web-plugin", "health", "ready", "console"]


@pytest.mark.parametrize(
    "target",
    [
        "/rpc/workflows",
        "/rpc/workflows/coordination/listWorkflows",
        "/rpc/coordination/workflows",
        "/rpc/hq/x",
        "/rpc//",
    ],
)
def test_rpc_has_procedures_and_nothing_else(hosted: Hosted, ask: Ask, target: str) -> None:
    answer = ask(hosted.app, "POST", target, headers=hosted.bearer(), body=b'{"json":{}}')
    assert (answer.status, answer.text) == (404, "not found")


@pytest.mark.parametrize(
    "path", ["/api/workflows/state/runtime", "/api/workflows/nope/x", "/api/workflows/coordination", "/api/workflows/"]
)
def test_a_workflow_boundary_serves_its_capability_only(hosted: Hosted, ask: Ask, path: str) -> None:
    answer = api(hosted, ask, "GET", path)
    assert (answer.status, answer.text) == (404, "not found")


def test_health_names_the_instance_and_ready_says_what_is_missing(hosted: Hosted, ask: Ask) -> None:
    assert ask(hosted.app, "GET", "/health").json == {"ok": True, "instanceId": "inst-test"}
    assert ask(hosted.app, "GET", "/ready").status == 200
    hosted.missing = "the store is closed"
    answer = ask(hosted.app, "GET", "/ready")
    assert (answer.status, answer.json["ok"], answer.json["reason"]) == (503, False, "the store is closed")
    assert ask(hosted.app, "POST", "/health").status == 404
    assert ask(hosted.app, "POST", "/ready").status == 404


def endless(size: int) -> Iterator[bytes]:
    chunk = b"a" * 65536
    for _ in range(size // len(chunk)):
        yield chunk


def test_a_body_over_the_limit_is_cut_off_while_it_arrives(hosted: Hosted, ask: Ask) -> None:
    answer = ask(
        hosted.app, "POST", "/rpc/coordination/listWorkflows", headers=hosted.bearer(), body=endless(100 * MIB)
    )
    assert answer.status == 413
    assert answer.json["json"]["code"] == "PAYLOAD_TOO_LARGE"
    assert list(answer.json["json"]) == ["defined", "code", "status", "message"]
    assert answer.headers["connection"] == "close"
    assert answer.chunks_taken <= hosted.settings.limits.body_bytes // 65536 + 1


def test_a_body_that_announces_too_much_is_not_read_at_all(hosted: Hosted, ask: Ask) -> None:
    headers = {**hosted.bearer("orpc:*"), "content-length": str(100 * MIB)}
    answer = ask(hosted.app, "POST", "/api/orpc/coordination/workflows", headers=headers, body=endless(MIB))
    assert (answer.status, answer.json["code"], answer.chunks_taken) == (413, "PAYLOAD_TOO_LARGE", 0)


@pytest.mark.parametrize(
    "path", ["/rpc/coordination/listWorkflows", "/api/orpc/coordination/workflows", "/api/inngest"]
)
def test_the_body_of_a_caller_who_is_not_let_in_is_not_read(hosted: Hosted, ask: Ask, path: str) -> None:
    assert ask(hosted.app, "POST", path, body=endless(MIB)).chunks_taken == 0


@pytest.mark.parametrize("mib", [1, 8])
def test_large_bodies_within_the_limit_are_answered_as_recorded(hosted: Hosted, ask: Ask, mib: int) -> None:
    answer = rpc(hosted, ask, "coordination/listWorkflows", {"x": "a" * (mib * MIB)})
    assert answer.json["json"]["data"] == {"issues": [{"message": "must not have additional properties"}]}


HOSTILE_BODIES = {
    "truncated": b'{"json":',
    "not utf-8": b'{"json":{"workflowId":"\xff\xfe"}}',
    "utf-16": '{"json":{}}'.encode("utf-16"),
    "lone surrogate": b'{"json":{"workflowId":"\\ud800"}}',
    "nan": b'{"json":{"workflowId":NaN}}',
    "infinite number": b'{"json":{"workflowId":1e400}}',
    "trailing": b'{"json":{}}{}',
    "comment": b'{"json":{}/**/}',
    "deep arrays": b'{"json":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"json":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"}",
    "just too deep": b'{"json":' + b"[" * 65 + b"]" * 65 + b"}",
    "nul": b"\x00",
}


@pytest.mark.parametrize("name", sorted(HOSTILE_BODIES))
def test_a_body_that_is_not_json_is_malformed_in_every_family(hosted: Hosted, ask: Ask, name: str) -> None:
    raw = HOSTILE_BODIES[name]
    answer = ask(hosted.app, "POST", "/rpc/coordination/queueRun", headers=hosted.bearer(), body=raw)
    assert (answer.status, answer.json["json"]["code"]) == (400, "BAD_REQUEST")
    assert answer.json["json"]["message"].startswith("Malformed request.")
    for family in ("orpc", "workflows"):
        bearer = hosted.bearer("orpc:*", "workflows:*")
        answer = ask(hosted.app, "POST", f"/api/{family}/coordination/workflows", headers=bearer, body=raw)
        assert (answer.status, answer.json["code"]) == (400, "BAD_REQUEST")
        assert answer.json["message"].startswith("Malformed request.")


def test_hostile_meta_changes_nothing_beyond_its_own_request(hosted: Hosted, ask: Ask) -> None:
    raw = b'{"json":{},"meta":[[1,"__proto__","polluted"]]}'
    answer = ask(hosted.app, "POST", "/rpc/coordination/listWorkflows", headers=hosted.bearer(), body=raw)
    assert answer.status == 400
    assert "polluted" not in api(hosted, ask, "GET", "/api/orpc/state/runtime").text


def test_a_value_that_json_cannot_say_is_refused_where_json_is_wanted(hosted: Hosted, ask: Ask) -> None:
    raw = b'{"json":{"workflowId":"5"},"meta":[[0,"workflowId"]]}'
    answer = ask(hosted.app, "POST", "/rpc/coordination/getWorkflow", headers=hosted.bearer(), body=raw)
    assert answer.json["json"]["data"] == {"issues": [{"message": "must be string", "path": ["workflowId"]}]}


def test_rich_values_in_a_run_input_arrive_in_their_json_form(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    given = {"workflowId": "wf", "runId": "run-rich", "input": {"at": "2020-01-01T00:00:00.000Z", "ids": ["1"]}}
    meta = [[1, "input", "at"], [0, "input", "ids", 0], [6, "input", "ids"]]
    raw = json.dumps({"json": given, "meta": meta}).encode()
    answer = ask(hosted.app, "POST", "/rpc/coordination/queueRun", headers=hosted.bearer(), body=raw)
    assert answer.json["json"]["run"]["input"] == given["input"]


@pytest.mark.parametrize("given", [[1, 2], 0, "x", False, {"a": None}])
def test_a_run_input_is_passed_as_given(hosted: Hosted, ask: Ask, given: object) -> None:
    save(hosted, ask, "wf")
    answer = rpc(hosted, ask, "coordination/queueRun", {"workflowId": "wf", "runId": "r", "input": given})
    assert answer.json["json"]["run"]["input"] == given


def test_get_runs_only_procedures_that_are_get(hosted: Hosted, ask: Ask) -> None:
    target = "/rpc/coordination/queueRun?data=%7B%22json%22%3A%7B%7D%7D"
    answer = ask(hosted.app, "GET", target, headers=hosted.bearer())
    assert (answer.status, answer.json["json"]["code"]) == (405, "METHOD_NOT_SUPPORTED")


def test_the_last_data_of_a_get_counts(hosted: Hosted, ask: Ask) -> None:
    target = "/rpc/coordination/listWorkflows?data=x&data=%7B%22json%22%3A%7B%7D%7D"
    assert ask(hosted.app, "GET", target, headers=hosted.bearer()).status == 200


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_the_path_says_cannot_be_changed_by_query_or_body(hosted: Hosted, ask: Ask, method: str) -> None:
    save(hosted, ask, "wf-a", "wf-b")
    if method == "GET":
        answer = api(hosted, ask, "GET", "/api/orpc/coordination/workflows/wf-a?workflowId=wf-b")
    else:
        answer = api(hosted, ask, "POST", "/api/orpc/coordination/workflows/wf-a/run", {"workflowId": "wf-b"})
    assert answer.status == 400
    issue = {"message": "must be equal to the path parameter", "path": ["workflowId"]}
    assert answer.json["data"] == {"issues": [issue]}
    assert hosted.dispatcher.run_ids == []


def test_saying_the_same_twice_is_no_conflict(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf-a")
    assert api(hosted, ask, "GET", "/api/orpc/coordination/workflows/wf-a?workflowId=wf-a").status == 200


@pytest.mark.parametrize(
    ("segment", "read"),
    [("..%2fx", "../x"), ("%2e%2e", ".."), ("a%252fb", "a%2fb"), ("%ff", "%ff"), ("%zz%20", "%zz%20"), ("a+b", "a+b")],
)
def test_a_path_parameter_is_one_segment_decoded_once(hosted: Hosted, ask: Ask, segment: str, read: str) -> None:
    answer = api(hosted, ask, "GET", f"/api/orpc/coordination/workflows/{segment}")
    assert (answer.status, answer.json["code"], answer.json["data"]) == (
        400,
        "INVALID_WORKFLOW_ID",
        {"workflowId": read},
    )


def test_the_same_run_id_for_another_workflow_is_a_conflict_that_changes_nothing(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf-a", "wf-b")
    first = rpc(hosted, ask, "coordination/queueRun", {"workflowId": "wf-a", "runId": "run-1"})
    answer = rpc(hosted, ask, "coordination/queueRun", {"workflowId": "wf-b", "runId": "run-1"})
    assert (answer.status, answer.json["json"]["code"]) == (409, "RUN_ID_CONFLICT")
    now = rpc(hosted, ask, "coordination/getRunStatus", {"runId": "run-1"})
    assert now.json["json"]["run"] == first.json["json"]["run"]


def test_an_older_version_over_a_newer_one_is_a_conflict(hosted: Hosted, ask: Ask) -> None:
    newer = rpc(hosted, ask, "coordination/saveWorkflow", {"workflow": workflow("wf", version=2)})
    older = rpc(hosted, ask, "coordination/saveWorkflow", {"workflow": workflow("wf", version=1)})
    assert (newer.status, older.status, older.json["json"]["code"]) == (200, 409, "WORKFLOW_VERSION_CONFLICT")


def test_a_workflow_that_needs_what_is_not_there_yet_is_saved_and_not_run(hosted: Hosted, ask: Ask) -> None:
    waiting = workflow("wf", desks=[{**DESK, "kind": "desk:human-wait"}])
    assert rpc(hosted, ask, "coordination/saveWorkflow", {"workflow": waiting}).status == 200
    answer = rpc(hosted, ask, "coordination/queueRun", {"workflowId": "wf"})
    assert (answer.status, answer.json["json"]["code"]) == (400, "WORKFLOW_NOT_RUNNABLE")


def test_a_run_that_the_engine_refuses_is_answered_with_the_failed_run(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    hosted.dispatcher.refuses = True
    answer = api(hosted, ask, "POST", "/api/workflows/coordination/workflows/wf/run", {"runId": "run-x"})
    assert (answer.status, answer.json["code"]) == (500, "RUN_QUEUE_FAILED")
    assert answer.json["data"]["run"]["status"] == "failed"


def test_events_of_a_timeline_carry_their_number(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    rpc(hosted, ask, "coordination/queueRun", {"workflowId": "wf", "runId": "run-1"})
    answer = rpc(hosted, ask, "coordination/getRunTimeline", {"runId": "run-1"})
    assert [(event["seq"], event["type"]) for event in answer.json["json"]["timeline"]] == [(1, "run.started")]


def test_a_fault_of_ours_tells_the_caller_nothing(hosted: Hosted, ask: Ask) -> None:
    hosted.state.error = RuntimeError("the secret is hunter2")
    answer = rpc(hosted, ask, "state/getRuntimeState", {})
    error = {"defined": False, "code": "INTERNAL_SERVER_ERROR", "status": 500, "message": "Internal server error"}
    assert (answer.status, answer.json) == (500, {"json": error})
    assert api(hosted, ask, "GET", "/api/orpc/state/runtime").json == error


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StorageError("disk full"), 503, "STORAGE_FAILED"),
        (CorruptFileError("state.json is damaged"), 500, "FILE_CORRUPT"),
    ],
)
def test_a_fault_of_the_machine_keeps_its_code(
    hosted: Hosted, ask: Ask, error: Exception, status: int, code: str
) -> None:
    hosted.state.error = error
    answer = rpc(hosted, ask, "state/getRuntimeState", {})
    assert (answer.status, answer.json["json"]["code"], answer.json["json"]["message"]) == (status, code, str(error))
    assert answer.headers.get("retry-after") == ("1" if status == 503 else None)


def test_every_answer_carries_the_id_of_its_request(hosted: Hosted, ask: Ask) -> None:
    for number in ("a", "b"):
        headers = {**hosted.bearer(), "x-request-id": f"req-{number}"}
        answer = ask(hosted.app, "POST", "/rpc/state/getRuntimeState", headers=headers, body=b'{"json":{}}')
        assert answer.headers["x-request-id"] == f"req-{number}"
    assert [line["requestId"] for line in hosted.lines] == ["req-a", "req-b"]


class TestWebPlugins:
    def test_the_module_of_an_enabled_plugin_is_served_as_it_is_now(self, hosted: Hosted, ask: Ask) -> None:
        hosted.state.enable("@rawr/plugin-mfe-demo")
        answer = ask(hosted.app, "GET", "/rawr/plugins/web/mfe-demo")
        assert (answer.status, answer.content_type) == (200, "text/javascript; charset=utf-8")
        assert answer.headers["cache-control"] == "no-store"
        assert "mount" in answer.text
        hosted.module.write_text("changed")
        assert ask(hosted.app, "GET", "/rawr/plugins/web/mfe-demo").text == "changed"

    def test_enabling_and_disabling_need_no_restart(self, hosted: Hosted, ask: Ask) -> None:
        statuses = []
        for enabled in ((), ("mfe-demo",), ()):
            hosted.state.enable(*enabled)
            statuses.append(ask(hosted.app, "GET", "/rawr/plugins/web/mfe-demo").status)
        assert statuses == [404, 200, 404]

    @pytest.mark.parametrize(
        "name", ["gone", "unknown", "", "MFE-demo", "-a", "mfe-demo/", "mfe-demo/x", "%2e%2e", "mfe%2ddemo", "a.b"]
    )
    def test_anything_else_is_not_found(self, hosted: Hosted, ask: Ask, name: str) -> None:
        hosted.state.enable("mfe-demo", "gone", "unknown")
        answer = ask(hosted.app, "GET", f"/rawr/plugins/web/{name}")
        assert (answer.status, answer.text) == (404, "not found")

    def test_only_reading_is_possible(self, hosted: Hosted, ask: Ask) -> None:
        hosted.state.enable("mfe-demo")
        assert ask(hosted.app, "HEAD", "/rawr/plugins/web/mfe-demo").status == 200
        assert ask(hosted.app, "POST", "/rawr/plugins/web/mfe-demo").status == 404


class TestIngress:
    BODY = b'{"ctx":{},"event":{},"events":[],"steps":{}}'
    TARGET = "/api/inngest?fnId=app-fn&stepId=step"

    @pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
    def test_a_signed_call_reaches_the_functions_as_it_came(self, hosted: Hosted, ask: Ask, method: str) -> None:
        answer = ask(hosted.app, method, self.TARGET, headers=hosted.signed(self.BODY), body=self.BODY)
        assert (answer.status, answer.body, answer.headers["x-inngest-sdk"]) == (206, b"[]", "inngest-py:test")
        assert answer.headers["content-length"] == "2"
        request = hosted.ingress.requests[0]
        assert (request.method, request.query, request.body) == (
            method,
            {"fnId": "app-fn", "stepId": "step"},
            self.BODY,
        )
        assert request.url == "http://localhost:3901/api/inngest"

    def test_the_other_name_of_the_header_is_given_to_the_functions_under_the_first(
        self, hosted: Hosted, ask: Ask
    ) -> None:
        signature = hosted.signed(self.BODY)["x-inngest-signature"]
        answer = ask(hosted.app, "POST", self.TARGET, headers={"inngest-signature": signature}, body=self.BODY)
        assert answer.status == 206
        assert hosted.ingress.requests[0].headers["x-inngest-signature"] == signature

    @pytest.mark.parametrize("offset_s", [-301, 301, -3600, 10 * 365 * 86400])
    def test_old_and_future_signatures_are_refused(self, hosted: Hosted, ask: Ask, offset_s: int) -> None:
        headers = hosted.signed(self.BODY, offset_s=offset_s)
        answer = ask(hosted.app, "POST", self.TARGET, headers=headers, body=self.BODY)
        assert (answer.status, answer.text) == (403, "forbidden")
        assert hosted.ingress.requests == []

    @pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE", "PATCH"])
    def test_other_methods_are_refused_even_when_signed(self, hosted: Hosted, ask: Ask, method: str) -> None:
        assert ask(hosted.app, method, self.TARGET, headers=hosted.signed(b"")).status == 403

    def test_nothing_in_the_environment_weakens_the_check(
        self, hosted: Hosted, ask: Ask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("INNGEST_DEV", "1")
        monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", "f" * 64)
        assert ask(hosted.app, "POST", self.TARGET, body=self.BODY).status == 403
        changed = ask(hosted.app, "POST", self.TARGET, headers=hosted.signed(self.BODY), body=self.BODY + b" 1")
        assert changed.status == 403

    def test_claims_do_not_help(self, hosted: Hosted, ask: Ask) -> None:
        headers = {**hosted.bearer(), "x-rawr-caller-surface": "runtime-ingress", "x-rawr-service-auth": "verified"}
        assert ask(hosted.app, "POST", self.TARGET, headers=headers, body=self.BODY).status == 403

    def test_a_signed_body_over_the_limit_is_cut_off(self, hosted: Hosted, ask: Ask) -> None:
        answer = ask(hosted.app, "POST", self.TARGET, headers=hosted.signed(b"{}"), body=endless(100 * MIB))
        assert answer.status == 413
        assert answer.chunks_taken <= hosted.settings.limits.ingress_body_bytes // 65536 + 1
