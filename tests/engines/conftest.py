"""An engine on a fake clock, driving functions of the real SDK in process, with every call written down."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rawr.execution.ingest  # noqa: F401 - first: it imports the SDK without its deprecation warnings
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.model import EngineRun
from rawr.execution.embedded.worker import EngineTimes
from rawr.execution.ports import IngressResponse, OutgoingEvent, RunCode
from rawr.testing.clock import FakeClock
from rawr.wire import JsonValue

import inngest  # isort: skip
from inngest._internal import comm_lib, server_lib  # isort: skip

KEY = "signkey-test-" + "0f" * 32
APP = "app"
BACKOFF_MS = 10_000

Functions = Callable[[inngest.Inngest], Sequence[inngest.Function[Any]]]
Answer = Callable[[IngressResponse], IngressResponse]


class Seen(msgspec.Struct, frozen=True):
    """A call as it came in: which function, which step (None: discovery), which attempt."""

    function: str
    step_id: str | None
    attempt: int


class FetchingClient(inngest.Inngest):
    """A client that asks an engine of this process for what is too large to be part of a call."""

    engine: EmbeddedEngine

    async def _get_batch(self, run_id: str) -> list[server_lib.Event] | Exception:
        events = await self.engine.run_events(run_id)
        assert events is not None
        return [server_lib.Event.model_validate(event) for event in events]

    async def _get_steps(self, run_id: str) -> dict[str, object] | Exception:
        return await self.engine.run_memos(run_id)


class Wire:
    """`EngineCall` straight into the SDK's serve handler."""

    def __init__(self, functions: Functions, client_type: type[inngest.Inngest] = FetchingClient) -> None:
        self.client = client = client_type(
            app_id=APP, is_production=True, signing_key=KEY, api_base_url="https://x.invalid"
        )
        self.handler = comm_lib.CommHandler(
            client=client,
            enable_unauthed_sync=False,
            framework=server_lib.Framework.FAST_API,
            functions=list(functions(client)),
            streaming=None,
        )
        self.seen: list[Seen] = []
        self.bodies: list[JsonValue] = []
        self.headers: list[Mapping[str, str]] = []
        self.alter: Answer | None = None

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        request = comm_lib.CommRequest(
            body=body,
            headers=dict(headers),
            public_path=None,
            query_params=dict(query),
            raw_request=None,
            request_url="http://127.0.0.1/api/inngest",
            serve_origin=None,
            serve_path=None,
        )
        if method == "POST":
            parsed = msgspec.json.decode(body)
            step_id = None if query["stepId"] == "step" else query["stepId"]
            self.seen.append(Seen(query["fnId"].removeprefix(f"{APP}-"), step_id, parsed["ctx"]["attempt"]))
            self.bodies.append(parsed)
            self.headers.append(headers)
        answer = await (self.handler.post(request) if method == "POST" else self.handler.put(request))
        raw = answer.body_bytes()
        assert isinstance(raw, bytes)
        response = IngressResponse(status=answer.status_code, headers=answer.headers, body=raw)
        return response if self.alter is None or method == "PUT" else self.alter(response)

    @property
    def attempts(self) -> list[int]:
        return [seen.attempt for seen in self.seen]


class Bench:
    """One file, one clock, one wire; as many engines as a test wants."""

    def __init__(self, root: Path, functions: Functions) -> None:
        self.root = root
        self.clock = FakeClock()
        self.wire = Wire(functions)
        self.engine = self.another()

    def another(
        self,
        call: Any = None,
        *,
        steady: FakeClock | None = None,
        code: RunCode | None = None,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> EmbeddedEngine:
        engine = EmbeddedEngine(
            database=self.root / "engine.sqlite",
            run_dir=self.root / "run",
            call=call or self.wire,
            signing_key=KEY,
            clock=self.clock,
            steady_ms=(steady or self.clock).now_ms,
            backoff=lambda _attempt: BACKOFF_MS,
            times=EngineTimes(storage_retry_s=0.01),
            code=code,
            turn=turn,
        )
        if isinstance(self.wire.client, FetchingClient):
            self.wire.client.engine = engine
        return engine

    async def send(self, name: str = "go", event_id: str | None = None, **data: JsonValue) -> list[str]:
        return await self.engine.send([OutgoingEvent(name=name, data=data, event_id=event_id)])

    async def finish(self) -> EngineRun:
        """Do all that is due, now and after every wait, and give the only run of the test's function."""
        for _ in range(100):
            await self.engine.run_due()
            if await self.engine.pending_count() == 0:
                return await self.only_run()
            self.clock.advance(BACKOFF_MS)
        raise AssertionError("the run does not end")

    async def only_run(self) -> EngineRun:
        mine = [run for run in await self.engine.runs(100) if not run.fn_id.endswith("-failure")]
        assert len(mine) == 1
        return mine[0]


Scenario = Callable[[Bench], Awaitable[None]]
RunBench = Callable[[Functions, Scenario], Bench]


@pytest.fixture
def on_bench(tmp_path: Path) -> RunBench:
    """`on_bench(functions, scenario)`: a started engine for the length of the scenario."""

    def run(functions: Functions, scenario: Scenario) -> Bench:
        async def whole() -> Bench:
            bench = Bench(tmp_path, functions)
            await bench.engine.prepare()
            try:
                async with asyncio.timeout(60):
                    await scenario(bench)
            finally:
                await bench.engine.stop(0)
            return bench

        return asyncio.run(whole())

    return run
