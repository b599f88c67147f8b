"""kill -9 of engine servers and of the app at random moments: runs end right, and no remembered step runs again."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from tests.engine_server.conftest import wait_for

if TYPE_CHECKING:
    from tests.engine_server.conftest import EngineServer, World

CHAINS = 36
FANS = 12
ASKS = 8
KILLS = 14


def expected(name: str, n: int) -> Any:
    match name:
        case "chain":
            return {"total": 5 * n + 10, "version": 1, "last": "done"}
        case "fan":
            return 6
        case _:
            return {"helped": "asks"}


def remembered_steps_that_ran_again(steps: list[list[str]]) -> list[tuple[str, str]]:
    """Steps of a chain that were entered after a later one: that one began only when they were remembered."""
    reached: dict[str, int] = {}
    again: list[tuple[str, str]] = []
    for what, run_id, name in (line for line in steps if len(line) == 3):
        if what == "enter" and name.startswith("s"):
            number = int(name[1:])
            if number < reached.get(run_id, 0):
                again.append((run_id, name))
            reached[run_id] = max(number, reached.get(run_id, 0))
    return again


@pytest.mark.timeout(400)
@pytest.mark.parametrize("dev", [True, False])
def test_killing_servers_and_app_loses_and_repeats_nothing(world: World, dev: bool) -> None:
    chance = random.Random(20261122)
    first = world.engine(dev=dev, name="first")
    second = world.engine(dev=dev, name="second")
    app = world.app("shop", first.url, dev=dev)
    for engine in (first, second):
        engine.arguments += ["--app", app.url]
    for program in (app, first, second):
        program.start()
    wait_for(lambda: "shop-chain" in first.ready().functions(), "the app is registered")
    second.ready()

    names = ["chain"] * CHAINS + ["fan"] * FANS + ["asks"] * ASKS
    chance.shuffle(names)
    sent: list[tuple[str, int, str]] = []
    killed: list[str] = []
    for number, name in enumerate(names):
        entrance: EngineServer = chance.choice([first, second])
        sent.append((name, number, entrance.send(f"shop/{name}", n=number)))
        if number % (len(names) // KILLS) == 2:
            victim = chance.choice([first, second, app])
            time.sleep(chance.random() * 0.4)  # any moment will do
            victim.kill()
            killed.append(victim.log_path.stem)
            victim.start()
            for one in (first, second):
                one.ready()
    assert len(killed) >= KILLS
    assert set(killed) == {"first", "second", "shop"}

    for name, number, event in sent:
        run = first.ended(event, within_s=200)
        assert (run["status"], run["output"]) == ("Completed", expected(name, number)), (name, run)
    assert remembered_steps_that_ran_again(app.steps) == []
    begun = {(line[1], line[2]) for line in app.steps if len(line) == 3}
    assert len([step for _, step in begun if step.startswith("s")]) == CHAINS * 6
    assert len([step for _, step in begun if step.startswith("p")]) == FANS * 4
