"""`rawr engine serve` and an app of the official SDK, two processes: what a user of both gets, unsigned and signed."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.engine_server.conftest import EngineServer, SdkApp, World

from tests.engine_server.conftest import OTHER_KEY, SIGNING_KEY, wait_for


def start(world: World, *, dev: bool, **config: object) -> tuple[EngineServer, SdkApp]:
    engine = world.engine(dev=dev)
    app = world.app("shop", engine.url, dev=dev)
    app.configure(**config)
    engine.arguments += ["--app", app.url]
    app.start()
    engine.start()
    wait_for(lambda: "shop-chain" in engine.ready().functions(), "the app is registered")
    return engine, app


@pytest.mark.parametrize("mode", ["dev", "signed", "streamed"])
def test_an_app_has_everything_that_it_has_with_inngest(world: World, mode: str) -> None:
    engine, app = start(world, dev=mode != "signed", streaming=mode == "streamed")
    sent = {name: engine.send(f"shop/{name}", n=3, key=f"k-{name}") for name in (
        "chain", "asks", "waits", "flaky", "doomed", "large", "fan"
    )}  # fmt: skip
    waiting = wait_for(lambda: engine.runs_of(sent["waits"]), "it runs")[0]
    wait_for(
        lambda: any(step["op"] == "WaitForEvent" for step in engine.data(f"/v1/runs/{waiting['run_id']}/steps")),
        "it waits",
    )
    engine.send("shop/answer", key="k-waits", word="hello")
    ended = {name: engine.ended(event) for name, event in sent.items()}

    outputs = {name: run["output"] for name, run in ended.items() if run["status"] == "Completed"}
    assert outputs == {
        "chain": {"total": 25, "version": 1, "last": "done"},
        "asks": {"helped": "asks"},
        "waits": {"heard": "hello", "sent": 1},
        "flaky": 2,
        "large": 6_000_000,
        "fan": 6,
    }
    assert (ended["doomed"]["status"], ended["doomed"]["error"]["message"]) == ("Failed", "it cannot be")
    wait_for(lambda: ["mourn", ended["doomed"]["run_id"]] in app.steps, "on_failure is called")
    entered = Counter((run_id, step) for what, run_id, step in (line for line in app.steps if line[0] == "enter"))
    assert {step: count for (_, step), count in entered.items() if count != 1} == {"flaky": 3}

    steps = engine.data(f"/v1/runs/{ended['waits']['run_id']}/steps")
    assert [(step["name"], step["op"], step["status"]) for step in steps] == [
        ("tell", "StepRun", "completed"),
        ("hear", "WaitForEvent", "completed"),
    ]
    assert steps[1]["input"]["if"] == "event.data.key == async.data.key"
    assert steps[1]["output"]["data"]["word"] == "hello"
    [tried] = engine.data(f"/v1/runs/{ended['flaky']['run_id']}/steps")
    assert (tried["attempt"], tried["output"]) == (2, 2)
    assert engine.stop() == 0


@pytest.mark.parametrize("dev", [True, False])
def test_runs_are_cancelled_one_by_one_and_many_at_once(world: World, dev: bool) -> None:
    engine, _ = start(world, dev=dev)
    sleeping = [engine.send("shop/sleeper", n=n) for n in range(4)]
    runs = [wait_for(partial(engine.runs_of, event), "it runs")[0] for event in sleeping]
    assert engine.ask("DELETE", f"/v1/runs/{runs[0]['run_id']}").status == 204
    assert engine.ask("DELETE", f"/v1/runs/{runs[0]['run_id']}").status == 409
    many = {"app_id": "shop", "function_id": "sleeper", "if": "event.data.n >= 2"}
    answer = engine.ask("POST", "/v1/cancellations", many)
    assert (answer.status, answer.json["data"]["cancelled"]) == (201, 2)
    assert [engine.data(f"/v1/runs/{run['run_id']}")["status"] for run in runs] == [
        "Cancelled",
        "Running",
        "Cancelled",
        "Cancelled",
    ]


def test_an_app_that_is_down_delays_its_runs_and_fails_none(world: World) -> None:
    engine, app = start(world, dev=True)
    app.kill()
    event = engine.send("shop/flaky", n=1)
    wait_for(lambda: engine.log.count("cannot be reached") >= 4, "it is tried several times")
    [run] = engine.runs_of(event)
    assert run["ended_at"] is None
    app.start()
    assert engine.ended(event)["output"] == 2  # with three attempts of its own: being down took none of them


def test_an_app_that_has_changed_is_registered_as_it_is_now(world: World) -> None:
    engine, app = start(world, dev=True)
    app.stop()
    app.configure(version=2, without=["doomed", "helper"])
    app.start()
    wait_for(lambda: "shop-helper" not in engine.functions(), "the app is registered again")
    assert "shop-doomed-failure" not in engine.functions()
    assert engine.ended(engine.send("shop/chain", n=0))["output"]["version"] == 2
    assert engine.ended(engine.send("shop/asks"))["status"] == "Failed"
    gone = engine.send("shop/doomed")
    engine.ended(engine.send("shop/chain", n=1))
    assert engine.runs_of(gone) == []


def test_two_apps_are_each_called_where_they_are(world: World) -> None:
    engine, _ = start(world, dev=True)
    bank = world.app("bank", engine.url, dev=True)
    bank.configure(version="of the bank")
    bank.start()
    second = world.engine("--app", bank.url, dev=True, name="second")  # on the same folder
    second.start()
    wait_for(lambda: "bank-chain" in engine.functions(), "the other app is registered")
    ended = [engine.ended(second.ready().send(f"{app}/chain", n=0)) for app in ("shop", "bank")]
    assert [run["output"]["version"] for run in ended] == [1, "of the bank"]
    assert {step[0] for step in bank.steps} == {"enter"}


def test_an_app_registers_by_itself_when_it_is_told_to(world: World) -> None:
    from tests.engine_server.conftest import ask

    engine = world.engine(dev=True)
    app = world.app("shop", engine.url, dev=True)
    app.start()
    engine.start()
    engine.ready()

    def told() -> bool:
        try:
            return ask(app.port, "PUT", "/api/inngest", {}).json.get("ok") is True
        except OSError:
            return False

    wait_for(told, "it registers")
    assert "shop-chain" in engine.functions()


@pytest.mark.parametrize("known", [SIGNING_KEY, OTHER_KEY])
def test_while_keys_are_rotated_apps_with_either_key_are_served(world: World, known: str) -> None:
    engine = world.engine(dev=False, INNGEST_SIGNING_KEY_FALLBACK=OTHER_KEY)
    app = world.app("shop", engine.url, dev=False, INNGEST_SIGNING_KEY=known)
    engine.arguments += ["--app", app.url]
    app.start()
    engine.start()
    wait_for(lambda: "shop-chain" in engine.ready().functions(), "the app is registered")
    assert engine.ended(engine.send("shop/large"))["output"] == 6_000_000


def test_an_app_with_another_key_or_without_one_is_not_served(world: World) -> None:
    engine = world.engine(dev=False)
    stranger = world.app("stranger", engine.url, dev=False, INNGEST_SIGNING_KEY=OTHER_KEY)
    unsigned = world.app("unsigned", engine.url, dev=True)
    engine.arguments += ["--app", stranger.url, "--app", unsigned.url]
    stranger.start()
    unsigned.start()
    engine.start()
    engine.ready()

    def is_refused(app: SdkApp) -> bool:
        told = [line for line in engine.log.splitlines() if "engine_server.sync" in line]
        return any(app.url in line and "cannot be reached" not in line for line in told)

    for app in (stranger, unsigned):
        wait_for(partial(is_refused, app), "it is refused")
    assert engine.functions() == set()


def test_apps_come_from_the_environment_and_old_runs_are_forgotten(world: World) -> None:
    engine = world.engine(dev=True)
    app = world.app("shop", engine.url, dev=True)
    engine.environ["RAWR_ENGINE_APPS"] = f"{app.url} http://127.0.0.1:1/api/inngest"
    app.start()
    engine.start()
    wait_for(lambda: "shop-chain" in engine.ready().functions(), "the app is registered")
    run = engine.ended(engine.send("shop/helper", who="me"))
    assert engine.stop() == 0
    engine.arguments += ["--retention", "1ms"]
    engine.start()
    engine.ready()
    wait_for(lambda: engine.ask("GET", f"/v1/runs/{run['run_id']}").status == 404, "the run is forgotten")
    assert "shop-chain" in engine.functions()


def test_a_stopping_server_lets_calls_end_and_its_successor_goes_on(world: World) -> None:
    engine, app = start(world, dev=True)
    events = [engine.send("shop/chain", n=n) for n in range(10)]
    wait_for(lambda: app.steps, "they have begun")
    assert engine.stop() == 0
    engine.start()
    assert [engine.ready().ended(event)["output"]["total"] for event in events] == [5 * n + 10 for n in range(10)]
    assert set(Counter(tuple(line) for line in app.steps).values()) == {1}
