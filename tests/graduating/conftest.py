"""An Inngest server of our own to test against: plain HTTP on loopback, and nothing taken from `rawr`.

It does what a real one does with an app: takes a registration, takes events, and runs functions by signed calls
until they have ended. Retries come at once. It keeps nothing when it stops.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import itertools
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import pytest

EVENT_KEY: Final = "fake-event-key"
SIGNING_KEY: Final = "signkey-prod-" + "0a" * 32
OLD_KEY: Final = "signkey-prod-" + "0b" * 32
CALL_TIMEOUT_S: Final = 60
WAIT_S: Final = 60


def signature(body: bytes, key: str, *, offset_s: int = 0) -> str:
    """Over a body that is already in canonical form."""
    t = str(int(time.time()) + offset_s)
    secret = key.removeprefix("signkey-prod-").encode()
    return f"t={t}&s={hmac.new(secret, body + t.encode(), hashlib.sha256).hexdigest()}"


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


class Called:
    """The answer to a call into an app."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class FakeInngest:
    """One server and its one app. What went wrong in its own threads is in `faults`; look at it at the end."""

    def __init__(self) -> None:
        self.signing_key = SIGNING_KEY
        self.event_key = EVENT_KEY
        self.refuses: str | None = None
        self.registrations: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.events: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, str] = {}
        """Run ids with how they ended."""
        self.faults: list[str] = []
        self.calls = 0
        self._numbers = itertools.count(1)
        self._change = threading.Condition()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    # --- what apps ask of it

    def register(self, token: str, app: dict[str, Any]) -> tuple[int, Any]:
        self.tokens.append(token)
        if token != f"Bearer {hashlib.sha256(bytes.fromhex(self.signing_key.rpartition('-')[2])).hexdigest()}":
            return 401, {"ok": False, "error": "signing key unknown"}
        if self.refuses is not None:
            return 400, {"ok": False, "error": self.refuses}
        with self._change:
            self.registrations.append(app)
            self._change.notify_all()
        return 200, {"ok": True, "modified": True}

    def accept(self, key: str, given: Any) -> tuple[int, Any]:
        if key != self.event_key:
            return 401, {"error": "Event key not found", "status": 401}
        ids = [self._accept_one(event) for event in (given if isinstance(given, list) else [given])]
        return 200, {"ids": ids, "status": 200}

    def _accept_one(self, event: dict[str, Any]) -> str:
        number = next(self._numbers)
        internal_id = f"01FAKEEVENT{number:015d}"
        event_id = event.get("id") or internal_id
        if event_id in self.events:
            return internal_id  # within a day the same id starts nothing again
        self.events[event_id] = {"user": {}, **event, "id": event_id, "ts": 1_795_000_000_000 + number}
        for function in self._triggered_by(event):
            threading.Thread(target=self._run_safely, args=(function, self.events[event_id]), daemon=True).start()
        return internal_id

    def _triggered_by(self, event: dict[str, Any]) -> Iterator[dict[str, Any]]:
        of_function = f"event.data.function_id == '{event['data'].get('function_id')}'"
        for function in self.registrations[-1]["functions"] if self.registrations else ():
            for trigger in function["triggers"]:
                if trigger["event"] == event["name"] and trigger.get("expression", of_function) == of_function:
                    yield function

    # --- what it asks of apps

    def call(
        self, method: str, query: dict[str, str], body: bytes, *, key: str | None = None, offset_s: int = 0
    ) -> Called:
        """One signed call to where the app said that it is."""
        url = urlsplit(self.registrations[-1]["url"])
        connection = http.client.HTTPConnection(str(url.hostname), url.port, timeout=CALL_TIMEOUT_S)
        headers = {
            "content-type": "application/json",
            "x-inngest-signature": signature(body, key or self.signing_key, offset_s=offset_s),
        }
        with contextlib.closing(connection):
            connection.request(method, f"{url.path}?{urlencode(query)}", body=body, headers=headers)
            answer = connection.getresponse()
            return Called(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())

    def _run_safely(self, function: dict[str, Any], event: dict[str, Any]) -> None:
        run_id = f"01FAKERUN{next(self._numbers):017d}"
        try:
            outcome = _Execution(self, function, event, run_id).run()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.faults.append(f"{run_id}: {type(error).__name__}: {error}")
            outcome = "fault"
        with self._change:
            self.ended[run_id] = outcome
            self._change.notify_all()

    # --- what tests ask

    def wait_until(self, count: int, what: str) -> None:
        """Until there are `count` of `registrations` or `ended`."""
        with self._change:
            found = self._change.wait_for(lambda: len(getattr(self, what)) >= count, timeout=WAIT_S)
        assert found, (what, self.faults, self.tokens)


