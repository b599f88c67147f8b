"""The server of an instance: started once, found by what is true of it, stopped by process and never by port."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rawr.client.http import HqClient

if TYPE_CHECKING:
    from tests.cli.conftest import Hq


def test_up_status_and_down_are_one_life_and_each_may_be_said_twice(hq: Hq) -> None:
    assert hq.json("status").data["running"] is False
    assert hq.json("down").data == {"stopped": False, "wasRunning": False}

    first = hq.json("up").data
    assert first["alreadyUp"] is False
    assert HqClient(first["url"], "").ready()["ok"] is True
    again = hq.json("up").data
    assert again == {**first, "alreadyUp": True}
    assert hq("up").out.startswith("this HQ is already up\n")

    seen = hq.json("status").data
    assert (seen["running"], seen["url"], seen["server"]) == (True, first["url"], first["server"])
    assert first["server"] == {name: value for name, value in hq.record.items() if name != "endsWithinS"}

    down = hq.json("down").data
    assert down == {"stopped": True, "wasRunning": True, "pid": first["server"]["pid"], "killed": False}
    assert hq.json("status").data["running"] is False
    assert not (hq.root / ".rawr/run/server.json").exists()
    assert hq.json("down").data["stopped"] is False


def test_ups_at_the_same_time_make_one_server(hq: Hq) -> None:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(hq.started("up", "--json")) for _ in range(3)]
        answers = [hq.ended(process).data for process in started]
    assert len({answer["server"]["pid"] for answer in answers}) == 1
    assert sorted(answer["alreadyUp"] for answer in answers) == [False, True, True]


def test_what_a_killed_server_left_behind_misleads_nobody(hq: Hq) -> None:
    first = hq.json("up").data
    hq.kill_server()
    hq.wait_until(lambda: hq.json("status").data["running"] is False, "the server still seems to run")
    assert hq.record["pid"] == first["server"]["pid"]
    second = hq.json("up").data
    assert second["alreadyUp"] is False
    assert hq.record["pid"] == second["server"]["pid"] != first["server"]["pid"]


def test_a_stale_record_never_makes_down_stop_another_process(hq: Hq) -> None:
    hq.json("status")
    run = hq.root / ".rawr/run"
    run.mkdir(exist_ok=True)
    (run / "server.lock").touch()
    record = {
        "pid": os.getpid(),
        "url": "http://127.0.0.1:9",
        "instanceId": "x",
        "startedAt": "2026-01-01T00:00:00.000Z",
    }
    (run / "server.json").write_text(json.dumps(record))
    assert hq.json("status").data["running"] is False
    assert hq.json("down").data["stopped"] is False  # and we are still here
    assert not (run / "server.json").exists()


def test_a_damaged_record_of_a_living_server_does_not_keep_it_from_being_stopped(hq: Hq) -> None:
    pid = hq.json("up").data["server"]["pid"]
    (hq.root / ".rawr/run/server.json").write_text("{")
    assert hq.json("down").data["pid"] == pid


def test_a_stopped_process_is_told_and_then_killed_and_nothing_durable_is_lost(hq: Hq) -> None:
    """A server that hangs cannot answer SIGTERM; `down` still ends it."""
    pid = hq.json("up").data["server"]["pid"]
    queued = hq.json("workflow", "coord", "run", "gated", "--no-wait").data["run"]["runId"]
    hq.wait_for_call("second", queued)
    os.kill(pid, signal.SIGSTOP)
    stopped = hq.json("down", "--timeout", "0.5").data
    assert stopped == {"stopped": True, "wasRunning": True, "pid": pid, "killed": True}
    hq.open_gate()
    assert hq.json("up").code == 0
    hq.wait_for_status(queued, "completed")


def test_a_port_of_another_program_is_named_with_the_way_out(hq: Hq) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = hq.json("up", "--port", str(port))
    assert refused.code == 1
    assert refused.error["code"] == "PORT_IN_USE"
    assert str(port) in refused.error["message"]
    assert f"(pid {os.getpid()})" in refused.error["message"]
    assert refused.error["details"]["port"] == port
    assert "--port 0" in refused.error["fix"]
    assert hq.json("status").data["running"] is False


def test_the_server_of_another_instance_on_our_port_is_recognised(hq: Hq, other_hq: Hq) -> None:
    theirs = other_hq.json("up").data
    port = theirs["url"].rpartition(":")[2]
    (hq.root / "rawr.toml").write_text(f"[server]\nport = {port}\n")
    refused = hq.json("up")
    assert refused.code == 69
    assert refused.error["code"] == "SERVER_OTHER_INSTANCE"
    assert refused.error["details"]["answeredInstanceId"] == theirs["server"]["instanceId"]
    assert other_hq.json("status").data["running"] is True
    assert hq.json("up", "--port", "0").code == 0
    assert hq.json("down").data["stopped"] is True
    assert other_hq.json("status").data["running"] is True


def test_a_record_that_leads_to_another_instance_is_not_followed(hq: Hq, other_hq: Hq) -> None:
    theirs = other_hq.json("up").data["url"]
    hq.json("up")
    hq.root.joinpath(".rawr/run/server.json").write_text(json.dumps({**hq.record, "url": theirs}))
    refused = hq.json("workflow", "coord", "list")
    assert (refused.code, refused.error["code"]) == (69, "SERVER_OTHER_INSTANCE")
    assert hq.json("down").data["stopped"] is True
    assert other_hq.json("status").data["running"] is True


def test_a_copy_of_an_instance_does_not_take_the_server_of_the_first_for_its_own(hq: Hq, tmp_path: Path) -> None:
    hq.json("up")
    shutil.copytree(hq.root, tmp_path / "copy")
    copied = hq.json("status", "--instance", str(tmp_path / "copy")).data
    assert copied["running"] is False
    assert copied["instanceId"] != hq.json("status").data["instanceId"]


@contextlib.contextmanager
def impostor() -> Iterator[str]:
    """Something that answers every request, and is no HQ."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_something_that_is_no_hq_at_the_recorded_address_is_not_talked_to(hq: Hq) -> None:
    hq.json("up")
    with impostor() as url:
        hq.root.joinpath(".rawr/run/server.json").write_text(json.dumps({**hq.record, "url": url}))
        assert hq.json("workflow", "coord", "list").error["code"] == "SERVER_OTHER_INSTANCE"
    assert hq.json("down").data["stopped"] is True


