"""Plugins that change under runs: the run waits and says so, and the two commands and the replay do what they say."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import GATED_PLUGIN, Hq

RUN = "mine"


def edit(hq: Hq, text: str = GATED_PLUGIN + "\n# edited\n") -> None:
    (hq.root / "plugins/workflows/gated/plugin.py").write_text(text)


def begun(hq: Hq, server: bool = True) -> None:
    """A run whose second desk waits at the gate, under a server that is then killed."""
    assert hq.json("up").code == 0
    assert hq.json("workflow", "coord", "run", "gated", "--run-id", RUN, "--input", '{"a": 1}', "--no-wait").code == 0
    hq.wait_for_call("second", RUN)
    hq.kill_server()
    hq.wait_until(lambda: hq.json("status").data["running"] is False, "the server is still there")


def findings(hq: Hq) -> list[Any]:
    document = hq.json("doctor").document
    return [finding for finding in document["data"]["findings"] if finding["id"] == "engine.run_held"]


def held(hq: Hq) -> str:
    """The engine's id of the run, which waits because its plugin was edited; a server with the edit is up."""
    begun(hq)
    edit(hq)
    assert hq.json("up").code == 0
    hq.wait_until(lambda: bool(findings(hq)), "the run is not held")
    run_id: str = findings(hq)[0]["evidence"]["runId"]
    return run_id


def bytes_of(root: Path) -> dict[str, str]:
    """Every file of the instance by its content, without what SQLite keeps for the processes that have it open."""
    files = [path for path in (root / ".rawr").rglob("*") if path.is_file() and path.suffix not in (".log", ".wlock")]
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.stat().st_size and not path.name.endswith("-shm")
    }


def test_a_run_whose_plugin_changed_waits_and_goes_on_when_the_new_code_is_accepted(hq: Hq) -> None:
    run_id = held(hq)
    (finding,) = findings(hq)
    assert f"run {RUN} waits" in finding["title"]
    assert "gated was " in finding["title"]
    assert finding["fix"] == f"rawr engine accept-code {run_id}, or rawr engine rerun {run_id}"
    log = (hq.root / ".rawr/logs/server.log").read_text()
    assert log.count(f"run {run_id} waits") == 1
    told = hq("engine", "run", run_id).out
    assert "held until its code is there, or other code is accepted" in told
    assert told.count(f"rawr engine accept-code {run_id}") == 1, told
    hq.open_gate()
    seen = hq.json("engine", "accept-code", RUN, "--dry-run")
    assert (seen.code, seen.data["accepted"], seen.data["replay"]["verdict"]) == (0, False, "same")
    assert findings(hq)
    accepted = hq.json("engine", "accept-code", RUN)
    assert accepted.data["accepted"] is True, accepted.out
    hq.wait_for_status(RUN, "completed")
    assert hq.calls == [f"first {RUN}", f"second {RUN}", f"second {RUN}"]
    assert findings(hq) == []
    assert hq.json("workflow", "coord", "trace", RUN).data["findings"] == []


def test_a_run_goes_on_by_itself_when_the_edit_is_taken_back(hq: Hq) -> None:
    held(hq)
    hq.open_gate()
    assert hq.json("down").code == 0
    edit(hq, GATED_PLUGIN)
    assert hq.json("up").code == 0
    hq.wait_for_status(RUN, "completed")
    assert hq.calls.count(f"first {RUN}") == 1


def test_a_run_that_waits_is_run_again_from_a_desk_with_another_input(hq: Hq) -> None:
    held(hq)
    hq.open_gate()
    again = hq.json("engine", "rerun", RUN, "--from", "second", "--input", '{"given": "edited"}')
    new = again.data["runId"]
    hq.wait_for_status(new, "completed")
    run = hq.json("workflow", "coord", "status", new).data["run"]
    assert run["output"]["given"] == "edited"
    assert f"first {new}" not in hq.calls
    old = hq.json("workflow", "coord", "status", RUN).data["run"]
    assert (old["status"], old["error"]) == ("failed", f"ended: it is run again as {new}")
    for run_id in (RUN, new):
        assert hq.json("workflow", "coord", "trace", run_id).data["findings"] == []
    assert (
        hq.json("workflow", "coord", "trace", new)
        .data["timeline"][0]["detail"]
        .endswith(f"{RUN} again from desk second on with another input")
    )
    assert findings(hq) == []


