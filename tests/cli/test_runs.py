"""Running workflows from the command line: by the server, in this process, or left for later."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import signal
import subprocess
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Hq


@pytest.fixture(params=["with a server", "in process"])
def either_way(hq: Hq, request: pytest.FixtureRequest) -> Hq:
    if request.param == "with a server":
        assert hq.json("up").code == 0
    return hq


def test_a_run_is_followed_to_its_end_and_can_be_looked_at(either_way: Hq) -> None:
    hq = either_way
    hq.open_gate()
    answer = hq.json("workflow", "coord", "run", "gated", "--input", '{"a": 1}', "--run-id", "mine")
    assert answer.code == 0, answer.out
    assert answer.err == ""
    run = answer.data["run"]
    assert (run["runId"], run["status"], run["input"]) == ("mine", "completed", {"a": 1})
    assert run["output"]["given"] == {"a": 1}
    assert hq.json("workflow", "coord", "status", "mine").data["run"] == run

    traced = hq.json("workflow", "coord", "trace", "mine").data
    assert traced["run"] == run
    assert [event["seq"] for event in traced["timeline"]] == list(range(1, len(traced["timeline"]) + 1))
    assert [event["type"] for event in traced["timeline"]][-1] == "run.completed"
    assert traced["findings"] == []

    again = hq.json("workflow", "coord", "run", "gated", "--run-id", "mine")
    assert again.data["run"] == run
    assert hq.calls == ["first mine", "second mine"]
    taken = hq.json("workflow", "coord", "run", "echo", "--run-id", "mine")
    assert (taken.code, taken.error["code"]) == (4, "RUN_ID_CONFLICT")


def test_input_is_passed_as_given(either_way: Hq) -> None:
    for given in ("[1,2]", "0", '"x"', "false"):
        run = either_way.json("workflow", "coord", "run", "echo", "--input", given).data["run"]
        assert run["input"] == json.loads(given)
        assert run["output"] == {"given": json.loads(given)}


def test_input_may_come_from_a_file_or_from_stdin(hq: Hq) -> None:
    (hq.root / "given.json").write_text("[1, 2]")
    from_file = hq.json("workflow", "coord", "run", "echo", "--input", "@given.json")
    assert from_file.data["run"]["output"] == {"given": [1, 2]}
    from_stdin = hq.json("workflow", "coord", "run", "echo", "--input", "@-", given=b"[3]")
    assert from_stdin.data["run"]["output"] == {"given": [3]}


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b'{"a": 1,\n "b": }', {"line": 2, "column": 7, "offset": 15}),
        (b"", {"line": 1, "column": 1, "offset": 0}),
        (b'["\xff"]', {"line": 1, "column": 3, "offset": 2}),
        (b"[NaN]", {}),
        (b"[" * 200 + b"]" * 200, {}),
    ],
)
def test_input_that_is_no_json_is_refused_with_its_place(hq: Hq, raw: bytes, place: dict[str, int]) -> None:
    (hq.root / "given.json").write_bytes(raw)
    refused = hq.json("workflow", "coord", "run", "echo", "--input", "@given.json")
    assert refused.code == 2
    assert refused.error["code"] == "INVALID_INPUT_JSON"
    assert {name: refused.error["details"].get(name) for name in place} == place
    assert hq.calls == []


def test_input_files_that_are_missing_or_too_large_are_refused(hq: Hq) -> None:
    missing = hq.json("workflow", "coord", "run", "echo", "--input", "@nowhere.json")
    assert (missing.code, missing.error["code"]) == (2, "INPUT_UNREADABLE")
    (hq.root / "rawr.toml").write_text("[server]\nport = 0\n[limits]\nbody_bytes = 2048\n")
    (hq.root / "large.json").write_text(json.dumps("x" * 4000))
    large = hq.json("workflow", "coord", "run", "echo", "--input", "@large.json")
    assert (large.code, large.error["code"]) == (2, "PAYLOAD_TOO_LARGE")
    assert hq.calls == []


def test_a_run_that_fails_says_which_desk_and_why(either_way: Hq) -> None:
    failed = either_way.json("workflow", "coord", "run", "refusing", "--run-id", "r1")
    assert failed.code == 1
    assert failed.error["code"] == "RUN_FAILED"
    assert failed.error["details"]["run"] == failed.document["data"]["run"]
    assert failed.error["details"]["failedDesks"][0]["deskId"] == "qa"
    assert "contradict" in failed.error["details"]["failedDesks"][0]["detail"]
    trace = either_way.json("workflow", "coord", "trace", "r1").data
    assert trace["findings"] == []
    for_people = either_way("workflow", "coord", "run", "refusing")
    assert for_people.code == 1
    assert "desk qa failed" in for_people.err
    assert "\x1b" not in for_people.err + for_people.out
    assert "Traceback" not in for_people.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["run", "nope"], "WORKFLOW_NOT_FOUND"),
        (["run", "../../x"], "INVALID_WORKFLOW_ID"),
        (["run", "echo", "--run-id", "../../x"], "INVALID_RUN_ID"),
        (["validate", "nope"], "WORKFLOW_NOT_FOUND"),
        (["status", "nope"], "RUN_NOT_FOUND"),
        (["trace", "nope"], "RUN_NOT_FOUND"),
        (["status", "../../x"], "INVALID_RUN_ID"),
    ],
)
def test_what_is_not_there_is_exit_code_2(hq: Hq, arguments: list[str], code: str) -> None:
    refused = hq.json("workflow", "coord", *arguments)
    assert (refused.code, refused.error["code"]) == (2, code)


def test_the_server_says_the_same_about_what_is_not_there(hq: Hq) -> None:
    hq.json("up")
    for arguments, code in (
        (["run", "nope"], "WORKFLOW_NOT_FOUND"),
        (["run", "../../x"], "INVALID_WORKFLOW_ID"),
        (["status", "nope"], "RUN_NOT_FOUND"),
        (["trace", "../../x"], "INVALID_RUN_ID"),
    ):
        refused = hq.json("workflow", "coord", *arguments)
        assert (refused.code, refused.error["code"]) == (2, code)


def test_without_a_server_no_wait_leaves_the_run_for_the_next_one(hq: Hq) -> None:
    hq.open_gate()
    queued = hq.json("workflow", "coord", "run", "gated", "--no-wait", "--run-id", "later")
    assert queued.code == 0
    assert queued.data["run"]["status"] == "queued"
    assert "next `rawr up`" in queued.document["warnings"][0]
    assert hq.calls == []
    hq.json("up")
    hq.wait_for_status("later", "completed")
    assert hq.json("workflow", "coord", "trace", "later").data["findings"] == []


def test_a_wait_that_is_too_long_leaves_the_run_alone(either_way: Hq) -> None:
    waited = either_way.json("workflow", "coord", "run", "gated", "--run-id", "slow", "--timeout", "1")
    assert (waited.code, waited.error["code"]) == (75, "RUN_WAIT_TIMEOUT")
    either_way.open_gate()
    either_way.json("up")
    either_way.wait_for_status("slow", "completed")
    trace = either_way.json("workflow", "coord", "trace", "slow").data
    assert trace["findings"] == []
    assert [event["deskId"] for event in trace["timeline"] if event["type"] == "desk.completed"] == ["first", "second"]


def test_ctrl_c_while_waiting_says_that_the_run_goes_on(either_way: Hq) -> None:
    hq = either_way
    served = hq.json("status").data["running"]
    with hq.started("workflow", "coord", "run", "gated", "--run-id", "left", "--json") as process:
        hq.wait_for_call("second", "left")
        process.send_signal(signal.SIGINT)
        answer = hq.ended(process)
    assert answer.code == 130, answer.err
    assert answer.error["code"] == "INTERRUPTED"
    assert answer.error["details"] == {"runId": "left"}
    assert ("goes on in the server" in answer.error["message"]) is served
    hq.open_gate()
    hq.json("up")
    hq.wait_for_status("left", "completed")


def test_a_server_that_is_killed_in_the_middle_of_a_run_finishes_it_after_the_next_start(hq: Hq) -> None:
    hq.json("up")
    with hq.started("workflow", "coord", "run", "gated", "--run-id", "survivor", "--json") as waiting:
        hq.wait_for_call("second", "survivor")
        hq.kill_server()
        left = hq.ended(waiting)
    assert (left.code, left.error["code"]) == (69, "SERVER_NOT_RUNNING")
    assert "survivor" in left.error["message"]
    hq.open_gate()
    assert hq.json("up").code == 0
    hq.wait_for_status("survivor", "completed")

    trace = hq.json("workflow", "coord", "trace", "survivor").data
    types = [event["type"] for event in trace["timeline"]]
    assert trace["findings"] == []
    assert [event["seq"] for event in trace["timeline"]] == list(range(1, len(types) + 1))
    assert types.count("run.completed") + types.count("run.failed") == 1
    completed = [event["deskId"] for event in trace["timeline"] if event["type"] == "desk.completed"]
    assert completed == ["first", "second"]
    assert hq.calls.count("first survivor") == 1


def test_a_killed_run_in_process_goes_on_in_process(hq: Hq) -> None:
    with hq.started("workflow", "coord", "run", "gated", "--run-id", "survivor") as process:
        hq.wait_for_call("second", "survivor")
        process.kill()
        process.wait()
    hq.open_gate()
    run = hq.json("workflow", "coord", "run", "gated", "--run-id", "survivor").data["run"]
    assert run["status"] == "completed"
    assert hq.calls.count("first survivor") == 1
    assert hq.json("workflow", "coord", "trace", "survivor").data["findings"] == []


def test_workflows_are_created_listed_and_validated(either_way: Hq) -> None:
    hq = either_way
    planned = hq.json("workflow", "coord", "create", "--id", "mine", "--dry-run").data
    assert planned["planned"] == {
        "procedure": "coordination.saveWorkflow",
        "method": "POST",
        "rpcPath": "/rpc/coordination/saveWorkflow",
    }
    ids = [workflow["workflowId"] for workflow in hq.json("workflow", "coord", "list").data["workflows"]]
    assert ids == ["echo", "gated", "hello", "refusing"]
    created = hq.json("workflow", "coord", "create", "--id", "mine", "--name", "Mine", "--description", "Just mine")
    assert created.data["workflow"]["name"] == "Mine"
    again = hq.json("workflow", "coord", "create", "--id", "mine")
    assert (again.code, again.error["code"]) == (4, "WORKFLOW_EXISTS")
    validated = hq.json("workflow", "coord", "validate", "mine").data
    assert validated == {"workflowId": "mine", "validation": {"ok": True, "errors": []}}
    assert hq.json("workflow", "coord", "run", "mine", "--input", "{}").data["run"]["status"] == "completed"
    assert "mine" in hq("workflow", "coord", "list").out


def test_progress_is_shown_to_people_and_kept_from_machines(hq: Hq) -> None:
    shown = hq("workflow", "coord", "run", "echo")
    assert "desk.completed  first" in shown.err
    assert "status    completed" in shown.out
    assert hq("workflow", "coord", "run", "echo", "--quiet").err == ""


def test_on_a_terminal_each_desk_has_a_line_that_lives(hq: Hq) -> None:
    """stderr is a terminal here, stdout is not: the drawing must stay off it."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as screen:
        process = subprocess.Popen(
            hq.command("workflow", "coord", "run", "refusing"),
            cwd=hq.root,
            env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=theirs,
        )
        os.close(theirs)
        drawn = drained(screen)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "✓" in drawn
    assert "✗" in drawn
    assert "contradict" in drawn
    assert b"\x1b" not in out


def drained(screen: IO[bytes]) -> str:
    """Everything that was written to a terminal until its last writer went."""
    drawn = b""
    with contextlib.suppress(OSError):  # Linux says EIO when nobody holds the other end
        while chunk := screen.read(65536):
            drawn += chunk
    return drawn.decode()


def test_an_api_key_made_here_opens_the_published_family_until_it_is_revoked(hq: Hq) -> None:
    url = hq.json("up").data["url"]
    made = hq.json("token", "create", "--name", "ci", "--scope", "orpc:coordination").data
    assert published(url, None)[0] == 401
    status, answer = published(url, made["token"])
    assert status == 200
    assert len(answer["workflows"]) == 4
    listed = hq.json("token", "list")
    assert [token["id"] for token in listed.data["tokens"]] == [made["id"]]
    assert made["token"] not in listed.out
    assert hq.json("token", "revoke", made["id"]).data["revoked"]["id"] == made["id"]
    assert published(url, made["token"])[0] == 401


def published(url: str, token: str | None) -> tuple[int, Any]:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        connection.request("GET", "/api/orpc/coordination/workflows", headers=headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()
