"""The serve handler: real SDK, signed calls, a hostile environment, and no network."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from rawr.clock import SystemClock
from rawr.execution import signing
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.model import EngineRun, EngineRunStatus
from rawr.execution.ingest import make_ingress
from rawr.execution.ports import (
    DurableFunction,
    FunctionDeps,
    FunctionFailedError,
    IngressRequest,
    IngressResponse,
    OutgoingEvent,
    Steps,
)
from rawr.testing.clock import FakeClock
from rawr.testing.stores import MemoryCoordinationStore
from rawr.wire import JsonValue

import inngest  # isort: skip

KEY = "signkey-prod-" + "0a" * 32
OTHER = "signkey-prod-" + "0b" * 32
ORIGIN = "http://127.0.0.1:4111"
DEPS = FunctionDeps(
    store=MemoryCoordinationStore(), desk_handlers={}, clock=SystemClock(), instance_root=Path("/nowhere")
)


class Sent:
    """An event sink that only remembers."""

    def __init__(self) -> None:
        self.events: list[OutgoingEvent] = []

    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        self.events.extend(events)
        return [f"id-{number}" for number, _ in enumerate(events)]


def function(body: Any, *, retries: int = 3, on_failure: Any = None) -> DurableFunction:
    async def ignore(_deps: FunctionDeps, _data: Mapping[str, JsonValue], _error: str) -> None:
        return None

    return DurableFunction(
        function_id="fn", name="Fn", event_name="go", retries=retries, body=body, on_failure=on_failure or ignore
    )


async def answer_seven(_deps: FunctionDeps, _steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
    return {"seven": 7, **data}


def ask(
    method: str = "POST",
    *,
    body: Any = None,
    key: str | None = KEY,
    headers: Mapping[str, str] | None = None,
    durable: DurableFunction | None = None,
    fn_id: str = "app-fn",
) -> IngressResponse:
    raw = b"" if body is None else json.dumps(body).encode()
    signed = {} if key is None else {signing.HEADER: signing.sign(raw, key, int(time.time()))}
    ingress = make_ingress(
        [durable or function(answer_seven)],
        DEPS,
        signing_key=KEY,
        event_sink=Sent(),
        serve_origin=ORIGIN,
        app_id="app",
    )
    request = IngressRequest(
        method=method,
        url="http://evil.example/api/inngest",
        query={"fnId": fn_id, "stepId": "step"} if method == "POST" else {},
        headers={**signed, **(headers or {})},
        body=raw,
    )
    return asyncio.run(ingress.handle(request))


def call_body(**data: JsonValue) -> JsonValue:
    event = {"name": "go", "data": data, "id": "e", "ts": 1}
    ctx = {
        "attempt": 0,
        "max_attempts": 4,
        "disable_immediate_execution": False,
        "run_id": "r",
        "stack": {"stack": []},
    }
    return {"ctx": ctx, "event": event, "events": [event], "steps": {}, "use_api": False}


def test_a_signed_call_runs_the_function_and_its_answer_is_signed() -> None:
    answer = ask(body=call_body(x=2**60))
    assert (answer.status, json.loads(answer.body)) == (200, {"seven": 7, "x": 2**60})
    signing.verify_response(answer.body, answer.headers[signing.HEADER], [KEY])
    assert "x-inngest-sdk" in answer.headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("key", [None, OTHER])
@pytest.mark.parametrize("environment", [{}, {"INNGEST_DEV": "1"}, {"INNGEST_SIGNING_KEY_FALLBACK": OTHER}])
def test_nothing_in_the_environment_makes_an_unsigned_call_pass(
    monkeypatch: pytest.MonkeyPatch, method: str, key: str | None, environment: dict[str, str]
) -> None:
    for name, value in {**environment, "INNGEST_SIGNING_KEY": OTHER, "INNGEST_ENABLE_UNAUTHED_SYNC": "1"}.items():
        monkeypatch.setenv(name, value)
    headers = {"x-inngest-sync-kind": "in_band"} if method == "PUT" else {}
    answer = ask(method, body=None if method == "GET" else call_body(), key=key, headers=headers)
    assert answer.status == 401
    assert json.loads(answer.body) == {"message": "Unauthorized"}


def test_a_sync_answers_the_functions_at_our_own_origin() -> None:
    body = {"url": "http://evil.example/api/inngest"}
    answer = ask("PUT", body=body, headers={"x-inngest-sync-kind": "in_band"})
    app = json.loads(answer.body)
    assert app["app_id"] == "app"
    assert [config["id"] for config in app["functions"]] == ["app-fn", "app-fn-failure"]
    assert app["functions"][0]["steps"]["step"]["retries"] == {"attempts": 3}
    assert app["functions"][1]["triggers"] == [
        {"event": event, "expression": "event.data.function_id == 'app-fn'"}
        for event in ("inngest/function.failed", "inngest/function.cancelled")
    ]
    assert "evil" not in answer.body.decode()
    assert app["url"] == f"{ORIGIN}/api/inngest"


def test_a_path_that_a_proxy_takes_off_is_part_of_where_we_are() -> None:
    body = b'{"url":"http://evil.example/api/inngest"}'
    ingress = make_ingress(
        [function(answer_seven)],
        DEPS,
        signing_key=KEY,
        event_sink=Sent(),
        serve_origin="https://hq.example/rawr/",
        app_id="app",
    )
    request = IngressRequest(
        method="PUT",
        url="http://evil.example/api/inngest",
        query={},
        headers={"x-inngest-sync-kind": "in_band", signing.HEADER: signing.sign(body, KEY, int(time.time()))},
        body=body,
    )
    app = json.loads(asyncio.run(ingress.handle(request)).body)
    assert app["url"] == "https://hq.example/rawr/api/inngest"
    assert "evil" not in json.dumps(app)


def test_a_sync_that_would_call_out_is_refused_while_no_server_is_configured() -> None:
    answer = ask("PUT", body={})
    assert answer.status == 400
    assert json.loads(answer.body)["code"] == "SYNC_UNSUPPORTED"


def test_a_signed_get_inspects_and_another_method_is_not_allowed() -> None:
    assert json.loads(ask("GET").body)["function_count"] == 2
    assert ask("DELETE").status == 405


def test_an_unknown_function_is_an_error_and_not_a_result() -> None:
    answer = ask(body=call_body(), fn_id="app-other")
    assert answer.status == 500
    assert json.loads(answer.body)["code"] == "function_not_found"


@pytest.mark.parametrize("in_step", [True, False])
def test_a_function_that_ends_itself_as_failed_is_not_retried(in_step: bool) -> None:
    async def refuse(_attempt: int = 0) -> JsonValue:
        raise FunctionFailedError("no such workflow")

    async def body(_deps: FunctionDeps, steps: Steps, _data: Mapping[str, JsonValue]) -> JsonValue:
        return await (steps.run("a", refuse) if in_step else refuse())

    answer = ask(body=call_body(), durable=function(body))
    assert (answer.status, answer.headers["x-inngest-no-retry"]) == (500, "true")
    assert json.loads(answer.body)["message"] == "no such workflow"


@pytest.mark.parametrize("where", ["in a step", "outside of steps", "in a branch"])
def test_a_function_that_exits_has_failed_and_the_host_goes_on(where: str) -> None:
    async def leave(_attempt: int = 0) -> JsonValue:
        sys.exit("enough")

    async def body(_deps: FunctionDeps, steps: Steps, _data: Mapping[str, JsonValue]) -> JsonValue:
        async def branch() -> None:
            await leave()

        if where == "in a branch":
            await steps.race([branch])
        return await (steps.run("a", leave) if where == "in a step" else leave())

    answer = ask(body=call_body(), durable=function(body))
    assert (answer.status, answer.headers.get("x-inngest-no-retry")) != (500, "true")
    assert "it called sys.exit('enough')" in answer.body.decode()


def test_the_sdk_logs_nothing(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    async def body(_deps: FunctionDeps, _steps: Steps, _data: Mapping[str, JsonValue]) -> JsonValue:
        raise ValueError("s3cret payload")

    ask(body=call_body(), durable=function(body))
    ask(body=call_body(), key=OTHER)
    assert "s3cret" not in caplog.text + "".join(capfd.readouterr())


def test_events_that_functions_send_go_to_the_sink_with_the_middleware_hooks() -> None:
    told: list[str] = []

    class Watching(inngest.Middleware):
        async def before_send_events(self, events: list[inngest.Event]) -> None:
            told.extend(f"before {event.name}" for event in events)

        async def after_send_events(self, result: inngest.SendEventsResult) -> None:
            told.extend(f"after {event_id}" for event_id in result.ids)

    sink = Sent()
    ingress: Any = make_ingress(
        [function(answer_seven)], DEPS, signing_key=KEY, event_sink=sink, serve_origin=ORIGIN, app_id="app"
    )
    client: inngest.Inngest = ingress._client
    client.add_middleware(Watching)
    event = inngest.Event(name="other", data={"a": 1}, id="e-1")

    async def send_both_ways() -> list[str]:
        client_ids = await client.send(event)
        assert await client.send([event], skip_middleware=True) == ["id-0"]
        await ingress.handle(IngressRequest(method="GET", url=ORIGIN, query={}, headers={}, body=b""))
        assert await asyncio.to_thread(client.send_sync, event) == ["id-0"]
        return client_ids

    assert asyncio.run(send_both_ways()) == ["id-0"]
    assert told == ["before other", "after id-0"] * 2
    assert sink.events == [OutgoingEvent(name="other", data={"a": 1}, event_id="e-1")] * 3


def run_on_engine(tmp_path: Path, durable: DurableFunction) -> tuple[EngineRun, int]:
    """The run of `durable` on an embedded engine, with its whole wiring; and the number of calls."""
    clock = FakeClock()
    calls = 0

    async def whole() -> EngineRun:
        async def call(
            method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
        ) -> IngressResponse:
            nonlocal calls
            calls += method == "POST"
            request = IngressRequest(method=method, url=ORIGIN, query=query, headers=headers, body=body)
            return await ingress.handle(request)

        engine = EmbeddedEngine(
            database=tmp_path / "engine.sqlite",
            run_dir=tmp_path / "run",
            call=call,
            signing_key=KEY,
            clock=clock,
            backoff=lambda _attempt: 1000,
        )
        ingress = make_ingress(
            [durable],
            DEPS,
            signing_key=KEY,
            event_sink=engine,
            serve_origin=ORIGIN,
            app_id="app",
            run_states=engine,
        )
        await engine.prepare()
        await engine.send([OutgoingEvent(name="go", data={"x": 1})])
        while await engine.pending_count():
            await engine.run_due()
            clock.advance(1000)
        (run,) = [run for run in await engine.runs(10) if run.fn_id == "app-fn"]
        await engine.stop(0)
        return run

    return asyncio.run(whole()), calls


def test_a_run_that_is_too_large_for_a_call_gets_its_results_from_the_engine(tmp_path: Path) -> None:
    async def body(_deps: FunctionDeps, steps: Steps, _data: Mapping[str, JsonValue]) -> JsonValue:
        async def large(_attempt: int) -> JsonValue:
            return "x" * 1024 * 1024

        return sum([len(await steps.run(str(number), large)) for number in range(6)])

    run, calls = run_on_engine(tmp_path, function(body))
    assert (run.output, calls) == (6 * 1024 * 1024, 7)


def test_steps_of_a_race_run_once_each_and_see_their_attempt(tmp_path: Path) -> None:
    ran: list[str] = []

    async def body(_deps: FunctionDeps, steps: Steps, _data: Mapping[str, JsonValue]) -> JsonValue:
        done: dict[str, JsonValue] = {}

        async def branch(name: str) -> None:
            async def once_more(attempt: int) -> JsonValue:
                ran.append(f"{name}{attempt}")
                if attempt == 0:
                    raise ValueError("again")
                return attempt

            done[name] = await steps.run(name, once_more)

        await steps.race([lambda: branch("a"), lambda: branch("b")])
        return done

    run, _ = run_on_engine(tmp_path, function(body))
    assert run.output == {"a": 1, "b": 1}
    assert sorted(ran) == ["a0", "a1", "b0", "b1"]


def test_a_failure_handler_that_fails_is_tried_again_until_it_has_recorded_the_failure(tmp_path: Path) -> None:
    told: list[str] = []

    async def body(_deps: FunctionDeps, _steps: Steps, _data: Mapping[str, JsonValue]) -> JsonValue:
        raise FunctionFailedError("given up")

    async def on_failure(_deps: FunctionDeps, data: Mapping[str, JsonValue], error: str) -> None:
        told.append(f"{data['x']} {error}")
        if len(told) < 4:
            raise OSError("disk full")

    run, _ = run_on_engine(tmp_path, function(body, on_failure=on_failure))
    assert run.status is EngineRunStatus.FAILED
    assert told == ["1 given up"] * 4