def test_without_a_server_code_is_accepted_and_runs_are_run_again_for_the_next_one(hq: Hq) -> None:
    held(hq)
    assert hq.json("down").code == 0
    hq.open_gate()
    accepted = hq("engine", "accept-code", RUN)
    assert accepted.code == 0, accepted.err
    assert "no server runs" in accepted.err
    again = hq.json("engine", "rerun", RUN, "--data", '{"a": 2}')
    new = again.data["runId"]
    assert hq.calls.count(f"first {new}") == 0
    assert hq.json("up").code == 0
    hq.wait_for_status(new, "completed")
    assert hq.json("workflow", "coord", "status", new).data["run"]["output"]["given"] == {"a": 2}


def test_all_runs_are_replayed_without_a_server_and_nothing_is_called_or_written(hq: Hq) -> None:
    hq.open_gate()
    for workflow in ("gated", "echo", "refusing"):
        hq.json("workflow", "coord", "run", workflow, "--run-id", workflow)
    calls, before = hq.calls, bytes_of(hq.root)
    replayed = hq.json("engine", "replay", "--all")
    assert replayed.code == 0, replayed.out
    assert replayed.data["counts"] == {"same": 3, "different": 0, "cannot": 0}
    assert (hq.calls, bytes_of(hq.root)) == (calls, before)
    people = hq("engine", "replay", "gated")
    assert people.code == 0
    assert "same" in people.out


def test_a_history_that_the_code_does_not_follow_is_told_with_its_first_difference(hq: Hq) -> None:
    hq.open_gate()
    hq.json("workflow", "coord", "run", "gated", "--run-id", "one")
    hq.json("workflow", "coord", "run", "echo", "--run-id", "two")
    forge = (
        "from rawr.storage.sqlite import Database, run\n"
        "from rawr.execution.embedded.schema import MIGRATIONS\n"
        "import pathlib, sys\n"
        "database = Database(pathlib.Path(sys.argv[1]), MIGRATIONS)\n"
        "database.write_sync(lambda c: run(c, \"UPDATE steps SET name = 'desk/other' WHERE name = 'desk/second'\"))\n"
        "database.close()\n"
    )
    python(hq, forge, str(hq.root / ".rawr/engine.sqlite"))
    replayed = hq("engine", "replay", "--all", "--json")
    assert replayed.code == 3
    assert replayed.document["data"]["counts"] == {"same": 1, "different": 1, "cannot": 0}
    assert replayed.error["code"] == "REPLAY_DIFFERS"
    assert "after 2 steps the history has run 'desk/other'" in replayed.error["message"]


def python(hq: Hq, text: str, *arguments: str) -> None:
    import subprocess

    subprocess.run([str(hq.command()[0]), "-c", text, *arguments], check=True, timeout=60)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("replay",), 2, "USAGE"),
        (("replay", "--all", "x"), 2, "USAGE"),
        (("replay", "nobody"), 2, "ENGINE_RUN_NOT_FOUND"),
        (("accept-code", "nobody"), 2, "ENGINE_RUN_NOT_FOUND"),
        (("accept-code", "done"), 1, "ENGINE_CODE_NOT_ACCEPTED"),
        (("rerun", "nobody"), 2, "ENGINE_RUN_NOT_FOUND"),
        (("rerun", "done", "--from", "nowhere"), 1, "RUN_RERUN_REFUSED"),
        (("rerun", "done", "--input", "{}"), 1, "RUN_RERUN_REFUSED"),
        (("rerun", "done", "--data", "{"), 2, "INVALID_INPUT_JSON"),
    ],
)
def test_what_cannot_be_done_is_refused(hq: Hq, arguments: tuple[str, ...], code: int, error: str) -> None:
    hq.open_gate()
    hq.json("workflow", "coord", "run", "echo", "--run-id", "done")
    refused = hq.json("engine", *arguments)
    assert (refused.code, refused.error["code"]) == (code, error)
