"""Several calls in one request: their order, their limits, and that none is another caller than the request."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from tests.host.test_families import save

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted, Live

TARGET = "/rpc/coordination/listWorkflows/__batch__"
LIST = {"url": "http://127.0.0.1:3000/rpc/coordination/listWorkflows", "body": {"json": {}}}
STATE = {"url": "http://127.0.0.1:3000/rpc/state/getRuntimeState", "body": {"json": {}}}


def call(procedure: str, given: object, **rest: Any) -> dict[str, Any]:
    return {"url": f"http://127.0.0.1:3000/rpc/{procedure}", "body": {"json": given}, **rest}


def batch(hosted: Hosted, ask: Ask, items: object, *, mode: str = "buffered", **headers: str) -> Answer:
    given = {**hosted.bearer(), "x-orpc-batch": mode, **headers}
    return ask(hosted.app, "POST", TARGET, headers=given, body=json.dumps(items).encode())


def by_index(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(items, key=lambda item: int(item["index"]))


def messages(text: str) -> list[dict[str, Any]]:
    frames = [frame for frame in text.split("\n\n") if frame not in ("", ": ")]
    assert all(frame.startswith("event: message\ndata: ") for frame in frames)
    return [json.loads(frame.partition("data: ")[2]) for frame in frames]


@pytest.mark.parametrize("mode", ["buffered", "streaming", "anything"])
def test_every_call_is_answered_as_if_it_came_alone(hosted: Hosted, ask: Ask, mode: str) -> None:
    items = [LIST, call("coordination/getWorkflow", {"workflowId": "no"}), call("coordination/getWorkflow", {}), STATE]
    answer = batch(hosted, ask, items, mode=mode)
    assert answer.status == 207
    if mode == "buffered":
        assert answer.content_type == "application/json"
        found = answer.json
    else:
        assert answer.content_type == "text/event-stream"
        assert answer.text.startswith(": \n\n")
        found = messages(answer.text)
    listed, missing, invalid, state = by_index(found)
    assert listed == {"index": 0, "status": 200, "body": {"json": {"workflows": []}}}
    assert (missing["status"], missing["body"]["json"]["code"]) == (404, "WORKFLOW_NOT_FOUND")
    assert (invalid["status"], invalid["body"]["json"]["message"]) == (400, "Input validation failed")
    assert state["body"]["json"]["state"]["plugins"]["enabled"] == []


def test_a_batch_by_get_holds_calls_by_get(hosted: Hosted, ask: Ask) -> None:
    data = quote(json.dumps({"json": {"workflowId": "no"}}))
    items = [
        {"url": f"http://h/rpc/coordination/getWorkflow?data={data}"},
        {"url": "http://h/rpc/coordination/queueRun"},
    ]
    headers = {**hosted.bearer(), "x-orpc-batch": "buffered"}
    answer = ask(hosted.app, "GET", f"{TARGET}?batch={quote(json.dumps(items))}", headers=headers)
    missing, refused = by_index(answer.json)
    assert (missing["status"], missing["body"]["json"]["code"]) == (404, "WORKFLOW_NOT_FOUND")
    assert (refused["status"], refused["body"]["json"]["code"]) == (405, "METHOD_NOT_SUPPORTED")


def test_an_item_says_its_own_method(hosted: Hosted, ask: Ask) -> None:
    items = [{**call("coordination/queueRun", {}), "method": "GET"}, {**LIST, "method": "PUT"}]
    first, second = by_index(batch(hosted, ask, items).json)
    assert (first["status"], second["status"]) == (405, 200)


def test_a_slow_call_does_not_keep_back_the_others(hosted: Hosted, live: type[Live]) -> None:
    async def slow_state() -> None:
        release = asyncio.Event()
        get = hosted.state.get

        async def wait_and_get() -> Any:
            await release.wait()
            return await get()

        hosted.state.get = wait_and_get  # type: ignore[method-assign]
        headers = {**hosted.bearer(), "x-orpc-batch": "streaming"}
        answer = live(hosted.app, "POST", TARGET, headers=headers, body=json.dumps([STATE, LIST]).encode())
        await answer.until('"index":1')
        assert '"index":0' not in answer.received.decode()
        release.set()
        assert [item["index"] for item in messages(await answer.ended())] == [1, 0]

    asyncio.run(slow_state())


def test_what_has_begun_is_finished_though_the_caller_hangs_up(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    save(hosted, ask, "wf")

    async def hang_up() -> None:
        begun, release = asyncio.Event(), asyncio.Event()
        dispatch = hosted.dispatcher.dispatch

        async def slow(run: Any) -> Any:
            begun.set()
            await release.wait()
            return await dispatch(run)

        hosted.dispatcher.dispatch = slow  # type: ignore[method-assign]
        headers = {**hosted.bearer(), "x-orpc-batch": "streaming"}
        items = [call("coordination/queueRun", {"workflowId": "wf", "runId": "r"})]
        answer = live(hosted.app, "POST", TARGET, headers=headers, body=json.dumps(items).encode())
        await begun.wait()
        leaving = asyncio.create_task(answer.hang_up())
        for _ in range(50):  # the host notices it
            await asyncio.sleep(0)
        release.set()
        await leaving

    asyncio.run(hang_up())
    assert hosted.dispatcher.run_ids == ["r"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/rpc/coordination/nope", 404, "No procedure matched"),
        ("/rpc/workflows/coordination/listWorkflows", 404, "No procedure matched"),
        ("/api/orpc/state/runtime", 404, "No procedure matched"),
        ("/api/inngest", 404, "No procedure matched"),
        ("/console/", 404, "No procedure matched"),
        ("/rpc/coordination/listWorkflows/../../state/getRuntimeState", 404, "No procedure matched"),
        (TARGET, 404, "No procedure matched"),
    ],
)
def test_an_item_reaches_procedures_of_this_family_only(
    hosted: Hosted, ask: Ask, path: str, status: int, body: str
) -> None:
    (item,) = batch(hosted, ask, [{"url": f"http://h{path}", "body": {"json": {}}}]).json
    assert item == {"index": 0, "status": status, "body": body}


def test_a_stream_cannot_be_part_of_a_batch(hosted: Hosted, ask: Ask) -> None:
    (item,) = batch(hosted, ask, [call("coordination/watchRun", {"runId": "r"})]).json
    assert item["status"] == 500
    assert item["body"].startswith("Batch responses do not support")
    assert len(hosted.streams) == 0


ITEM_HEADERS: list[dict[str, Any]] = [
    {"authorization": "Bearer wrong"},
    {"Authorization": ""},
    {"cookie": "rawr_session_3000=x", "host": "evil.example"},
    {"x-orpc-batch": "buffered"},
]


@pytest.mark.parametrize("headers", ITEM_HEADERS, ids=str)
def test_the_headers_of_an_item_do_not_change_who_calls(hosted: Hosted, ask: Ask, headers: dict[str, str]) -> None:
    (item,) = batch(hosted, ask, [{**LIST, "headers": headers}]).json
    assert item["status"] == 200
    assert hosted.lines[-1]["caller"] == "cli"


def test_the_headers_of_an_item_cannot_let_a_batch_in(hosted: Hosted, ask: Ask) -> None:
    inner = {**hosted.bearer(), "x-rawr-caller-surface": "first-party", "x-rawr-session-auth": "verified"}
    body = json.dumps([{**LIST, "headers": inner}]).encode()
    for outer in ({}, {"authorization": "Bearer wrong"}, {**hosted.bearer(), "x-rawr-caller-surface": "external"}):
        answer = ask(hosted.app, "POST", TARGET, headers={**outer, "x-orpc-batch": "buffered"}, body=body)
        assert (answer.status, answer.text) == (403, "forbidden")


@pytest.mark.parametrize("label", ["external", "runtime-ingress", "nonsense", "", 5])
def test_an_item_may_narrow_itself(hosted: Hosted, ask: Ask, label: object) -> None:
    narrowed = {**LIST, "headers": {"X-Rawr-Caller-Surface": label}}
    first, second = by_index(batch(hosted, ask, [narrowed, LIST]).json)
    assert (first["status"], first["body"]) == (403, "forbidden")
    assert second["status"] == 200


@pytest.mark.parametrize(
    "items",
    [
        None,
        {},
        "x",
        [1],
        [{}],
        [{"url": "/rpc/coordination/listWorkflows"}],
        [{"url": "rpc/x"}],
        [{"url": "http://[", "body": {}}],
        [{"url": 5}],
        [{**LIST, "headers": []}],
        [{**LIST, "method": 5}],
    ],
    ids=str,
)
def test_what_is_no_batch_is_refused_as_a_whole(hosted: Hosted, ask: Ask, items: object) -> None:
    answer = batch(hosted, ask, items)
    assert answer.status == 400
    assert answer.json.startswith("Invalid batch request")


def test_a_body_that_is_no_json_is_no_batch(hosted: Hosted, ask: Ask) -> None:
    headers = {**hosted.bearer(), "x-orpc-batch": "buffered"}
    assert ask(hosted.app, "POST", TARGET, headers=headers, body=b"[").status == 400
    assert ask(hosted.app, "GET", TARGET, headers=headers).status == 400


def test_a_batch_has_at_most_ten_calls(hosted: Hosted, ask: Ask) -> None:
    assert len(batch(hosted, ask, [LIST] * 10).json) == 10
    answer = batch(hosted, ask, [LIST] * 11)
    assert (answer.status, answer.json) == (413, "Batch request size exceeds the maximum allowed size")


def test_an_empty_batch_has_no_answers(hosted: Hosted, ask: Ask) -> None:
    assert batch(hosted, ask, []).json == []


def test_an_item_without_a_body_has_no_input(hosted: Hosted, ask: Ask) -> None:
    without, null = by_index(batch(hosted, ask, [{"url": LIST["url"]}, {**LIST, "body": None}]).json)
    assert without["body"]["json"]["message"] == "Input validation failed"
    assert null["body"]["json"]["message"].startswith("Malformed request.")