class _Execution:
    """One run of one function."""

    def __init__(self, server: FakeInngest, function: dict[str, Any], event: dict[str, Any], run_id: str) -> None:
        self._server = server
        self._function = function
        self._event = event
        self._run_id = run_id
        self._attempts_max = function["steps"]["step"]["retries"]["attempts"] + 1
        self._memos: dict[str, Any] = {}
        self._stack: list[str] = []
        self._plans_only = False

    def run(self) -> str:
        planned: dict[str, None] = {}
        while True:
            answer = self._settled("step")
            if answer.status == 200:
                return "completed"
            if answer.status != 206:
                self._tell_failure(answer.json)
                return "failed"
            found = answer.json
            self._plans_only = self._plans_only or len(found) > 1
            for op in found:
                if op["op"] == "StepPlanned":
                    planned.setdefault(op["id"])
                else:
                    self._remember(op)
            planned = {step: None for step in planned if step not in self._memos}
            if planned:
                [op] = self._settled(next(iter(planned))).json
                self._remember(op)

    def _settled(self, step_id: str) -> Called:
        """The answer that is not tried again."""
        for attempt in range(self._attempts_max):
            answer = self._call(step_id, attempt)
            if answer.status == 206 and not any(op["op"] == "StepError" for op in answer.json):
                return answer
            if answer.status == 200 or answer.headers.get("x-inngest-no-retry") == "true":
                return answer
        return answer

    def _call(self, step_id: str, attempt: int) -> Called:
        self._server.calls += 1
        ctx = {
            "attempt": attempt,
            "disable_immediate_execution": self._plans_only,
            "env": "",
            "fn_id": "00000000-0000-0000-0000-000000000000",
            "job_id": f"{self._run_id}-{step_id}",
            "max_attempts": self._attempts_max,
            "request_id": f"01REQ{self._server.calls:021d}",
            "run_id": self._run_id,
            "stack": {"current": len(self._stack), "stack": self._stack},
            "step_id": step_id,
            "use_api": False,
        }
        body = canonical(
            {
                "ctx": ctx,
                "event": self._event,
                "events": [self._event],
                "steps": self._memos,
                "use_api": False,
                "version": -1,
            }
        )
        answer = self._server.call("POST", {"fnId": self._function["id"], "stepId": step_id}, body)
        self._check_signed(answer)
        return answer

    def _check_signed(self, answer: Called) -> None:
        t, _, mac = answer.headers["x-inngest-signature"].removeprefix("t=").partition("&s=")
        secret = self._server.signing_key.removeprefix("signkey-prod-").encode()
        assert mac == hmac.new(secret, answer.body + t.encode(), hashlib.sha256).hexdigest(), "answer is not signed"

    def _remember(self, op: dict[str, Any]) -> None:
        match op["op"]:
            case "StepRun":
                self._memos[op["id"]] = {"data": op.get("data")}
            case "StepError" | "StepFailed":
                self._memos[op["id"]] = {"error": op["error"]}
            case other:
                raise AssertionError(f"the fake knows no {other}")
        self._stack.append(op["id"])

    def _tell_failure(self, error: dict[str, Any]) -> None:
        data = {
            "function_id": self._function["id"],
            "run_id": self._run_id,
            "event": self._event,
            "events": [self._event],
            "error": {"error": "invalid status code: 500", "name": error["name"], "message": error["message"]},
        }
        failed = {"name": "inngest/function.failed", "id": self._run_id, "data": data}
        self._server.accept(self._server.event_key, failed)


def _handler(server: FakeInngest) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            given = json.loads(self.rfile.read(int(self.headers["content-length"])))
            path = urlsplit(self.path).path
            if path == "/fn/register":
                self._answer(*server.register(self.headers.get("authorization", ""), given))
            elif path.startswith("/e/"):
                self._answer(*server.accept(path.removeprefix("/e/"), given))
            else:
                self._answer(404, {"error": "not found"})

        def do_GET(self) -> None:
            token = hashlib.sha256(bytes.fromhex(server.signing_key.rpartition("-")[2])).hexdigest()
            asks_api = urlsplit(self.path).path.startswith("/v1/")
            refused = asks_api and self.headers.get("authorization") != f"Bearer {token}"
            self._answer(401 if refused else 200, {"data": []})

        def _answer(self, status: int, value: Any) -> None:
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Tests want no log."""

    return Handler


@pytest.fixture
def inngest_server() -> Iterator[FakeInngest]:
    server = FakeInngest()
    yield server
    server.stop()
    assert server.faults == []
