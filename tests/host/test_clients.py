"""The typed clients by the contract table: each operation over a socket, and in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from tests.host.server_process import Server

from rawr.client.aio import AsyncHqClient
from rawr.client.answers import RemoteError, ServerAnswerError, ServerNotRunningError, ServerTimeoutError
from rawr.coordination.model import RunStatus
from rawr.procedures import operations
from rawr.procedures.contract import Operation
from rawr.procedures.coordination_wire import QueueRunInput, RunInput, WatchRunInput, WorkflowInput
from rawr.procedures.operations import OPERATIONS
from rawr.security.credentials import SecretsFolder

if TYPE_CHECKING:
    from tests.host.conftest import Hosted

KEY = "k" * 64


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


IN_ORDER = (operations.SAVE_WORKFLOW, operations.QUEUE_RUN)
"""First what makes something, so that the others find it."""


def test_every_operation_of_the_table_can_be_invoked_in_process_by_its_example(hosted: Hosted) -> None:
    async def invoke_all() -> None:
        async with AsyncHqClient.in_process(hosted.app, hosted.credentials.cli_key) as client:
            every: tuple[Operation[Any, Any], ...] = (*IN_ORDER, *OPERATIONS)
            for operation in every:
                answer = await client.invoke(operation, operation.example.given)
                assert type(answer) is operation.output_type

    run(invoke_all)
    assert {line["caller"] for line in hosted.lines} == {"cli"}


def test_in_process_is_no_way_around_the_gate(hosted: Hosted) -> None:
    async def knock() -> None:
        async with AsyncHqClient.in_process(hosted.app, "wrong") as client:
            with pytest.raises(RemoteError) as raised:
                await client.invoke(operations.GET_RUN_STATUS, RunInput(run_id="r"))
        assert (raised.value.code, raised.value.status) == ("FORBIDDEN", 403)

    run(knock)


def test_an_error_keeps_its_code_and_data_in_process(hosted: Hosted) -> None:
    async def miss() -> None:
        async with AsyncHqClient.in_process(hosted.app, hosted.credentials.cli_key) as client:
            with pytest.raises(RemoteError) as raised:
                await client.invoke(operations.GET_WORKFLOW, WorkflowInput(workflow_id="none"))
            assert (raised.value.code, raised.value.data) == ("WORKFLOW_NOT_FOUND", {"workflowId": "none"})
            with pytest.raises(RemoteError) as raised:
                await anext(client.watch(operations.WATCH_RUN, WatchRunInput(run_id="none")))
            assert (raised.value.code, raised.value.status) == ("RUN_NOT_FOUND", 404)

    run(miss)


def test_both_clients_run_and_follow_a_run_on_a_real_server(server: Server) -> None:
    key = SecretsFolder(server.root / ".rawr" / "secrets").cli_key
    sync = server.client()
    queued = sync.invoke(operations.QUEUE_RUN, QueueRunInput(workflow_id="doubling", run_id="r", input={"number": 21}))
    assert queued.run.run_id == "r"
    events = list(sync.watch(operations.WATCH_RUN, WatchRunInput(run_id="r")))
    assert [event.event_id for event in events] == ["1", "2", "3", "4", "5"]
    assert events[-1].value.status is RunStatus.COMPLETED
    assert sync.invoke(operations.GET_RUN_STATUS, RunInput(run_id="r")).run.output == {"number": 42}
    rest = list(sync.watch(operations.WATCH_RUN, WatchRunInput(run_id="r"), last_event_id="3"))
    assert [event.value.seq for event in rest] == [4, 5]
    with pytest.raises(RemoteError) as raised:
        list(sync.watch(operations.WATCH_RUN, WatchRunInput(run_id="none")))
    assert raised.value.code == "RUN_NOT_FOUND"

    async def again() -> None:
        async with AsyncHqClient(server.ready().url, key()) as client:
            follow = client.watch(operations.WATCH_RUN, WatchRunInput(run_id="r"), last_event_id="2")
            assert [event.value.seq async for event in follow] == [3, 4, 5]
            status = await client.invoke(operations.GET_RUN_STATUS, RunInput(run_id="r"))
            assert status.run.output == {"number": 42}

    run(again)


def test_a_stream_whose_server_is_killed_says_that_it_broke_off(server: Server) -> None:
    sync = server.client()
    sync.invoke(operations.QUEUE_RUN, QueueRunInput(workflow_id="waiting", run_id="r"))
    events = sync.watch(operations.WATCH_RUN, WatchRunInput(run_id="r"))
    seen = next(events)
    server.process.kill()
    with pytest.raises(ServerNotRunningError):
        list(events)
    assert seen.event_id == "1"


class Answers:
    """A transport that gives the next of its answers to each call."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._left = list(answers)
        self.pauses: list[float] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = self._left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    async def status_of(self, run_id: str) -> RunStatus:
        async with AsyncHqClient("http://x", KEY, transport=self.transport, pause=self.pause) as client:
            return (await client.invoke(operations.GET_RUN_STATUS, RunInput(run_id=run_id))).run.status


BUSY = {"json": {"defined": False, "code": "DATABASE_BUSY", "status": 503, "message": "busy"}}
RUN = {
    "runId": "r",
    "workflowId": "w",
    "workflowVersion": 1,
    "status": "queued",
    "startedAt": "2026-11-22T11:37:43.454Z",
    "traceLinks": [],
}


def busy(retry_after: str) -> httpx.Response:
    return httpx.Response(503, json=BUSY, headers={"Retry-After": retry_after})


def test_a_server_that_says_when_is_asked_again() -> None:
    async def patient() -> None:
        answers = Answers(busy("1"), busy("2"), httpx.Response(200, json={"json": {"run": RUN}}))
        assert await answers.status_of("r") is RunStatus.QUEUED
        assert answers.pauses == [1.0, 2.0]
        tired = Answers(busy("1"), busy("1"), busy("1"))
        with pytest.raises(RemoteError) as raised:
            await tired.status_of("r")
        assert (raised.value.code, tired.pauses) == ("DATABASE_BUSY", [1.0, 1.0])

    run(patient)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.ConnectError("refused"), ServerNotRunningError),
        (httpx.RemoteProtocolError("closed"), ServerNotRunningError),
        (httpx.ReadTimeout("slow"), ServerTimeoutError),
        (httpx.DecodingError("gzip"), ServerAnswerError),
        (httpx.Response(200, text="<html>"), RemoteError),
        (httpx.Response(200, json={"json": {"run": 5}}), ServerAnswerError),
        (httpx.Response(302, headers={"location": "http://evil.example/"}), RemoteError),
    ],
    ids=str,
)
def test_what_goes_wrong_on_the_way_is_one_of_our_faults(
    answer: httpx.Response | Exception, error: type[Exception]
) -> None:
    async def call() -> None:
        with pytest.raises(error):
            await Answers(answer).status_of("r")

    run(call)
