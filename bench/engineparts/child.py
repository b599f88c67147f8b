"""One measurement in a process of its own: `python -m bench.engineparts.child CASE FOLDER [JSON]`, JSON on stdout."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import uvloop

from bench.engineparts import bare, crowds, dbos_runs, embedded, lengths


def main() -> None:
    case, folder, *rest = sys.argv[1:]
    arguments = json.loads(rest[0]) if rest else {}
    print(json.dumps(CASES[case](Path(folder), **arguments)))


def _on_loop(measure: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Any]:
    """With the event loop that the server runs on."""

    def run(*given: Any, **named: Any) -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(*given, **named))

    return run


CASES: dict[str, Callable[..., Any]] = {
    "engine": _on_loop(embedded.many_runs),
    "gaps": _on_loop(embedded.step_gaps),
    "bare": _on_loop(bare.many_runs),
    "lengths": _on_loop(lengths.cpu_per_step),
    "make": _on_loop(crowds.make),
    "idle": _on_loop(crowds.idle),
    "start-up": _on_loop(crowds.start_up),
    "dbos": dbos_runs.many_runs,
}

if __name__ == "__main__":
    main()
