"""Following a run over `/rpc`: what stands on the wire, and how a stream ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from tests.host.test_families import rpc, save

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType
from rawr.ids import RunId

if TYPE_CHECKING:
    from tests.host.conftest import Ask, Hosted, Live

TARGET = "/rpc/coordination/watchRun"


def queue(hosted: Hosted, ask: Ask, run_id: str = "r") -> None:
    save(hosted, ask, "wf")
    assert rpc(hosted, ask, "coordination/queueRun", {"workflowId": "wf", "runId": run_id}).status == 200


async def happen(hosted: Hosted, *types: EventType, run_id: str = "r") -> None:
    for number, kind in enumerate(types):
        fact = Fact(key=f"{kind.value}/{number}", type=kind, at="2026-11-22T11:37:43.454Z")
        await hosted.store.record(RunId(run_id), fact)


def watch(hosted: Hosted, live: type[Live], given: dict[str, Any] | None = None, **headers: str) -> Live:
    body = json.dumps({"json": {"runId": "r", **(given or {})}}).encode()
    return live(hosted.app, "POST", TARGET, headers={**hosted.bearer(), **headers}, body=body)


def frames(text: str) -> list[dict[str, str]]:
    """The events of a stream by field, without its comments."""
    lines = (frame.split("\n") for frame in text.split("\n\n") if frame not in ("", ": "))
    return [dict(line.split(": ", 1) for line in frame) for frame in lines]


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await scenario()

    asyncio.run(bounded())


def test_a_run_is_followed_from_its_first_event_to_its_last(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    queue(hosted, ask)

    async def follow() -> None:
        answer = watch(hosted, live)
        await answer.until("run.started")
        await happen(hosted, EventType.RUN_STARTED, EventType.RUN_COMPLETED)
        text = await answer.ended()
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert "content-length" not in answer.headers
        assert text.startswith(": \n\nevent: message\nid: 1\ndata: ")
        *events, end = frames(text)
        assert [(event["event"], event["id"]) for event in events] == [("message", str(seq)) for seq in (1, 2, 3)]
        values = [json.loads(event["data"])["json"] for event in events]
        assert [value["type"] for value in values] == ["run.started", "run.started", "run.completed"]
        assert end == {"event": "done", "data": "{}"}

    run(follow)
    assert hosted.lines[-1]["operation"] == "coordination/watchRun"
    assert len(hosted.streams) == 0


def test_a_run_that_has_ended_is_told_at_once_also_by_get(hosted: Hosted, ask: Ask) -> None:
    queue(hosted, ask)
    asyncio.run(happen(hosted, EventType.RUN_FAILED))
    data = quote(json.dumps({"json": {"runId": "r"}}))
    answer = ask(hosted.app, "GET", f"{TARGET}?data={data}", headers=hosted.bearer())
    assert [frame["event"] for frame in frames(answer.text)] == ["message", "message", "done"]


@pytest.mark.parametrize(
    ("given", "headers", "seqs"),
    [
        ({"afterSeq": 1}, {}, ["2", "3"]),
        ({}, {"last-event-id": "2"}, ["3"]),
        ({"afterSeq": 1}, {"last-event-id": "2"}, ["3"]),
        ({"afterSeq": 3}, {}, []),
        ({}, {"last-event-id": "0"}, ["1", "2", "3"]),
    ],
)
def test_whoever_lost_the_stream_goes_on_after_the_last_event(
    hosted: Hosted, ask: Ask, given: dict[str, Any], headers: dict[str, str], seqs: list[str]
) -> None:
    queue(hosted, ask)
    asyncio.run(happen(hosted, EventType.RUN_STARTED, EventType.RUN_COMPLETED))
    body = json.dumps({"json": {"runId": "r", **given}}).encode()
    answer = ask(hosted.app, "POST", TARGET, headers={**hosted.bearer(), **headers}, body=body)
    *events, end = frames(answer.text)
    assert [event["id"] for event in events] == seqs
    assert end["event"] == "done"


@pytest.mark.parametrize(
    ("given", "headers", "refusal"),
    [
        ({"runId": "nope"}, {}, (404, "RUN_NOT_FOUND")),
        ({"runId": "../x"}, {}, (400, "INVALID_RUN_ID")),
        ({"afterSeq": -1}, {}, (400, "BAD_REQUEST")),
        ({"afterSeq": 9}, {}, (404, "TIMELINE_EVENT_NOT_FOUND")),
        ({}, {"last-event-id": "9"}, (404, "TIMELINE_EVENT_NOT_FOUND")),
        ({}, {"last-event-id": "9" * 16}, (400, "BAD_REQUEST")),
        ({}, {"last-event-id": "one"}, (400, "BAD_REQUEST")),
        ({}, {"last-event-id": "²"}, (400, "BAD_REQUEST")),
    ],
)
def test_what_is_wrong_with_the_call_is_answered_before_there_is_a_stream(
    hosted: Hosted, ask: Ask, given: dict[str, Any], headers: dict[str, str], refusal: tuple[int, str]
) -> None:
    queue(hosted, ask)
    body = json.dumps({"json": {"runId": "r", **given}}).encode()
    answer = ask(hosted.app, "POST", TARGET, headers={**hosted.bearer(), **headers}, body=body)
    assert answer.content_type == "application/json"
    assert (answer.status, answer.json["json"]["code"]) == refusal
    assert len(hosted.streams) == 0


def test_a_silent_stream_says_that_it_is_alive(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    queue(hosted, ask)

    async def listen() -> None:
        answer = watch(hosted, live)
        await answer.until(": \n\n", times=4)
        await answer.hang_up()

    run(listen)


def test_a_caller_that_hangs_up_leaves_nothing_behind(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    queue(hosted, ask)

    async def leave() -> None:
        answer = watch(hosted, live)
        await answer.until("run.started")
        assert len(hosted.streams) == 1
        await answer.hang_up()
        assert len(hosted.streams) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(leave)
    assert hosted.lines[-1]["status"] == 200


def test_a_stopping_host_ends_its_streams_with_an_error_that_says_how_to_go_on(
    hosted: Hosted, ask: Ask, live: type[Live]
) -> None:
    queue(hosted, ask)

    async def stop() -> None:
        answer = watch(hosted, live)
        await answer.until("run.started")
        hosted.streams.stop()
        end = frames(await answer.ended())[-1]
        error = json.loads(end["data"])["json"]
        assert (end["event"], error["code"], error["status"]) == ("error", "SERVICE_UNAVAILABLE", 503)
        assert list(error) == ["defined", "code", "status", "message"]
        assert "last-event-id" in error["message"]
        late = watch(hosted, live)
        await late.ended()
        assert (late.status, late.headers["retry-after"]) == (503, "1")

    run(stop)


def test_there_are_only_so_many_streams(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    queue(hosted, ask)

    async def crowd() -> None:
        answers = [watch(hosted, live) for _ in range(hosted.settings.limits.streams)]
        for answer in answers:
            await answer.until("run.started")
        late = watch(hosted, live)
        assert "TOO_MANY_STREAMS" in await late.ended()
        assert (late.status, late.headers["retry-after"]) == (503, "1")
        await answers[0].hang_up()
        again = watch(hosted, live)
        await again.until("run.started")
        for answer in (*answers[1:], again):
            await answer.hang_up()

    run(crowd)


def test_a_stream_that_breaks_ends_with_an_error_and_no_detail(hosted: Hosted, ask: Ask, live: type[Live]) -> None:
    queue(hosted, ask)

    async def break_it() -> None:
        answer = watch(hosted, live)
        await answer.until("run.started")

        async def broken(*args: object, **kwargs: object) -> Any:
            raise OSError("the disk at /secret is gone")

        hosted.store.timeline = broken  # type: ignore[method-assign]
        end = frames(await answer.ended())[-1]
        error = json.loads(end["data"])["json"]
        assert (error["code"], error["message"]) == ("INTERNAL_SERVER_ERROR", "Internal server error")

    run(break_it)


def test_head_opens_and_leaves(hosted: Hosted, ask: Ask) -> None:
    queue(hosted, ask)
    body = json.dumps({"json": {"runId": "r"}}).encode()
    answer = ask(hosted.app, "HEAD", TARGET, headers=hosted.bearer(), body=body)
    assert (answer.status, answer.body) == (200, b"")
    assert len(hosted.streams) == 0


@pytest.mark.parametrize("prefix", ["/api/orpc", "/api/workflows"])
def test_streams_are_not_published(hosted: Hosted, ask: Ask, prefix: str) -> None:
    queue(hosted, ask)
    bearer = hosted.bearer("orpc:*", "workflows:*")
    assert ask(hosted.app, "GET", f"{prefix}/coordination/watchRun?runId=r", headers=bearer).status == 404
