"""`rawr engine ...`: beside a running server, and without one."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import psutil
import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Hq

RUNNER = "rawr-coordination-coordination-workflow-runner"


@pytest.fixture(params=["with a server", "without"])
def either_way(hq: Hq, request: pytest.FixtureRequest) -> Hq:
    if request.param == "with a server":
        assert hq.json("up").code == 0
    return hq


def until(is_true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := is_true()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return found


def ran(hq: Hq, run_id: str, workflow: str = "echo") -> None:
    hq.json("workflow", "coord", "run", workflow, "--run-id", run_id)


def killed(hq: Hq) -> None:
    pid = hq.record["pid"]
    hq.kill_server()
    until(lambda: not psutil.pid_exists(pid))


def waiting(hq: Hq, run_id: str = "w") -> None:
    """A run that has come to the desk that waits for the gate, in a server."""
    assert hq.json("workflow", "coord", "run", "gated", "--run-id", run_id, "--no-wait").code == 0
    until(lambda: f"second {run_id}" in hq.calls)


def status_of(hq: Hq, run_id: str) -> Any:
    return hq.json("workflow", "coord", "status", run_id).data["run"]


def test_an_engine_that_never_worked_has_nothing_to_show(hq: Hq) -> None:
    status = hq.json("engine", "status").data
    assert (status["mode"], status["openRuns"], status["workers"]) == ("embedded", {}, [])
    assert hq.json("engine", "runs").data == {"runs": [], "cursor": None}
    assert hq.json("engine", "events").data == {"events": [], "cursor": None}
    assert "nobody: rawr up" in hq("engine", "status").out


def test_runs_are_listed_and_shown_by_either_id(either_way: Hq) -> None:
    hq = either_way
    for run_id in ("one", "two", "three"):
        ran(hq, run_id)
    ran(hq, "bad", "refusing")
    found = hq.json("engine", "runs", "--function", RUNNER).data["runs"]
    assert [row["eventId"] for row in found] == ["bad", "three", "two", "one"]
    assert {row["status"] for row in found[1:]} == {"completed"}
    assert [row["eventId"] for row in hq.json("engine", "runs", "--status", "failed").data["runs"]] == ["bad"]
    page = hq.json("engine", "runs", "--function", RUNNER, "--limit", "2").data
    rest = hq.json("engine", "runs", "--function", RUNNER, "--limit", "2", "--cursor", page["cursor"]).data
    assert [row["eventId"] for row in page["runs"] + rest["runs"]] == ["bad", "three", "two", "one"]

    middle = found[1]["queuedAt"]
    recent = hq.json("engine", "runs", "--function", RUNNER, "--since", middle).data["runs"]
    assert [row["eventId"] for row in recent] == [row["eventId"] for row in found if row["queuedAt"] >= middle]
    assert hq.json("engine", "runs", "--since", "2100-01-01T00:00:00Z").data["runs"] == []
    assert hq.json("engine", "runs", "--since", "lately").code == 2

    shown = hq.json("engine", "run", "one").data
    assert shown == hq.json("engine", "run", found[-1]["runId"]).data
    assert [step["name"] for step in shown["steps"]] == [
        "coordination/run-start", "desk/first", "coordination/run-completed",
    ]  # fmt: skip
    assert (shown["jobs"], shown["waits"], shown["output"]["status"]) == ([], [], "completed")
    text = hq("engine", "run", "one").out
    assert "✓ desk/first" in text
    assert "one" in hq("engine", "runs").out

    missing = hq.json("engine", "run", "none")
    assert (missing.code, missing.error["code"]) == (2, "ENGINE_RUN_NOT_FOUND")


def test_a_run_under_way_says_what_it_waits_for(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    status = hq.json("engine", "status").data
    assert (status["openRuns"], status["ahead"]["underWay"]) == ({"running": 1}, 1)
    [worker] = status["workers"]
    assert worker["isAlive"]
    assert worker["pids"] == [hq.record["pid"]]
    [job] = hq.json("engine", "run", "w").data["jobs"]
    assert (job["name"], job["isUnderWay"]) == ("desk/second", True)
    assert "desk/second: under way" in hq("engine", "run", "w").out


def test_watching_shows_each_change_until_the_run_has_ended(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    with hq.started("engine", "run", "w", "--watch", "--json") as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        hq.open_gate()
        lines = [json.loads(line) for line in watching.stdout]
        assert watching.wait(60) == 0
    assert first["data"]["run"]["status"] == "running"
    assert lines[-1]["data"]["run"]["status"] == "completed"
    ran(hq, "bad", "refusing")
    assert hq("engine", "run", "bad", "--watch").code == 1


def test_watching_ends_with_ctrl_c(hq: Hq) -> None:
    with hq.started("engine", "status", "--watch", "--json") as watching:
        assert watching.stdout is not None
        assert json.loads(watching.stdout.readline())["ok"] is True
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0


def test_an_event_is_sent_and_starts_what_it_triggers(hq: Hq) -> None:
    kept = hq.json("engine", "send", "rawr/coordination.workflow.run", "--data", "@-", given=b"[]")
    assert (kept.code, kept.error["code"]) == (2, "BAD_REQUEST")
    refused = hq.json("engine", "send", "inngest/function.finished")
    assert (refused.code, refused.error["code"]) == (2, "EVENT_REFUSED")
    early = hq.json("engine", "send", "mine/early", "--data", '{"a": 1}', "--id", "e-1")
    assert "no server runs" in early.document["warnings"][0]
    assert hq.json("up").code == 0
    until(lambda: hq.json("engine", "events", "--name", "mine/early").data["events"][0]["isRouted"])
    assert hq.json("engine", "send", "mine/other", "--wait").data["runs"] == []
    unknown = {"runId": "none", "workflowId": "none", "workflowVersion": 1}
    sent = hq.json("engine", "send", "rawr/coordination.workflow.run", "--data", json.dumps(unknown), "--wait")
    assert (sent.code, sent.error["code"]) == (1, "ENGINE_RUN_FAILED")
    [failed] = sent.document["data"]["runs"]
    assert hq.json("engine", "run", failed["runId"]).data["run"]["status"] == "failed"
    begun = hq.json("engine", "send", "rawr/coordination.workflow.run", "--data", json.dumps(unknown), "--id", "mine")
    assert (begun.data["eventId"], len(begun.data["runs"])) == ("mine", 1), "also without waiting"
    names = [row["name"] for row in hq.json("engine", "events").data["events"]]
    assert {"mine/early", "mine/other", "rawr/coordination.workflow.run"} <= set(names)
    [found] = hq.json("engine", "events", "--name", "mine/early").data["events"]
    assert (found["eventId"], found["runs"]) == ("e-1", [])


def test_a_cancelled_run_of_a_workflow_ends_as_failed_with_the_reason(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    ran(hq, "done")
    dry = hq.json("engine", "cancel", "w", "done", "--dry-run").data["planned"]
    assert dry["count"] == 1
    unknown = hq.json("engine", "cancel", "w", "none")
    assert (unknown.code, hq.json("engine", "run", "w").data["run"]["status"]) == (2, "running")
    done = hq.json("engine", "cancel", "w", "done", "--reason", "nobody needs it").data
    assert (len(done["cancelled"]), len(done["hadEnded"])) == (1, 1)
    run = until(lambda: (found := status_of(hq, "w"))["status"] == "failed" and found)
    assert "nobody needs it" in run["error"]
    traced = hq.json("workflow", "coord", "trace", "w").data
    assert traced["timeline"][-1]["type"] == "run.failed"
    assert traced["findings"] == []


def test_a_run_that_is_cancelled_while_no_server_runs_is_told_at_the_next_start(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    killed(hq)
    assert hq.json("engine", "cancel", "w").data["hadEnded"] == []
    assert status_of(hq, "w")["status"] == "running"
    assert hq.json("up").code == 0
    until(lambda: status_of(hq, "w")["status"] == "failed")


def test_a_server_that_is_killed_right_after_a_cancellation_leaves_a_run_that_ends_once(hq: Hq) -> None:
    for number in range(3):
        run_id = f"w{number}"
        assert hq.json("up").code == 0
        waiting(hq, run_id)
        assert len(hq.json("engine", "cancel", run_id, "--reason", "nobody needs it").data["cancelled"]) == 1
        killed(hq)
    assert hq.json("up").code == 0
    for number in range(3):
        hq.wait_for_status(f"w{number}", "failed")
        traced = hq.json("workflow", "coord", "trace", f"w{number}").data
        types = [event["type"] for event in traced["timeline"]]
        assert (types.count("run.failed"), types[-1], traced["findings"]) == (1, "run.failed", [])
        assert hq.calls.count(f"second w{number}") == 1, "a cancelled run is not called again"


def test_runs_of_a_function_are_cancelled_by_a_condition(hq: Hq) -> None:
    assert hq.json("up").code == 0
    for run_id in ("w1", "w2"):
        waiting(hq, run_id)
    condition = ("--function", RUNNER, "--if", 'event.data.runId == "w2"')
    assert hq.json("engine", "cancel", *condition, "--dry-run").data["planned"]["count"] == 1
    unsure = hq.json("engine", "cancel", *condition)
    assert (unsure.code, unsure.error["code"]) == (2, "CONFIRMATION_NEEDED")
    between = ("--function", RUNNER, "--started-after", "1h")
    assert hq.json("engine", "cancel", *between, "--dry-run").data["planned"]["count"] == 2
    assert hq.json("engine", "cancel", *between, "--started-before", "1h", "--dry-run").data["planned"]["count"] == 0
    assert hq.json("engine", "cancel", "--function", RUNNER, "--started-after", "soon").code == 2
    assert len(hq.json("engine", "cancel", *condition, "--yes").data["cancelled"]) == 1
    until(lambda: status_of(hq, "w2")["status"] == "failed")
    assert status_of(hq, "w1")["status"] == "running"
    wrong = hq.json("engine", "cancel", "--function", RUNNER, "--if", "event.data.")
    assert (wrong.code, wrong.error["code"]) == (2, "EXPRESSION_INVALID")
    for args in ((), ("w1", "--function", RUNNER), ("w1", "--if", "true"), ("w1", "--started-after", "1h")):
        assert hq.json("engine", "cancel", *args).code == 2


def test_an_engine_is_drained_by_the_server_or_by_this_process(either_way: Hq) -> None:
    hq = either_way
    hq.open_gate()
    assert hq.json("workflow", "coord", "run", "gated", "--run-id", "left", "--no-wait").code == 0
    drained = hq.json("engine", "drain")
    assert (drained.code, drained.data["openRuns"]) == (0, 0)
    assert status_of(hq, "left")["status"] == "completed"


def test_what_does_not_end_in_time_is_said_or_ended(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    left = hq.json("engine", "drain", "--timeout", "0.2")
    assert (left.code, left.error["code"]) == (3, "ENGINE_NOT_DRAINED")
    assert left.document["data"]["ahead"]["underWay"] == 1
    assert "--cancel-rest" in left.error["fix"]
    ended = hq.json("engine", "drain", "--timeout", "0.2", "--cancel-rest")
    assert (ended.code, ended.data["openRuns"], len(ended.data["cancelled"])) == (0, 0, 1)
    until(lambda: status_of(hq, "w")["status"] == "failed")


def test_an_engine_is_drained_before_an_inngest_server_takes_over(hq: Hq) -> None:
    hq.open_gate()
    assert hq.json("workflow", "coord", "run", "gated", "--run-id", "left", "--no-wait").code == 0
    assert hq.json("up").code == 0
    assert hq.json("down").code == 0
    config = hq.root / "rawr.toml"
    config.write_text(config.read_text() + '\n[engine]\nmode = "inngest"\nbase_url = "http://127.0.0.1:9"\n')
    assert hq.json("engine", "drain").code == 0
    assert status_of(hq, "left")["status"] == "completed"
    shown = hq.json("engine", "runs")
    assert shown.data["runs"]
    assert "Inngest server" in shown.document["warnings"][0]
    elsewhere = hq.json("engine", "send", "mine/event")
    assert elsewhere.error["code"] == "ENGINE_ELSEWHERE"
    assert hq.json("engine", "status").data["mode"] == "inngest"


def test_an_engine_that_was_never_used_is_drained_without_taking_what_an_inngest_server_has(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    killed(hq)
    for path in (hq.root / ".rawr").glob("engine.sqlite*"):
        path.unlink()
    config = hq.root / "rawr.toml"
    config.write_text(config.read_text() + '\n[engine]\nmode = "inngest"\nbase_url = "http://127.0.0.1:9"\n')
    before = hq.calls
    hq.open_gate()
    drained = hq.json("engine", "drain")
    assert (drained.code, drained.data["openRuns"]) == (0, 0)
    assert (status_of(hq, "w")["status"], hq.calls) == ("running", before)


def test_old_runs_are_forgotten_and_the_file_shrinks_when_nobody_works_with_it(hq: Hq) -> None:
    assert hq.json("up").code == 0
    payload = json.dumps({"a": "x" * 20_000})
    for number in range(20):
        assert hq.json("engine", "send", "mine/large", "--data", payload, "--id", str(number)).code == 0
    ran(hq, "one")
    beside = hq.json("engine", "vacuum", "--older-than", "1h").data
    assert (beside["runs"], beside["isInUse"]) == (0, True)
    assert hq.json("down").code == 0
    assert hq.json("engine", "vacuum", "--older-than", "0s", "--dry-run").data["planned"]["runs"] == 1
    assert hq.json("engine", "vacuum", "--dry-run").data["planned"]["runs"] == 0
    alone = hq.json("engine", "vacuum", "--older-than", "0s").data
    assert alone["runs"] == 1
    assert alone["events"] >= 20
    assert alone["sizeBytesAfter"] < alone["sizeBytesBefore"] / 1.5
    assert status_of(hq, "one")["status"] == "completed"
    assert hq.json("engine", "vacuum", "--older-than", "soon").code == 2


def runs_and_events(data: Path) -> list[Any]:
    with contextlib.closing(apsw.Connection(str(data / "coordination.sqlite"))) as domain:
        return [list(domain.execute(f"SELECT * FROM {table} ORDER BY 1, 2")) for table in ("run", "event")]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "to nothing": lambda _: b"",
    "zeros": lambda raw: bytes(len(raw)),
    "garbage": lambda raw: hashlib.sha512(raw).digest() * (len(raw) // 64),
    "no database": lambda _: b"this is a text\n" * 400,
    "a header": lambda raw: b"\xff" * 16 + raw[16:],
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_file_is_refused_put_aside_and_what_workflows_had_left_goes_on(hq: Hq, damage: str) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    killed(hq)
    data = hq.root / ".rawr"
    database = data / "engine.sqlite"
    for suffix in ("-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)
    broken = DAMAGES[damage](database.read_bytes())
    database.write_bytes(broken)
    domain = runs_and_events(data)

    for command in (("up",), ("engine", "status"), ("engine", "runs"), ("engine", "drain")):
        refused = hq.json(*command)
        assert refused.code != 0
        assert "rawr engine repair" in json.dumps(refused.document), command
    [reported] = [
        found for found in hq.json("doctor").document["data"]["findings"] if found["id"].startswith("engine.")
    ]
    assert (reported["id"], reported["fix"]) == ("engine.file_damaged", "rawr down, then rawr engine repair")
    assert database.read_bytes() == broken
    assert runs_and_events(data) == domain

    planned = hq.json("engine", "repair", "--dry-run").data
    assert planned["putAside"] == []
    assert database.read_bytes() == broken
    [kept, *_] = hq.json("engine", "repair").data["putAside"]
    assert Path(kept).read_bytes() == broken
    assert hq.json("engine", "send", "mine/early").code == 0, "a new file that is not blank any more"
    hq.open_gate()
    assert hq.json("up").code == 0
    until(lambda: status_of(hq, "w")["status"] == "completed")
    assert hq.calls.count("first w") == 1, "what was recorded is not done again"
    assert hq.json("workflow", "coord", "trace", "w").data["findings"] == []
    assert hq.json("engine", "repair").data == {"damage": None, "putAside": []}


def test_a_page_that_is_damaged_in_the_middle_is_found_and_put_aside_with_the_rest_unread(hq: Hq) -> None:
    assert hq.json("up").code == 0
    waiting(hq)
    killed(hq)
    database = hq.root / ".rawr" / "engine.sqlite"
    with contextlib.closing(apsw.Connection(str(database))) as connection:
        list(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)"))
        [(root,)] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'queue'")
        [(page_size,)] = connection.execute("PRAGMA page_size")
    with database.open("r+b") as file:
        file.seek((root - 1) * page_size)
        file.write(b"\xa5" * page_size)
    refused = hq.json("engine", "status")
    assert (refused.error["code"], refused.error["fix"]) == (
        "ENGINE_FILE_DAMAGED",
        "rawr down, then rawr engine repair",
    )
    assert "rawr engine repair" in json.dumps(hq.json("up").document)
    assert hq.json("engine", "repair").data["putAside"]
    hq.open_gate()
    assert hq.json("up").code == 0
    until(lambda: status_of(hq, "w")["status"] == "completed")
    assert hq.calls.count("first w") == 1


def test_a_page_of_an_index_that_lacks_its_rows_is_found_by_the_full_check(hq: Hq) -> None:
    ran(hq, "one")
    database = hq.root / ".rawr" / "engine.sqlite"
    assert hq.json("engine", "status", "--check").code == 0
    with contextlib.closing(apsw.Connection(str(database))) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        pages = dict(file.execute("SELECT name, rootpage FROM sqlite_schema"))
        [(size,)] = file.execute("PRAGMA page_size")
    with database.open("r+b") as raw:
        raw.seek((pages["debounces_by_event"] - 1) * size)
        empty = raw.read(size)
        raw.seek((pages["runs_ended"] - 1) * size)
        raw.write(empty)
    assert hq.json("engine", "events").code == 0
    checked = hq.json("engine", "status", "--check")
    assert checked.error["code"] == "ENGINE_FILE_DAMAGED"
    assert "rawr engine repair" in checked.error["fix"]
    assert str(database) in checked.error["details"]["path"]
    assert "runs_ended" in checked.error["message"]
    assert "engine.sqlite" in json.dumps(hq.json("doctor").document["data"]["findings"])
    assert len(hq.json("engine", "repair").data["putAside"]) >= 1
    assert hq.json("engine", "status", "--check").code == 0


def test_a_folder_in_the_place_of_the_file_is_put_aside_with_what_is_in_it(hq: Hq) -> None:
    database = hq.root / ".rawr" / "engine.sqlite"
    (database / "kept").mkdir(parents=True)
    for command in (("engine", "status"), ("engine", "status", "--check"), ("up",)):
        refused = hq.json(*command)
        assert refused.code != 0
        assert "rawr engine repair" in json.dumps(refused.document), (command, refused.document)
    [moved] = hq.json("engine", "repair").data["putAside"]
    assert (Path(moved) / "kept").is_dir()
    assert hq.json("engine", "status").code == 0


def test_a_file_of_a_newer_rawr_is_refused_and_not_put_aside(hq: Hq) -> None:
    ran(hq, "one")
    database = hq.root / ".rawr" / "engine.sqlite"
    with contextlib.closing(apsw.Connection(str(database))) as file:
        file.execute("INSERT INTO rawr_migration SELECT max(position) + 1, 'later', 'x' FROM rawr_migration")
    for command in (("engine", "status"), ("engine", "drain"), ("engine", "send", "mine/event")):
        assert hq.json(*command).error["code"] == "DATABASE_SCHEMA_NEWER"
    assert hq.json("engine", "repair").data == {"damage": None, "putAside": []}


def overwrite(hq: Hq) -> None:
    """Fill the file of the engine, and its log, with what is no database."""
    for name in ("engine.sqlite-wal", "engine.sqlite"):
        with (hq.root / ".rawr" / name).open("r+b") as file:
            file.write(b"\xff" * max(4096, os.fstat(file.fileno()).st_size))


def test_a_file_that_is_worked_with_is_not_put_aside(hq: Hq) -> None:
    assert hq.json("up").code == 0
    ran(hq, "one")
    overwrite(hq)
    busy = hq.json("engine", "repair")
    assert (busy.code, busy.error["code"]) == (4, "ENGINE_IN_USE")
    pid = hq.record["pid"]
    assert str(pid) in busy.error["message"]


def test_a_server_whose_engine_file_is_damaged_under_it_is_not_ready_and_says_why(hq: Hq) -> None:
    assert hq.json("up").code == 0
    ran(hq, "one")
    url = hq.record["url"]
    overwrite(hq)

    def ready() -> str:
        hq.json("workflow", "coord", "run", "echo", "--no-wait")  # an engine with nothing to do does not look
        return subprocess.run(
            ["curl", "-s", f"{url}/ready"], capture_output=True, text=True, timeout=30, check=False
        ).stdout

    until(lambda: "ENGINE_FILE_DAMAGED" in ready())
    path = hq.root / ".rawr" / "logs" / "server.log"
    log = until(lambda: "the engine has stopped" in (text := path.read_text()) and text)
    assert log.count("the engine has stopped") == 1
    assert "tries again" not in log
