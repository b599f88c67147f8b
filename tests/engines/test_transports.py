"""The two ways of an engine to an app, in this process and over loopback HTTP: they are one port, so one suite."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from tests.engine_server.app_program import App, Log, functions
from tests.engines.conftest import KEY

from rawr.clock import SystemClock
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.http_call import AnswerTooLargeError, CallBrokenError, HttpApps
from rawr.execution.ports import AppUnreachableError, EngineCall, OutgoingEvent
from rawr.host.asgi_call import asgi_call

import inngest  # isort: skip
from inngest._internal import comm_lib, server_lib  # isort: skip

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
LIMIT = 64 * 1024


@asynccontextmanager
async def in_process(app: AsgiApp) -> AsyncIterator[EngineCall]:
    async def call(method: str, query: Any, headers: Any, body: bytes) -> Any:
        return await asgi_call(app, method, query, headers, body)

    yield call


@asynccontextmanager
async def over_http(app: AsgiApp, *, limit: int = 2**31, path: str = "/api/inngest") -> AsyncIterator[EngineCall]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        apps = HttpApps(call_timeout_s=30, max_calls=8, answer_max_bytes=limit)
        try:
            yield apps.at(f"http://127.0.0.1:{listener.getsockname()[1]}{path}")
        finally:
            await apps.close()
            server.should_exit = True
            await serving


WAYS = pytest.mark.parametrize("way", [in_process, over_http])


async def mirror(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"x-method", scope["method"].encode()), (b"x-query", scope["query_string"])]
    headers += [(b"X-Path", scope["path"].encode())]
    headers += [(b"seen-" + name, value) for name, value in scope["headers"] if name.startswith(b"x-inngest")]
    await send({"type": "http.response.start", "status": 206, "headers": headers})
    for piece in (body[: len(body) // 2], body[len(body) // 2 :]):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@WAYS
def test_a_call_arrives_as_it_was_made_and_its_answer_too(way: Any) -> None:
    async def scenario() -> None:
        async with way(mirror) as call:
            body = bytes(range(256)) * 4096
            answer = await call("POST", {"fnId": "a b&c", "stepId": "ü"}, {"X-Inngest-Signature": "t=1&s=2"}, body)
            assert (answer.status, answer.body) == (206, body)
            assert answer.headers["x-method"] == "POST"
            assert answer.headers["x-query"] == "fnId=a+b%26c&stepId=%C3%BC"
            assert answer.headers["x-path"] == "/api/inngest"
            assert answer.headers["seen-x-inngest-signature"] == "t=1&s=2"
            empty = await call("PUT", {}, {}, b"")
            assert (empty.headers["x-method"], empty.body) == ("PUT", b"")

    asyncio.run(scenario())


@WAYS
def test_calls_do_not_wait_for_each_other(way: Any) -> None:
    async def scenario() -> None:
        together = asyncio.Barrier(6)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await together.wait()
            await mirror(scope, receive, send)

        async with way(app) as call, asyncio.timeout(30):
            answers = await asyncio.gather(*[call("POST", {}, {}, str(number).encode()) for number in range(6)])
        assert sorted(answer.body for answer in answers) == [str(number).encode() for number in range(6)]

    asyncio.run(scenario())


@WAYS
def test_an_engine_runs_the_same_functions_by_both(way: Any, tmp_path: Path) -> None:
    async def scenario() -> dict[str, Any]:
        client = inngest.Inngest(app_id="shop", is_production=True, signing_key=KEY, api_base_url="https://x.invalid")
        handler = comm_lib.CommHandler(
            client=client,
            enable_unauthed_sync=False,
            framework=server_lib.Framework.FAST_API,
            functions=list(functions(client, {}, Log(tmp_path / "steps"))),
            streaming=None,
        )
        async with way(App(handler)) as call:
            engine = EmbeddedEngine(
                database=tmp_path / "engine.sqlite",
                run_dir=tmp_path,
                call=call,
                signing_key=KEY,
                clock=SystemClock(),
                backoff=lambda _attempt: 0,
            )
            await engine.start()
            for name in ("chain", "asks", "fan", "flaky", "doomed"):
                await engine.send([OutgoingEvent(name=f"shop/{name}", data={"n": 1})])
            for _ in range(6000):
                if await engine.pending_count() == 0:
                    break
                await asyncio.sleep(0.01)
            runs = await engine.runs(100)
            await engine.stop(5)
        return {run.fn_id: run.output if run.status is EngineRunStatus.COMPLETED else run.status for run in runs}

    assert asyncio.run(scenario()) == {
        "shop-chain": {"total": 15, "version": 1, "last": "done"},
        "shop-asks": {"helped": "asks"},
        "shop-helper": {"helped": "asks"},
        "shop-fan": 6,
        "shop-flaky": 2,
        "shop-doomed": EngineRunStatus.FAILED,
        "shop-doomed-failure": None,
    }


def test_over_http_an_answer_has_a_limit_whatever_it_announces() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(10_000):
            await send({"type": "http.response.body", "body": b" " * 4096, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def scenario() -> None:
        async with over_http(endless, limit=LIMIT) as call:
            with pytest.raises(AnswerTooLargeError):
                await call("POST", {}, {}, b"{}")

    asyncio.run(scenario())


def test_over_http_nobody_there_is_told_apart_from_a_call_that_broke() -> None:
    async def scenario() -> None:
        async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.close()

        server = await asyncio.start_server(hangs_up, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/?token=secret"
        apps = HttpApps(call_timeout_s=30, max_calls=8)
        with pytest.raises(CallBrokenError) as broke:
            await apps.at(url)("POST", {}, {}, b"{}")
        server.close()
        await server.wait_closed()
        with pytest.raises(AppUnreachableError) as away:
            await apps.at(url)("POST", {}, {}, b"{}")
        await apps.close()
        assert "secret" not in broke.value.message + away.value.message

    asyncio.run(scenario())


def test_the_query_of_an_address_is_kept() -> None:
    async def scenario() -> None:
        async with over_http(mirror, path="/x?token=a") as call:
            answer = await call("POST", {"fnId": "f"}, {}, b"")
        assert answer.headers["x-query"] == "token=a&fnId=f"

    asyncio.run(scenario())
