"""SIGTERM on a real server that is busy: what is under way ends well, what is new is sent away."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.host.server_process import DEADLINE_S, Server

from rawr.storage.snapshots import look_into

BODY = b'{"json":{}}'


@pytest.fixture
def patient(root: Path) -> Iterator[Server]:
    """A server that waits long for what is under way."""
    yield from started(root, drain_s=DEADLINE_S, body_s=DEADLINE_S, head_s=DEADLINE_S)


@pytest.fixture
def impatient(root: Path) -> Iterator[Server]:
    yield from started(root, drain_s=0.2, body_s=DEADLINE_S, head_s=DEADLINE_S)


def started(root: Path, **limits: float) -> Iterator[Server]:
    root.mkdir()
    server = Server(root, limits=limits)
    server.ready()
    yield server
    server.end()


class Caller:
    """A request on a connection of its own, in the state in which its body is waited for."""

    def __init__(self, server: Server, procedure: str, body: bytes) -> None:
        self._connection = socket.create_connection(("127.0.0.1", server.port()), timeout=DEADLINE_S)
        self._body = body
        self.received = b""
        head = (
            f"POST /rpc/{procedure} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {server.cli_key()}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
        )
        self._connection.sendall(head.encode())
        self.until(b"100 Continue\r\n\r\n")  # it is being answered, and the server reads the body

    def go_on(self) -> None:
        self._connection.sendall(self._body)

    def until(self, text: bytes) -> None:
        while text not in self.received:
            piece = self._connection.recv(65536)
            assert piece, self.received
            self.received += piece

    def end(self) -> bytes:
        """All that came until the server closed the connection."""
        with contextlib.closing(self._connection):
            while piece := self._connection.recv(65536):
                self.received += piece
        return self.received


def answer_to(port: int, path: str) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\n\r\n".encode())
        received = b""
        while b"\r\n\r\n" not in received and (piece := connection.recv(65536)):
            received += piece
        return received


def wait_for(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stopping(server: Server, port: int) -> bool:
    try:
        return answer_to(port, "/rpc/x").startswith(b"HTTP/1.1 503 ")
    except ConnectionError:
        return False  # it stopped just when we had come in, and closed what was idle


def test_a_stopping_server_ends_streams_finishes_requests_and_sends_new_ones_away(patient: Server) -> None:
    port = patient.port()
    patient.client().call("coordination/queueRun", {"workflowId": "waiting", "runId": "run-g"}, dict[str, Any])
    slow = Caller(patient, "state/getRuntimeState", BODY)
    stream = Caller(patient, "coordination/watchRun", json.dumps({"json": {"runId": "run-g"}}).encode())
    stream.go_on()
    stream.until(b"desk.started")

    patient.process.send_signal(signal.SIGTERM)
    ended = stream.end()
    last = ended.split(b"event: ")[-1]
    assert last.startswith(b"error\n")
    assert b"SERVICE_UNAVAILABLE" in last
    assert ended.endswith(b"0\r\n\r\n")  # complete, not cut off

    wait_for(lambda: stopping(patient, port))
    refused = answer_to(port, "/rpc/x").lower()
    assert b"\r\nconnection: close\r\n" in refused
    assert b"\r\nretry-after: 1\r\n" in refused
    assert answer_to(port, "/health").startswith(b"HTTP/1.1 200 ")
    assert patient.process.poll() is None

    slow.go_on()
    answer = slow.end()
    assert re.search(rb"HTTP/1\.1 200 ", answer)
    assert b'{"json":{"state":' in answer
    assert b"connection: close" in answer
    (patient.root / "go").touch()  # the desk is under way as well
    assert patient.process.wait(DEADLINE_S) == 0
    assert {line["status"] for line in patient.access_lines() if line["operation"] == "state/getRuntimeState"} == {200}


def test_no_desk_begins_while_a_stopping_server_waits_for_requests(patient: Server) -> None:
    patient.client().call("coordination/queueRun", {"workflowId": "waiting", "runId": "run-g"}, dict[str, Any])
    slow = Caller(patient, "state/getRuntimeState", BODY)
    port, calls, log = patient.port(), patient.root / "calls", patient.root / ".rawr" / "coordination.sqlite"
    wait_for(calls.exists)
    patient.process.send_signal(signal.SIGTERM)
    wait_for(lambda: stopping(patient, port))
    (patient.root / "go").touch()
    completed = "SELECT 1 FROM event WHERE type = 'desk.completed'"
    wait_for(lambda: look_into(log, completed))
    slow.go_on()
    assert b"HTTP/1.1 200 " in slow.end()
    assert patient.process.wait(DEADLINE_S) == 0
    assert calls.read_text() == "x"


def test_the_record_says_how_long_the_end_may_take(patient: Server) -> None:
    assert patient.ready().ends_within_s == DEADLINE_S + 10


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_the_server_at_once(patient: Server, number: signal.Signals) -> None:
    port = patient.port()
    slow = Caller(patient, "state/getRuntimeState", BODY)
    patient.process.send_signal(signal.SIGTERM)
    wait_for(lambda: stopping(patient, port))
    assert patient.process.poll() is None
    patient.process.send_signal(number)
    assert patient.process.wait(DEADLINE_S) == -number
    with contextlib.suppress(ConnectionResetError):
        assert b"200 OK" not in slow.end()
    assert patient.run_folder.running() is None


def test_a_request_that_never_ends_is_not_waited_for_longer_than_the_limit(impatient: Server) -> None:
    slow = Caller(impatient, "state/getRuntimeState", BODY)
    impatient.process.send_signal(signal.SIGTERM)
    assert impatient.process.wait(DEADLINE_S) == 0
    with contextlib.suppress(ConnectionResetError):
        assert b"200 OK" not in slow.end()
    assert "were not answered within 0.2 s" in impatient.log()


def test_a_connection_that_is_only_kept_open_does_not_delay_the_end(patient: Server) -> None:
    with socket.create_connection(("127.0.0.1", patient.port()), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"}"):
            received += connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 ")
        assert patient.stop() == 0
        assert connection.recv(65536) == b""


def test_the_access_log_goes_on_in_a_new_file_after_sighup(patient: Server) -> None:
    log = patient.root / ".rawr" / "logs" / "access.jsonl"
    patient.client().health()
    wait_for(lambda: "/health" in log.read_text())
    moved = log.rename(log.with_name("moved.jsonl"))
    patient.process.send_signal(signal.SIGHUP)
    wait_for(log.exists)
    before = moved.read_text()
    patient.client().ready()
    wait_for(lambda: "/ready" in log.read_text())
    assert "/ready" not in before
    assert patient.stop() == 0


def test_a_request_can_be_followed_from_its_answer_to_its_run_and_its_log(patient: Server) -> None:
    given = json.dumps({"json": {"workflowId": "doubling", "runId": "run-c", "input": {"number": 1}}}).encode()
    head = (
        f"POST /rpc/coordination/queueRun HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {patient.cli_key()}\r\n"
        f"x-request-id: req-7\r\nx-correlation-id: order-42\r\nContent-Length: {len(given)}\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", patient.port()), timeout=DEADLINE_S) as connection:
        connection.sendall(head.encode() + given)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b"x-request-id: req-7\r\n" in answer
    assert b"x-correlation-id: order-42\r\n" in answer
    wait_for(lambda: timeline(patient)[-1]["type"] == "run.completed")
    assert timeline(patient)[0]["detail"].endswith("(correlation order-42)")
    assert patient.stop() == 0
    followed = [line["family"] for line in patient.access_lines() if line["correlationId"] == "order-42"]
    assert (followed[0], set(followed[1:])) == ("rpc", {"ingress"})  # the request, then the calls of its run
    line = next(line for line in patient.access_lines() if line["requestId"] == "req-7")
    expected = {"correlationId": "order-42", "route": "/rpc/coordination/queueRun", "bytesIn": len(given)}
    assert expected.items() <= line.items()
    assert line["bytesOut"] == len(answer.partition(b"\r\n\r\n")[2])


def timeline(server: Server) -> list[dict[str, Any]]:
    answer = server.client().call("coordination/getRunTimeline", {"runId": "run-c"}, dict[str, Any])
    events: list[dict[str, Any]] = answer["timeline"]
    return events
