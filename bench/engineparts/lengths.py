"""What a step costs the engine alone, in short runs and in a long one: an app whose answers are ready and signed.

CPU time of the process from the first call of a run to its last one. So neither the start nor the end of a run is in
it, which would make steps of short runs look dear, and nothing of the SDK.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

from bench.engineparts.embedded import engine_on
from bench.engineparts.functions import EVENT, KEY
from rawr.execution import signing
from rawr.execution.ports import IngressResponse, OutgoingEvent
from rawr.wire import encode


class ReadyAnswers:
    """`EngineCall` of an app with one function of `steps` steps. It looks at nothing but the ids of runs.

    With `first_sleeps` the first step is a sleep of months.
    """

    def __init__(self, steps: int, *, first_sleeps: bool = False) -> None:
        self._answers = [_signed(206, encode([_step_ran(number)])) for number in range(steps)]
        self._answers.append(_signed(200, b'"done"'))
        if first_sleeps:
            self._answers[0] = _signed(206, encode([{"id": "nap", "op": "Sleep", "name": "8000h", "opts": {}}]))
        self._made: dict[str, int] = {}
        self._began_s = 0.0
        self.cpu_s = 0.0
        self.done = asyncio.Event()

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        del query, body
        if method == "PUT":
            return _signed(
                200, encode({"app_id": "ready", "functions": [_FUNCTION]}), {"x-inngest-sync-kind": "in_band"}
            )
        number = self._made.get(headers["x-run-id"], 0)
        self._made[headers["x-run-id"]] = number + 1
        if number == 0:
            self._began_s = time.process_time()
        elif number == len(self._answers) - 1:
            self.cpu_s += time.process_time() - self._began_s
            self.done.set()
        return self._answers[number]


async def cpu_per_step(folder: Path, *, runs: int, steps: int) -> dict[str, float]:
    """Of `runs` runs, one after the other."""
    app = ReadyAnswers(steps)
    engine = engine_on(folder, app)
    await engine.start()
    for number in range(1 + runs):
        if number == 1:
            app.cpu_s = 0.0  # the first run warmed everything up
        app.done.clear()
        await engine.send([OutgoingEvent(name=EVENT, data={"n": number})])
        await app.done.wait()
        while await engine.pending_count() > 0:  # noqa: ASYNC110 - the engine is the thing that is measured
            await asyncio.sleep(0.002)
    await engine.stop(0)
    return {"cpuUsPerStep": app.cpu_s / runs / steps * 1e6}


_FUNCTION = {
    "id": "ready-fn",
    "name": "fn",
    "triggers": [{"event": EVENT}],
    "steps": {
        "step": {
            "id": "step",
            "name": "step",
            "retries": {"attempts": 4},
            "runtime": {"type": "http", "url": "http://127.0.0.1/api/inngest?fnId=ready-fn&stepId=step"},
        }
    },
}


def _step_ran(number: int) -> dict[str, object]:
    name = f"step-{number}"
    step_id = hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest()
    return {"id": step_id, "op": "StepRun", "name": name, "displayName": name, "opts": {}, "data": number}


def _signed(status: int, body: bytes, more: Mapping[str, str] = {}) -> IngressResponse:
    signature = signing.sign_canonical(body, KEY, 1)
    return IngressResponse(
        status=status, headers={"x-inngest-sdk": "ready", signing.HEADER: signature, **more}, body=body
    )
