"""Version 2 of oRPC's protocol: when it is spoken, its envelope, errors, streams and batches."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec
import pytest
from tests.host.test_families import save
from tests.host.test_orpc_codec import described, value_of, without_undefined_items
from tests.host.test_rpc_forms import NOTES, encoded
from tests.host.test_rpc_streams import happen, queue, run, watch

from rawr.coordination.model import EventType
from rawr.host.orpc_codec import MalformedEnvelopeError, decode_envelope, encode_envelope
from rawr.host.orpc_values import Kind, Tagged
from rawr.host.rpc_protocol import RpcProtocol
from rawr.wire import encode

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted, Live

VECTORS: Final[dict[str, list[dict[str, Any]]]] = json.loads(
    (Path(__file__).parent / "data" / "orpc_vectors_v2.json").read_text()
)
V2: Final = RpcProtocol.V2
ASKING: Final[dict[str, Any]] = {"x-orpc-protocol": "2"}
GET_WORKFLOW: Final = "/rpc/coordination/getWorkflow"

STRICTER: Final = {"big0x", "bigEmpty", "bigSpace", "bigTrue", "twice"}
"""JavaScript makes numbers of these; we take decimal digits, once, as version 1 does."""
OTHERWISE: Final = {"emptyItem": "x"}
"""An empty tag says nothing. oRPC takes its missing type for one that is named `undefined`."""


@pytest.mark.parametrize("vector", VECTORS["codec"], ids=lambda vector: str(vector["name"]))
def test_an_envelope_decodes_as_orpc_decodes_it(vector: dict[str, Any]) -> None:
    expected = vector["decoded"]
    if expected != {"$": "undefined"}:
        expected = without_undefined_items(expected)
    found = decode_envelope(encode(vector["wire"]))
    assert described(found.value) == expected
    assert found.protocol is (V2 if "meta" in vector["wire"] else RpcProtocol.V1)


@pytest.mark.parametrize("vector", VECTORS["codec"], ids=lambda vector: str(vector["name"]))
def test_a_value_encodes_as_orpc_encodes_it(vector: dict[str, Any]) -> None:
    if vector["value"] == {"$": "undefined"}:
        assert encode_envelope(msgspec.UNSET, V2) == b"{}"
    else:
        assert json.loads(encode_envelope(value_of(vector["value"]), V2)) == vector["wire"]


@pytest.mark.parametrize("vector", VECTORS["hostile"], ids=lambda vector: str(vector["name"]))
def test_a_hostile_envelope_is_refused_where_orpc_refuses_it(vector: dict[str, Any]) -> None:
    raw = encode(vector["wire"])
    if "error" in vector or vector["name"] in STRICTER:
        with pytest.raises(MalformedEnvelopeError):
            decode_envelope(raw, V2)
    else:
        expected = OTHERWISE.get(vector["name"], vector["decoded"])
        assert described(decode_envelope(raw, V2).value) == expected


@pytest.mark.parametrize(
    "meta",
    [
        [["bigint", "a"], [0, "b"]],
        [[0, "a"], ["bigint", "b"]],
    ],
)
def test_tags_of_both_versions_are_refused(meta: object) -> None:
    with pytest.raises(MalformedEnvelopeError):
        decode_envelope(encode({"json": {"a": "1", "b": "2"}, "meta": meta}))


def test_who_asks_for_a_version_is_read_in_that_version() -> None:
    by_name = encode({"json": "5", "meta": [["bigint"]]})
    by_number = encode({"json": "5", "meta": [[0]]})
    assert decode_envelope(by_name, RpcProtocol.V1).value == "5"  # a type that version 1 does not know
    assert decode_envelope(by_number, RpcProtocol.V1).value == Tagged(Kind.BIGINT, "5")
    with pytest.raises(MalformedEnvelopeError):
        decode_envelope(by_number, V2)


def call(hosted: Hosted, ask: Ask, given: object, *, target: str = GET_WORKFLOW, **headers: str) -> Answer:
    sent = {**hosted.bearer(), "content-type": "application/json", **headers}
    return ask(hosted.app, "POST", target, headers=sent, body=json.dumps(given).encode())


ERROR_V1: Final = ["defined", "code", "status", "message", "data"]
ERROR_V2: Final = ["defined", "inferable", "code", "message", "data"]


@pytest.mark.parametrize(
    ("headers", "meta", "keys"),
    [
        ({}, None, ERROR_V1),
        ({"x-orpc-protocol": "1"}, None, ERROR_V1),
        ({"x-orpc-protocol": "2"}, None, ERROR_V2),
        ({"x-orpc-protocol": " 2 "}, None, ERROR_V2),
        ({}, [["nan", "extra"]], ERROR_V2),
        ({"x-orpc-protocol": "1"}, [["nan", "extra"]], ERROR_V1),
    ],
)
def test_an_error_has_the_keys_of_the_version_that_is_spoken(
    hosted: Hosted, ask: Ask, headers: dict[str, str], meta: object, keys: list[str]
) -> None:
    given: dict[str, Any] = {"json": {"workflowId": "none"}}
    if meta is not None:
        given = {"json": {"workflowId": "none", "extra": None}, "meta": meta}
    answer = call(hosted, ask, given, **headers)
    assert answer.status == (404 if meta is None else 400)
    assert list(answer.json["json"]) == keys


@pytest.mark.parametrize(
    "headers",
    [
        {"x-orpc-protocol": "3"},
        {"x-orpc-protocol": ""},
        {"x-orpc-protocol": "2, 2"},
        {"x-orpc-protocol": "1", "orpc-batch": "buffered"},
        {"x-orpc-protocol": "2", "x-orpc-batch": "buffered"},
        {"orpc-batch": "buffered", "x-orpc-batch": "buffered"},
    ],
)
def test_a_call_that_asks_for_two_versions_or_an_unknown_one_is_refused(
    hosted: Hosted, ask: Ask, headers: dict[str, str]
) -> None:
    answer = call(hosted, ask, {"json": {"workflowId": "none"}}, **headers)
    assert (answer.status, answer.json["json"]["code"]) == (400, "BAD_REQUEST")


def test_the_key_is_asked_for_before_the_version(hosted: Hosted, ask: Ask) -> None:
    answer = ask(hosted.app, "POST", GET_WORKFLOW, headers={"x-orpc-protocol": "3"}, body=b"{")
    assert (answer.status, answer.text) == (403, "forbidden")


def test_what_is_not_there_is_an_error_that_its_reader_understands(hosted: Hosted, ask: Ask) -> None:
    answer = call(hosted, ask, {}, target="/rpc/coordination/nothing", **ASKING)
    assert (answer.status, answer.json["json"]["code"]) == (404, "NOT_FOUND")
    assert list(answer.json["json"]) == ERROR_V2[:-1]


@pytest.mark.parametrize(
    ("hint", "content_type", "status"),
    [
        ("json", "text/plain", 404),
        ("none", "application/json", 400),
        ("url-search-params", "application/json", 400),
        ("file", "application/json", 400),
        ("octet-stream", "application/json", 400),
        ("event-stream", "application/json", 400),
        ("something", "application/json", 400),
        (None, "application/json; charset=utf-8", 404),
        (None, "text/plain", 400),
        (None, "application/jsonl", 400),
    ],
)
def test_the_body_is_what_the_caller_says_it_is(
    hosted: Hosted, ask: Ask, hint: str | None, content_type: str, status: int
) -> None:
    headers = {**hosted.bearer(), **ASKING, "content-type": content_type}
    if hint is not None:
        headers["standard-server"] = hint
    body = b'{"json":{"workflowId":"none"}}'
    assert ask(hosted.app, "POST", GET_WORKFLOW, headers=headers, body=body).status == status


def test_a_run_may_be_given_files(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    document = {
        "json": {"workflowId": "wf", "runId": "r", "input": {"doc": {}, "since": "2020-01-01T00:00:00.000Z"}},
        "meta": [["date", "input", "since"]],
        "maps": [["input", "doc"]],
    }
    headers, body = encoded({"data": json.dumps(document), "0": NOTES})
    sent = {**hosted.bearer(), **ASKING, **headers}
    answer = ask(hosted.app, "POST", "/rpc/coordination/queueRun", headers=sent, body=body)
    assert answer.json["json"]["run"]["input"]["doc"]["name"] == "notes.txt"


def test_a_stream_ends_with_close_or_with_the_error_of_this_version(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    queue(hosted, ask)

    async def follow() -> None:
        answer = watch(hosted, live, **ASKING)
        await answer.until("run.started")
        await happen(hosted, EventType.RUN_STARTED, EventType.RUN_COMPLETED)
        text = await answer.ended()
        assert text.endswith("\n\nevent: close\n\n")
        assert text.count("event: message") == 3

    run(follow)


def request(message_id: str, procedure: str, given: object, **json_part: Any) -> dict[str, Any]:
    part = {"method": "POST", "url": f"/rpc/{procedure}", "headers": {}, "bodyHint": "json", "body": {"json": given}}
    return {"id": message_id, "kind": "request", "json": {**part, **json_part}}


def batch(hosted: Hosted, ask: Ask, messages: object, *, mode: str = "buffered", **headers: str) -> Answer:
    return call(hosted, ask, messages, target="/rpc/coordination/x/__batch__", **{"orpc-batch": mode}, **headers)


def frames(raw: bytes) -> list[dict[str, Any]]:
    found = []
    while raw:
        (length,) = struct.unpack(">I", raw[:4])
        found.append(json.loads(raw[4 : 4 + length]))
        raw = raw[4 + length :]
    return found


@pytest.mark.parametrize("mode", ["buffered", "streaming"])
def test_every_call_of_a_batch_is_answered_under_its_id(hosted: Hosted, ask: Ask, mode: str) -> None:
    messages = [
        request("7", "coordination/listWorkflows", {}),
        request("b", "coordination/getWorkflow", {"workflowId": "none"}),
        request("c", "coordination/nothing", {}),
        request("d", "coordination/watchRun", {"runId": "none"}),
        request("e", "coordination/listWorkflows", {}, bodyHint="none", body=None),
        request(
            "f", "coordination/getWorkflow", None, method="GET",
            url=f"/rpc/coordination/getWorkflow?data={quote(json.dumps({'json': {'workflowId': 'none'}}))}",
        ),
    ]  # fmt: skip
    answer = batch(hosted, ask, messages, mode=mode)
    assert answer.status == 207
    assert answer.content_type == ("application/json" if mode == "buffered" else "application/octet-stream")
    found = answer.json if mode == "buffered" else frames(answer.body)
    assert all((one["kind"], one["json"]["bodyHint"]) == ("response", "json") for one in found)
    answers = {one["id"]: one["json"] for one in found}
    assert {key: one["status"] for key, one in answers.items()} == {
        "7": 200, "b": 404, "c": 404, "d": 501, "e": 400, "f": 404,
    }  # fmt: skip
    assert answers["7"]["body"] == {"json": {"workflows": []}}
    assert list(answers["b"]["body"]["json"]) == ERROR_V2


def test_a_batch_by_get_holds_calls_by_get(hosted: Hosted, ask: Ask) -> None:
    data = quote(json.dumps([request("1", "coordination/queueRun", None, method="GET", bodyHint="none")]))
    headers = {**hosted.bearer(), "orpc-batch": "buffered"}
    answer = ask(hosted.app, "GET", f"/rpc/__batch__?data={data}", headers=headers)
    [only] = answer.json
    assert only["json"]["body"]["json"]["code"] == "METHOD_NOT_SUPPORTED"


def test_what_was_cancelled_before_it_was_sent_is_not_called(hosted: Hosted, ask: Ask) -> None:
    save(hosted, ask, "wf")
    messages = [
        request("1", "coordination/queueRun", {"workflowId": "wf", "runId": "r"}),
        request("2", "coordination/listWorkflows", {}),
        {"id": "1", "kind": "cancel"},
    ]
    assert [one["id"] for one in batch(hosted, ask, messages).json] == ["2"]
    assert call(hosted, ask, {"json": {"runId": "r"}}, target="/rpc/coordination/getRunStatus").status == 404


def test_nothing_that_an_item_says_makes_it_another_caller(hosted: Hosted, ask: Ask) -> None:
    messages = [
        request("1", "coordination/listWorkflows", {}, headers={"authorization": "Bearer other"}),
        request("2", "coordination/listWorkflows", {}, headers={"X-Rawr-Caller-Surface": "external"}),
        request("3", "coordination/listWorkflows", {}, headers={"x-rawr-caller-surface": ["cli", "cli"]}),
    ]
    found = {one["id"]: one["json"] for one in batch(hosted, ask, messages).json}
    assert {key: one["status"] for key, one in found.items()} == {"1": 200, "2": 403, "3": 403}
    assert found["2"]["body"]["json"]["code"] == "FORBIDDEN"
    unlet = {"authorization": "Bearer wrong"}
    assert batch(hosted, ask, messages, **unlet).status == 403


@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ({}, 400),
        ([5], 400),
        ([{"id": 1, "kind": "request"}], 400),
        ([{"id": "x" * 65, "kind": "cancel"}], 400),
        ([{"id": "1", "kind": "response", "json": {"status": 200, "headers": {}}}], 400),
        ([{"id": "1", "kind": "request"}], 400),
        ([request("1", "x", {}), request("1", "y", {})], 400),
        ([request("1", "x", {}, url="http://evil.test/rpc/x")], 400),
        ([request("1", "x", {}, url="//evil.test/rpc/x")], 400),
        ([request("1", "x", {}, url="rpc/x")], 400),
        ([request("1", "x", {}, url="http://[")], 400),
        ([request("1", "x", {}, method=5)], 400),
        ([request("1", "x", {}, headers=[])], 400),
        ([request("1", "x", {}, bodyHint="file")], 400),
        ([request(str(number), "x", {}) for number in range(11)], 413),
        ([{"id": "1", "kind": "cancel"}] * 21, 413),
    ],
)
def test_what_is_no_batch_is_refused_before_any_call(hosted: Hosted, ask: Ask, messages: object, status: int) -> None:
    assert batch(hosted, ask, messages).status == status


def test_a_batch_that_is_no_json_is_refused(hosted: Hosted, ask: Ask) -> None:
    headers = {**hosted.bearer(), "orpc-batch": "streaming"}
    assert ask(hosted.app, "POST", "/rpc/__batch__", headers=headers, body=b"{").status == 400
