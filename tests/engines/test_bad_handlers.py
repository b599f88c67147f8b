"""Functions that misbehave harm themselves alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import inngest
import pytest

from rawr.execution.embedded.model import EngineRunStatus
from rawr.execution.embedded.worker import EngineTimes

TRIGGER = inngest.TriggerEvent(event="go")
ROOT = Path(__file__).parents[2]


class Unruly(BaseException):
    pass


async def answer(ctx: inngest.Context) -> Any:
    match ctx.event.data.get("how"):
        case "prints":
            print("to stdout")
            sys.stderr.write("to stderr")
        case "returns 5 MB":
            return "x" * 5_000_000
        case "raises a BaseException":
            raise Unruly("not an Exception")
        case "hangs":
            await asyncio.Event().wait()
    return "fine"


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ("prints", (EngineRunStatus.COMPLETED, None)),
        ("returns 5 MB", (EngineRunStatus.FAILED, "OutputTooLarge")),
        ("raises a BaseException", (EngineRunStatus.FAILED, "CallFailed")),
        ("hangs", (EngineRunStatus.FAILED, "CallFailed")),
    ],
)
def test_a_function_that_misbehaves_does_not_disturb_the_others(on_bench: Any, how: str, outcome: Any) -> None:
    async def scenario(bench: Any) -> None:
        if how == "hangs":
            bench.engine._worker._times = EngineTimes(call_timeout_s=3)
        await bench.send(how=how)
        for _ in range(5):
            await bench.send()
        await bench.engine.run_due()
        bad, *others = reversed(await bench.engine.runs(10))
        assert (bad.status, bad.error and bad.error.name) == outcome
        assert [run.output for run in others] == ["fine"] * 5

    on_bench(lambda client: [client.create_function(fn_id="fn", trigger=TRIGGER, retries=0)(answer)], scenario)


def test_a_step_that_exits_its_process_again_and_again_is_given_up_and_all_else_is_done(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.household", "deadly", str(tmp_path)],
        capture_output=True,
        timeout=110,
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr.decode()
    told = json.loads(done.stdout)
    assert told["lives"] == 5 + 1
    ended = sorted((fn_id, status) for _, fn_id, status, _, _ in told["runs"])
    assert ended == [("app-count", "completed")] * 10 + [("app-deadly", "failed")]
    (error,) = [json.loads(error) for _, fn_id, _, _, error in told["runs"] if fn_id == "app-deadly"]
    assert error["name"] == "HostDied"