def test_a_server_has_as_long_to_end_as_it_said_it_may_take(hq: Hq) -> None:
    hq.json("up")
    hq.json("workflow", "coord", "run", "gated", "--run-id", "held", "--no-wait")
    hq.wait_for_call("first", "held")
    record = hq.root / ".rawr/run/server.json"
    record.write_text(json.dumps({**hq.record, "endsWithinS": 0.0}))
    assert hq.json("down").data["killed"] is True


def test_a_corrupt_store_is_named_and_left_as_it_is(hq: Hq) -> None:
    hq.json("up")
    hq.json("down")
    database = hq.root / ".rawr/coordination.sqlite"
    database.write_bytes(b"this is no database, whatever its name says" * 100)
    before = database.read_bytes()
    refused = hq.json("up")
    assert refused.code == 1
    assert refused.error["code"] == "DATABASE_CORRUPT"
    assert str(database) in refused.error["message"]
    assert refused.error["details"]["logPath"].endswith("server.log")
    in_process = hq.json("workflow", "coord", "run", "echo")
    assert (in_process.code, in_process.error["code"]) == (1, "DATABASE_CORRUPT")
    assert hq.json("workflow", "coord", "status", "r1").error["code"] == "DATABASE_CORRUPT"
    assert database.read_bytes() == before
    assert hq.json("doctor").error["code"] == "DOCTOR_FOUND_ERRORS"


def test_a_server_that_dies_while_it_starts_leaves_its_last_words(hq: Hq) -> None:
    (hq.root / "rawr_hq.py").write_text("import os, sys\nprint('the roof fell in', file=sys.stderr)\nos._exit(3)\n")
    refused = hq.json("up")
    assert refused.code == 1
    assert refused.error["code"] == "SERVER_START_FAILED"
    assert refused.error["details"]["exitCode"] == 3
    assert refused.error["details"]["log"] == ["the roof fell in"]
    assert "the roof fell in" in hq("up").err


