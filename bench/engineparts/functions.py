"""The durable function that all contestants run, as a function of the real SDK: so many steps that do nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, cast

from rawr.clock import SystemClock
from rawr.execution.ports import DurableFunction, FunctionDeps, Ingress, OutgoingEvent, Steps
from rawr.testing.stores import MemoryCoordinationStore
from rawr.wire import JsonValue

KEY: Final = "signkey-bench-" + "5c" * 32
ORIGIN: Final = "http://127.0.0.1:4111"
EVENT: Final = "bench/go"


class Trivial:
    """A durable function with `steps` trivial steps. It notes when each of them was entered."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self.entered_s: list[float] = []

    def ingress(self) -> Ingress:
        from rawr.execution.ingest import make_ingress

        function = DurableFunction(
            function_id="trivial", name="trivial", event_name=EVENT, retries=4, body=self._body, on_failure=_give_up
        )
        deps = FunctionDeps(
            store=MemoryCoordinationStore(), desk_handlers={}, clock=SystemClock(), instance_root=Path("/")
        )
        return make_ingress([function], deps, signing_key=KEY, event_sink=_Nowhere(), serve_origin=ORIGIN)

    async def _body(self, _: FunctionDeps, steps: Steps, data: Mapping[str, JsonValue]) -> JsonValue:
        del data
        return [await steps.run(f"step-{number}", self._step) for number in range(self._steps)]

    async def _step(self, attempt: int) -> int:
        self.entered_s.append(time.perf_counter())
        return attempt


class _Nowhere:
    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        raise AssertionError(f"nobody sends here: {len(events)}")


async def _give_up(_: FunctionDeps, data: Mapping[str, JsonValue], message: str) -> None:
    raise AssertionError(f"a run of the benchmark failed: {message} {cast('Any', data)}")
