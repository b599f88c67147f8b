"""A real server process: it starts, works, stops, and refuses to be two."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.host.server_process import DEADLINE_S, Server

from rawr.client.http import HqClient, RemoteError, ServerNotRunningError
from rawr.host.run_folder import ServerRecord
from rawr.security.credentials import SecretsFolder


def finished(client: HqClient, run_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE_S
    while True:
        run: dict[str, Any] = client.call("coordination/getRunStatus", {"runId": run_id}, dict[str, Any])["run"]
        if run["status"] in ("completed", "failed"):
            return run
        assert time.monotonic() < deadline, run
        time.sleep(0.02)


def test_a_server_runs_a_workflow_that_its_manifest_ships(server: Server) -> None:
    client = server.client()
    assert client.health() == {"ok": True, "instanceId": "inst-served"}
    assert client.ready()["ok"] is True
    given = {"workflowId": "doubling", "runId": "run-1", "input": {"number": 21}}
    client.call("coordination/queueRun", given, dict[str, Any])
    assert finished(client, "run-1")["output"] == {"number": 42}
    timeline = client.call("coordination/getRunTimeline", {"runId": "run-1"}, dict[str, Any])["timeline"]
    assert [event["seq"] for event in timeline] == [1, 2, 3, 4, 5]
    assert [event["type"] for event in timeline][-1] == "run.completed"


def test_the_state_says_which_instance_it_is_of(server: Server) -> None:
    state = server.client().call("state/getRuntimeState", {}, dict[str, Any])["state"]
    assert state["authorityRepoRoot"] == str(server.root.resolve())
    assert state["plugins"]["enabled"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_server_leaves_no_record_and_no_lock(server: Server, number: signal.Signals) -> None:
    record = server.ready()
    assert record.pid == server.process.pid
    assert record.instance_id == "inst-served"
    assert server.stop(number) == 0
    assert not server.run_folder.record_path.exists()
    assert server.run_folder.running() is None
    with pytest.raises(ServerNotRunningError):
        HqClient(record.url, "x").health()


def test_the_logs_are_json_lines_without_secrets(server: Server) -> None:
    client = server.client()
    client.call("coordination/listWorkflows", {}, dict[str, Any])
    server.stop()
    lines = server.access_lines()
    assert {"family": "rpc", "operation": "coordination/listWorkflows", "status": 200, "caller": "cli"}.items() <= next(
        line.items() for line in lines if line.get("family") == "rpc"
    )
    said = [json.loads(line) for line in server.log().splitlines()]
    key = SecretsFolder(server.root / ".rawr" / "secrets").cli_key()
    assert key not in json.dumps([*lines, *said])


def test_a_second_server_of_the_instance_is_refused(server: Server) -> None:
    record = server.ready()
    second = Server(server.root)
    assert second.process.wait(DEADLINE_S) == 1
    assert f"SERVER_ALREADY_RUNNING: a server of this instance is already running at {record.url}" in second.log()
    assert server.run_folder.running() == record
    second.end()


def test_a_port_that_is_taken_is_named(root: Path) -> None:
    root.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = Server(root, port)
        assert server.process.wait(DEADLINE_S) == 1
    assert f"PORT_IN_USE: 127.0.0.1:{port} is in use by another program" in server.log()
    assert not server.run_folder.record_path.exists()
    server.end()


def test_a_killed_server_is_known_to_be_dead_and_the_next_one_starts_at_once(server: Server, root: Path) -> None:
    server.ready()
    server.process.kill()
    server.process.wait(DEADLINE_S)
    assert server.run_folder.record_path.exists()
    assert server.run_folder.running() is None
    successor = Server(root)
    try:
        assert successor.ready().pid == successor.process.pid
        assert successor.stop() == 0
    finally:
        successor.end()


def test_a_run_survives_the_killing_of_its_server(server: Server, root: Path) -> None:
    given = {"workflowId": "waiting", "runId": "run-k"}
    server.client().call("coordination/queueRun", given, dict[str, Any])
    wait_for(lambda: (root / "calls").exists())
    server.process.kill()
    server.process.wait(DEADLINE_S)
    (root / "go").touch()
    successor = Server(root)
    try:
        client = successor.client()
        assert finished(client, "run-k")["status"] == "completed"
        events = client.call("coordination/getRunTimeline", {"runId": "run-k"}, dict[str, Any])["timeline"]
    finally:
        successor.end()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    types = [event["type"] for event in events]
    assert types.count("desk.completed") == 2
    assert types.count("run.completed") == 1
    assert "run.failed" not in types
    assert (root / "calls").read_text() == "xxx"  # the call that was killed, its repetition, and the second desk


def test_a_server_stops_within_its_limits_while_a_desk_works(server: Server, root: Path) -> None:
    server.client().call("coordination/queueRun", {"workflowId": "waiting", "runId": "run-d"}, dict[str, Any])
    wait_for(lambda: (root / "calls").exists())
    (root / "go").touch()  # the desk ends while the server drains
    assert server.stop() == 0
    assert not server.run_folder.record_path.exists()


def test_a_desk_that_never_ends_does_not_keep_the_server_from_stopping(server: Server, root: Path) -> None:
    server.client().call("coordination/queueRun", {"workflowId": "waiting", "runId": "run-n"}, dict[str, Any])
    wait_for(lambda: (root / "calls").exists())
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 15  # the handler itself waits for a minute
    assert server.run_folder.running() is None


@contextlib.contextmanager
def following(server: Server, run_id: str, *, after: int = 0) -> Iterator[Iterator[dict[str, str]]]:
    """The events of the run as they come over the wire, field by field."""
    port = int(server.ready().url.rpartition(":")[2])
    key = SecretsFolder(server.root / ".rawr" / "secrets").cli_key()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json", "last-event-id": str(after)}
    try:
        connection.request("POST", "/rpc/coordination/watchRun", json.dumps({"json": {"runId": run_id}}), headers)
        yield _events(connection.getresponse())
    finally:
        connection.close()


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for raw in response:
        name, separator, value = raw.decode().rstrip("\n").partition(": ")
        if name:
            event[name] = value
        elif event and not separator:
            yield event
            event = {}


def test_a_stream_that_broke_with_its_server_goes_on_at_the_next_one(server: Server, root: Path) -> None:
    server.client().call("coordination/queueRun", {"workflowId": "waiting", "runId": "run-w"}, dict[str, Any])
    with following(server, "run-w") as events:
        seen = [next(event for event in events if "desk.started" in event["data"])]
        server.process.kill()
        server.process.wait(DEADLINE_S)
    (root / "go").touch()
    successor = Server(root)
    try:
        last = int(seen[-1]["id"])
        with following(successor, "run-w", after=last) as events:
            *rest, end = events
    finally:
        successor.end()
    assert end == {"event": "done", "data": "{}"}
    assert [int(event["id"]) for event in rest] == list(range(last + 1, last + 1 + len(rest)))
    assert "run.completed" in rest[-1]["data"]


def test_a_stopping_server_does_not_wait_for_those_who_follow_a_run(server: Server) -> None:
    server.client().call("coordination/queueRun", {"workflowId": "waiting", "runId": "run-w"}, dict[str, Any])
    with following(server, "run-w") as events:
        next(event for event in events if "desk.started" in event["data"])
        server.process.send_signal(signal.SIGTERM)
        *_, end = events
        assert end["event"] == "error"
        assert "SERVICE_UNAVAILABLE" in end["data"]
    assert server.process.wait(DEADLINE_S) == 0


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def raw_answer(record: ServerRecord, request: bytes, *, then: Iterable[bytes] = ()) -> bytes:
    """The beginning of what comes back for bytes that no client library would send; nothing after a reset."""
    port = int(record.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # we are cut off, as we should be
            connection.sendall(request)
            for chunk in then:
                connection.sendall(chunk)
        with contextlib.suppress(ConnectionResetError):
            return connection.recv(65536)
    return b""


def test_hostile_bytes_on_the_socket_are_refused(server: Server) -> None:
    record = server.ready()
    bearer = b"Authorization: Bearer " + SecretsFolder(server.root / ".rawr" / "secrets").cli_key().encode()
    get, post = b"GET /health HTTP/1.1\r\n", b"POST /rpc/x HTTP/1.1\r\n"
    cases = [
        (get + b"Host: evil.example\r\n\r\n", (b"421",)),
        (get + b"\r\n", (b"400", b"421")),
        (get + b"Host: localhost\r\nHost: localhost\r\n\r\n", (b"400", b"421")),
        (post + b"Host: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", (b"400",)),
        (post + b"Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", (b"400",)),
        (b"GET /rpc/coordination/..%2fx HTTP/1.1\r\nHost: localhost\r\n" + bearer + b"\r\n\r\n", (b"404",)),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (b"400",)),
    ]
    for request, statuses in cases:
        assert raw_answer(record, request).split(b" ")[1] in statuses, request


def test_a_websocket_is_not_opened(server: Server) -> None:
    request = (
        b"GET /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert raw_answer(server.ready(), request).startswith(b"HTTP/1.1 400 ")


def test_a_huge_body_is_cut_off_and_the_server_goes_on(server: Server) -> None:
    record = server.ready()
    key = SecretsFolder(server.root / ".rawr" / "secrets").cli_key().encode()
    head = (
        b"POST /rpc/coordination/listWorkflows HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        b"Content-Type: application/json\r\nAuthorization: Bearer " + key + b"\r\n\r\n"
    )
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(1600):
            sent += 65536
            yield b"10000\r\n" + b"a" * 65536 + b"\r\n"

    answer = raw_answer(record, head, then=chunks())
    assert answer == b"" or answer.startswith(b"HTTP/1.1 413 ")  # the reset may overtake the answer
    assert sent < 100 * 1024 * 1024
    assert server.client().health()["ok"] is True


def test_a_wrong_key_is_forbidden_over_the_wire_too(server: Server) -> None:
    with pytest.raises(RemoteError) as refusal:
        HqClient(server.ready().url, "0" * 64).call("coordination/listWorkflows", {}, dict[str, Any])
    assert (refusal.value.code, refusal.value.status) == ("FORBIDDEN", 403)


def test_connections_are_kept_alive_between_requests(server: Server) -> None:
    port = int(server.ready().url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(3):
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert response.status == 200
        response.read()
    connection.close()