def test_a_manifest_that_raises_is_named_with_its_line(hq: Hq) -> None:
    (hq.root / "rawr_hq.py").write_text("def manifest(root):\n    return 1 / 0\n")
    refused = hq.json("up")
    assert refused.error["code"] == "MANIFEST_LOAD_FAILED"
    assert "ZeroDivisionError" in refused.error["message"]
    assert "Traceback" not in hq("up").err


SLOW_MANIFEST = """
import os, pathlib, time
def manifest(root):
    (root / "starting").write_text(str(os.getpid()))
    time.sleep(60)
"""


def test_ctrl_c_while_the_server_starts_leaves_none_behind(hq: Hq) -> None:
    (hq.root / "rawr_hq.py").write_text(SLOW_MANIFEST)
    starting = hq.root / "starting"
    with hq.started("up", "--json") as process:
        hq.wait_until(lambda: starting.exists() and starting.read_text() != "", "no server was started")
        process.send_signal(signal.SIGINT)
        answer = hq.ended(process)
    assert (answer.code, answer.error["code"]) == (130, "INTERRUPTED")
    with pytest.raises(ProcessLookupError):
        os.kill(int(starting.read_text()), 0)


def test_a_broken_plugin_is_a_warning_and_the_others_work(hq: Hq) -> None:
    (hq.root / "plugins/workflows/hello/plugin.py").write_text("import nothing_of_that_name\n")
    answer = hq.json("up")
    assert answer.code == 0
    assert any("hello" in warning for warning in answer.document["warnings"])
    assert hq.json("workflow", "coord", "run", "echo").code == 0


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs a folder that not even root can write to")
def test_an_unwritable_data_folder_is_a_coded_error(hq: Hq) -> None:
    shutil.rmtree(hq.root / ".rawr", ignore_errors=True)
    (hq.root / ".rawr").symlink_to("/sys/kernel")
    for arguments in (["up"], ["status"], ["token", "list"], ["workflow", "coord", "run", "echo"]):
        refused = hq.json(*arguments)
        assert refused.error["code"].startswith("STORAGE_"), refused.out
        assert refused.code == 1
        assert "Traceback" not in refused.err


def test_up_with_a_workflow_runs_it_once_and_says_where_things_are(hq: Hq) -> None:
    hq.open_gate()
    first = hq("up", "--run", "gated")
    assert first.code == 0, first.err
    run_id = hq.calls[0].split()[1]
    assert "desk.completed  second" in first.err  # progress
    assert f"timeline of {run_id}" in first.out
    assert f"written  {hq.root}/written.md" in first.out
    assert hq.record["url"] in first.out
    commands = [line.strip() for line in first.out.partition("next:\n")[2].splitlines()]
    assert len(commands) == 3
    assert commands[0].endswith(" open")
    assert f"workflow coord trace {run_id}" in commands[1]
    assert commands[2].endswith(" down")

    calls = hq.calls
    second = hq("up", "--run", "gated")
    assert second.code == 0
    assert "already up" in second.out
    assert hq.record["url"] in second.out
    assert hq.calls == calls


def test_up_with_a_workflow_that_fails_says_why_and_leaves_the_server_up(hq: Hq) -> None:
    answer = hq.json("up", "--run", "refusing")
    assert answer.code == 1
    assert answer.error["code"] == "RUN_FAILED"
    assert answer.document["data"]["run"]["status"] == "failed"
    assert answer.document["data"]["url"] == hq.record["url"]
    assert hq.json("status").data["running"] is True


def test_serve_in_the_foreground_ends_on_sigterm_and_refuses_a_second(hq: Hq) -> None:
    with hq.started("serve") as process:
        hq.wait_until((hq.root / ".rawr/run/server.json").exists, "the server did not come up")
        second = hq.json("serve")
        assert second.error["code"] == "SERVER_ALREADY_RUNNING"
        process.send_signal(signal.SIGTERM)
        assert hq.ended(process).code == 0
    assert hq.json("status").data["running"] is False
