"""What an engine server does with apps, callers and requests that mean no good: a clear refusal, and work goes on."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from tests.engine_server.conftest import EVENT_KEY, OTHER_KEY, SIGNING_KEY, EngineServer, World, ask, wait_for

from rawr.instance.init import init_instance

SDK: Final = {"x-inngest-sdk": "inngest-js:v3.0.0", "x-inngest-req-version": "2"}
ULID: Final = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
Reply = tuple[int, dict[str, str], bytes]


class WildApp:
    """An app of no SDK at all: it answers what a test says, and keeps what it was asked."""

    def __init__(self) -> None:
        self.reply: Callable[[BaseHTTPRequestHandler], Reply] = lambda _: (200, dict(SDK), b'"fine"')
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self._http.server_address[1]}"

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                app.asked.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
                status, headers, body = app.reply(self)
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in {"content-length": str(len(body)), **headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Tests want no log."""

        return Handler


def registration(origin: str, app: str = "wild", **more: Any) -> dict[str, Any]:
    runtime = {"type": "http", "url": f"{origin}/api?fnId={app}-fn&stepId=step"}
    step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": 0}}
    function = {"id": f"{app}-fn", "name": "fn", "triggers": [{"event": f"{app}/go"}], "steps": {"step": step}, **more}
    return {"appName": app, "url": f"{origin}/api", "functions": [function], "sdk": "js:v3.0.0", "v": "0.1"}


@pytest.fixture(scope="module", params=["dev", "signed"])
def engine(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineServer]:
    world = World(tmp_path_factory.mktemp(request.param))
    made = world.engine(dev=request.param == "dev")
    made.start()
    yield made.ready()
    world.end()


def is_dev(engine: EngineServer) -> bool:
    return engine.event_key != EVENT_KEY


@pytest.fixture
def app(engine: EngineServer) -> Iterator[WildApp]:
    made = WildApp()
    answer = engine.ask("POST", "/fn/register", registration(made.origin))
    assert (answer.status, answer.json["ok"]) == (200, True), answer.body
    yield made
    made.stop()


def signature(body: bytes, key: str, *, age_s: int = 0) -> str:
    t = str(int(time.time()) - age_s)
    return f"t={t}&s={hmac.new(key.rpartition('-')[2].encode(), body + t.encode(), hashlib.sha256).hexdigest()}"


def signed(body: bytes, **headers: str) -> dict[str, str]:
    return {**SDK, "x-inngest-signature": signature(body, SIGNING_KEY), **headers}


def fixed(status: int, headers: dict[str, str], body: bytes) -> Callable[[BaseHTTPRequestHandler], Reply]:
    return lambda _: (status, headers, body)


BAD_TRIGGER: Final = {"event": "x", "expression": "1 +"}
DEEP: Final = b"[" * 3000 + b"]" * 3000
HUGE: Final = b'"' + b"x" * (25 * 1024 * 1024) + b'"'
LARGE: Final = b'"' + b"x" * (5 * 1024 * 1024) + b'"'


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, HUGE, "bytes"),
        (200, LARGE, "OutputTooLarge"),
        (200, b"\xff\x00 no json", "AnswerInvalid"),
        (200, DEEP, "AnswerInvalid"),
        (206, b'{"op":"StepRun"}', "AnswerInvalid"),
        (206, b'[{"op":7}]', "AnswerInvalid"),
        (206, b"[]", "NothingToDo"),
        (206, b'[{"id":"x","op":"AIGateway","opts":{}}]', "UnsupportedStep"),
        (206, b'[{"id":"x","op":"Sleep","name":"900y"}]', "SleepInvalid"),
        (201, b"   not an envelope", "error body"),
        (500, b"<html>oh no</html>", "status 500"),
        (500, b'{"error":"told so"}', "told so"),
        (400, b'"only text"', "only text"),
    ],
)
def test_an_answer_that_cannot_be_is_a_failed_run(
    engine: EngineServer, app: WildApp, status: int, body: bytes, told: str
) -> None:
    app.reply = fixed(status, signed(body), body)
    run = engine.ended(engine.send("wild/go"))
    assert run["status"] == "Failed"
    assert told in f"{run['error']['name']} {run['error']['message']}"


def test_a_redirect_is_not_followed(engine: EngineServer, app: WildApp) -> None:
    elsewhere = WildApp()
    app.reply = fixed(307, {"location": f"{elsewhere.origin}/api"}, b"")
    run = engine.ended(engine.send("wild/go"))
    elsewhere.stop()
    assert "not from the Inngest SDK" in run["error"]["message"]
    assert elsewhere.asked == []


def test_what_is_not_from_an_sdk_completes_nothing(engine: EngineServer, app: WildApp) -> None:
    app.reply = fixed(200, {}, b'"done"')
    assert engine.ended(engine.send("wild/go"))["status"] == "Failed"


def test_a_connection_that_breaks_is_a_failed_attempt(engine: EngineServer, app: WildApp) -> None:
    def hang_up(request: BaseHTTPRequestHandler) -> Reply:
        request.connection.shutdown(socket.SHUT_RDWR)
        return 200, {}, b""

    app.reply = hang_up
    assert "broke" in engine.ended(engine.send("wild/go"))["error"]["message"]


def test_an_app_that_never_answers_holds_up_nobody_and_its_run_can_be_cancelled(
    engine: EngineServer, app: WildApp
) -> None:
    silent = threading.Event()
    answers = iter([True])

    def first_is_silent(_: BaseHTTPRequestHandler) -> Reply:
        if next(answers, False):
            silent.wait(60)
        return 200, signed(b'"fine"'), b'"fine"'

    app.reply = first_is_silent
    slow = engine.send("wild/go")
    wait_for(lambda: app.asked, "it is called")
    assert engine.ended(engine.send("wild/go"))["output"] == "fine"
    [run] = engine.runs_of(slow)
    assert engine.ask("DELETE", f"/v1/runs/{run['run_id']}").status == 204
    silent.set()
    assert engine.ended(slow)["status"] == "Cancelled"


def test_an_answer_without_our_key_counts_only_in_dev(engine: EngineServer, app: WildApp) -> None:
    bodies = {
        "without a signature": {**SDK},
        "with another key": {**SDK, "x-inngest-signature": signature(b'"x"', OTHER_KEY)},
        "of another answer": {**SDK, "x-inngest-signature": signature(b'"y"', SIGNING_KEY)},
        "that is old": {**SDK, "x-inngest-signature": signature(b'"x"', SIGNING_KEY, age_s=900)},
        "that is to come": {**SDK, "x-inngest-signature": signature(b'"x"', SIGNING_KEY, age_s=-900)},
    }
    for name, headers in bodies.items():
        app.reply = fixed(200, headers, b'"x"')
        run = engine.ended(engine.send("wild/go"))
        assert (run["status"] == "Completed") == is_dev(engine), name


def test_a_streamed_answer_is_the_one_inside_and_that_one_is_signed(engine: EngineServer, app: WildApp) -> None:
    inner = b'{"n":1}'
    envelope = {"status": 200, "headers": signed(inner), "body": inner.decode()}
    app.reply = fixed(201, dict(SDK), b"    " + json.dumps(envelope).encode())
    assert engine.ended(engine.send("wild/go"))["output"] == {"n": 1}
    forged = {**envelope, "body": '{"n":2}'}
    app.reply = fixed(201, dict(SDK), json.dumps(forged).encode())
    assert (engine.ended(engine.send("wild/go"))["status"] == "Completed") == is_dev(engine)


def test_calls_are_signed_when_there_are_keys(engine: EngineServer, app: WildApp) -> None:
    app.reply = fixed(200, signed(b'"fine"'), b'"fine"')
    engine.ended(engine.send("wild/go"))
    _, path, headers = app.asked[-1]
    assert ("x-inngest-signature" in headers) != is_dev(engine)
    assert path == "/api?fnId=wild-fn&stepId=step"
    assert "authorization" not in headers


def test_a_wrong_key_opens_nothing(engine: EngineServer) -> None:
    if is_dev(engine):
        pytest.skip("nobody is asked for a key in dev mode")
    protected = [
        ("POST", "/fn/register"),
        ("GET", "/v1/events"),
        ("GET", f"/v1/events/{ULID}/runs"),
        ("GET", f"/v1/runs/{ULID}/steps"),
        ("DELETE", f"/v1/runs/{ULID}"),
        ("POST", "/v1/cancellations"),
        ("GET", f"/v0/runs/{ULID}/batch"),
        ("GET", f"/v0/runs/{ULID}/actions"),
        ("GET", "/v1/apps"),
    ]
    wrong = [{}, {"authorization": f"Bearer {OTHER_KEY}"}, {"authorization": f"Basic {SIGNING_KEY}"}]
    for method, path in protected:
        for headers in [*wrong, {"authorization": f"Bearer {SIGNING_KEY}x"}, {"authorization": f"Bearer {EVENT_KEY}"}]:
            answer = ask(engine.port, method, path, {}, headers=headers)
            assert (answer.status, answer.json["status"]) == (401, 401), (method, path)
    for key in ("", "wrong", EVENT_KEY + "x", SIGNING_KEY, "%61n-event-key"):
        assert ask(engine.port, "POST", f"/e/{key}", {"name": "a"}).status == 401
    assert ask(engine.port, "GET", "/dev").status == 404


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"url": "ftp://127.0.0.1/x"}, "http"),
        ({"url": "http://user:pw@127.0.0.1/x"}, "password"),
        ({"url": "http://[::1"}, "cannot be read"),
        ({"url": "http://127.0.0.1:99999/x"}, "cannot be read"),
        ({"url": "http://127.0.0.1/a b"}, "http"),
        ({"url": 7}, "url"),
        ({"appName": "../etc"}, "app id"),
        ({"appName": None}, "app id"),
        ({"functions": [7]}, "functions"),
        ({"functions": [{"id": "other-fn", "triggers": [], "steps": {"step": {}}}]}, "begin with the app"),
        ({"functions": [{"id": "wild-fn", "triggers": [], "steps": {}}]}, "steps"),
        ({"functions": [{"id": "wild-fn", "triggers": [], "steps": {"step": 5}}]}, "steps"),
        ({"functions": [{"id": "wild-fn", "triggers": [BAD_TRIGGER], "steps": {"step": {}}}]}, "trigger"),
        ({"functions": [{"id": "wild-fn", "triggers": [{"cron": "nope"}], "steps": {"step": {}}}]}, "cron"),
        ({"functions": [{"id": "wild-fn", "steps": {"step": {"retries": {"attempts": -4}}}}]}, "retries"),
        ({"functions": [{"id": f"wild-{n}", "steps": {"step": {}}} for n in range(1001)]}, "1001"),
        ({"functions": [{"id": "wild-a", "steps": {"step": {}}}] * 2}, "same id"),
    ],
)  # fmt: skip
def test_a_registration_that_cannot_be_is_refused_and_changes_nothing(
    engine: EngineServer, change: dict[str, Any], told: str
) -> None:
    before = engine.data("/v1/apps")
    answer = engine.ask("POST", "/fn/register", {**registration("http://127.0.0.1:1"), **change})
    assert (answer.status, answer.json["ok"]) == (400, False), answer.body
    assert told in answer.json["error"]
    assert engine.data("/v1/apps") == before


def test_only_apps_of_this_machine_are_called_in_dev(engine: EngineServer) -> None:
    for url in ("http://example.com/api", "http://169.254.169.254/latest", "http://127.0.0.1.example.com/"):
        answer = engine.ask("POST", "/fn/register", {**registration("http://x", app="far"), "url": url})
        assert (answer.status == 400) == is_dev(engine), url


def test_no_app_takes_the_function_of_another(engine: EngineServer, app: WildApp) -> None:
    first = registration("http://127.0.0.1:1", app="wild-x")
    assert engine.ask("POST", "/fn/register", first).status == 200
    other = registration(app.origin, app="wild")
    other["functions"][0]["id"] = "wild-x-fn"
    answer = engine.ask("POST", "/fn/register", other)
    assert (answer.status, answer.json["code"]) == (400, "ENGINE_FUNCTION_TAKEN")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/runs/x", 400),
        ("GET", "/v1/runs/..%2f..%2fetc", 400),
        ("GET", f"/v1/runs/{ULID}", 404),
        ("GET", f"/v1/runs/{ULID}/steps", 404),
        ("GET", f"/v1/runs/{ULID}/steps/x", 404),
        ("DELETE", f"/v1/runs/{ULID}", 404),
        ("GET", f"/v0/runs/{ULID}/batch", 404),
        ("GET", f"/v0/runs/{ULID}/actions", 404),
        ("GET", f"/v1/events/{ULID}", 404),
        ("GET", f"/v1/events/{ULID}/runs", 404),
        ("GET", "/v1/events?limit=x", 400),
        ("GET", "/v1/events?limit=999999999999", 400),
        ("GET", "/v1/events?limit=-1", 400),
        ("GET", "/v1/events?cursor=x", 400),
        ("GET", "/v1/events?received_after=yesterday", 400),
        ("GET", "/v1/events?received_after=2026-01-01", 400),
        ("GET", "/v1/events?name=a&name=b", 400),
        ("GET", "/v1/events?" + "&".join(f"a{n}=1" for n in range(50)), 400),
        ("GET", "/v1/events?name=' OR 1=1 --".replace(" ", "%20"), 200),
        ("GET", "/v1/events?limit=0", 200),
        ("PATCH", "/v1/events", 405),
        ("OPTIONS", "/e/any", 405),
        ("GET", "/e/any", 405),
        ("GET", "/", 404),
        ("GET", "/v2/runs", 404),
    ],
)
def test_a_question_that_cannot_be_answered_gets_inngests_form_of_error(
    engine: EngineServer, method: str, path: str, status: int
) -> None:
    answer = engine.ask(method, path)
    assert answer.status == status, answer.body
    if status != 200:
        assert answer.json["status"] == status
        assert isinstance(answer.json["error"], str)
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"7",
        b"null",
        DEEP,
        b'{"name":""}',
        b'{"name":"inngest/function.finished","data":{}}',
        b'{"name":7}',
        b'{"name":"a","data":[]}',
        b'{"name":"a","ts":1}',
        b'{"name":"a","ts":1e30}',
        b'{"name":"a","data":{"n":1e999}}',
        b'{"name":"\\ud800"}',
        json.dumps({"name": "a", "data": {"x": "y" * 600_000}}).encode(),
        json.dumps([{"name": "a"}] * 5001).encode(),
    ],
    ids=range(15),
)
def test_an_event_that_cannot_be_is_refused(engine: EngineServer, body: bytes) -> None:
    answer = engine.ask("POST", f"/e/{engine.event_key}", raw=body)
    assert answer.status == 400, answer.body
    assert answer.json["error"]


def test_events_before_a_bad_one_are_kept(engine: EngineServer) -> None:
    answer = engine.ask("POST", f"/e/{engine.event_key}", [{"name": "part/good"}, {"name": ""}, {"name": "part/late"}])
    assert (answer.status, len(answer.json["ids"])) == (400, 1)
    kept = engine.ask("GET", "/v1/events?name=part/good").json["data"]
    assert answer.json["ids"][0] in [event["internal_id"] for event in kept]
    assert engine.ask("GET", "/v1/events?name=part/late").json["data"] == []


def test_the_same_request_sent_again_is_the_same_events(engine: EngineServer, app: WildApp) -> None:
    app.reply = fixed(200, signed(b'"fine"'), b'"fine"')
    seed = {"x-inngest-event-id-seed": "1795411909788,AAECAwQFBgcICQ=="}
    sent = [ask(engine.port, "POST", f"/e/{engine.event_key}", [{"name": "wild/go"}] * 2, headers=seed) for _ in "ab"]
    assert sent[0].json["ids"] == sent[1].json["ids"]
    assert len(set(sent[0].json["ids"])) == 2
    for event in sent[0].json["ids"]:
        engine.ended(event)
        assert len(engine.runs_of(event)) == 1


def test_bodies_have_a_limit(engine: EngineServer) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=60) as raw:
        head = f"POST /e/{engine.event_key} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999999999\r\n\r\n"
        raw.sendall(head.encode())
        assert b" 413 " in raw.recv(4096)


def test_a_page_in_a_browser_can_do_nothing(engine: EngineServer) -> None:
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = ask(engine.port, "POST", f"/e/{engine.event_key}", {"name": "a"}, headers=headers)
        assert answer.status == 403
    assert ask(engine.port, "GET", "/health", headers={"host": "evil.example"}).status == 421


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ([], 400),
        ({"function_id": "no-such"}, 404),
        ({"function_id": "wild-fn", "if": "1 +"}, 400),
        ({"function_id": "wild-fn", "if": "e" * 5000}, 400),
        ({"function_id": "wild-fn", "started_before": "now"}, 400),
        ({"app_id": "wild", "function_id": "fn", "started_before": "2026-01-01T00:00:00Z"}, 201),
    ],
)
def test_a_cancellation_of_many_is_checked(engine: EngineServer, app: WildApp, body: Any, status: int) -> None:
    assert engine.ask("POST", "/v1/cancellations", body).status == status


def test_lists_come_in_pages_newest_first(engine: EngineServer) -> None:
    ids = engine.ask("POST", f"/e/{engine.event_key}", [{"name": "page/x"}] * 7).json["ids"]
    seen: list[str] = []
    path = "/v1/events?name=page/x&limit=3"
    while True:
        page = engine.ask("GET", path).json
        seen += [event["internal_id"] for event in page["data"]]
        if "next_cursor" not in page["metadata"]:
            break
        path = f"/v1/events?name=page/x&limit=3&cursor={page['metadata']['next_cursor']}"
    assert seen == sorted(ids, reverse=True)


def test_dev_mode_says_so_loudly_and_nothing_else_does(engine: EngineServer) -> None:
    health = ask(engine.port, "GET", "/health").json
    assert ("warning" in health, "DEV MODE" in engine.log) == (is_dev(engine), is_dev(engine))
    assert SIGNING_KEY not in engine.log
    assert EVENT_KEY not in engine.log


def test_dev_mode_and_keys_do_not_go_together(world: World, tmp_path: Path) -> None:
    refused = {
        ("--dev", "--host", "0.0.0.0"): "on this machine only",
        ("--dev", "--app", "http://example.com/"): "not on this machine",
        ("--dev", "--signing-key-file", "x"): "--dev looks at no key",
        ("--retention", "soon"): "is not a time",
    }
    for options, told in refused.items():
        engine = world.engine(*options, dev=False, name=f"refused{len(options)}")
        engine.start()
        assert engine.process is not None
        assert engine.process.wait(60) != 0
        assert told in engine.log


def test_keys_come_from_private_files(world: World, tmp_path: Path) -> None:
    keys, events = tmp_path / "signing", tmp_path / "events"
    keys.write_text(f"{OTHER_KEY}\n{SIGNING_KEY}\n")
    events.write_text("one\ntwo\n")
    options = ("--signing-key-file", str(keys), "--event-key-file", str(events))
    engine = world.engine(*options, dev=False, INNGEST_SIGNING_KEY="", INNGEST_EVENT_KEY="")
    keys.chmod(0o644)
    events.chmod(0o600)
    engine.start()
    assert engine.process is not None
    assert engine.process.wait(60) != 0
    assert "can be read or changed by other users" in engine.log
    keys.chmod(0o600)
    engine.start()
    engine.ready()
    for key in (SIGNING_KEY, OTHER_KEY):
        assert ask(engine.port, "GET", "/v1/apps", headers={"authorization": f"Bearer {key}"}).status == 200
    assert [ask(engine.port, "POST", f"/e/{key}", {"name": "a"}).status for key in ("one", "two", "three")] == [
        200,
        200,
        401,
    ]


def test_its_file_is_in_the_hq_around_it_else_with_the_users_data(world: World, tmp_path: Path) -> None:
    init_instance(tmp_path / "hq")
    places = [
        (("-I", str(tmp_path / "hq")), {}, tmp_path / "hq/.rawr/engine-server"),
        ((), {"XDG_DATA_HOME": str(tmp_path / "xdg")}, tmp_path / "xdg/rawr/engine"),
        ((), {"XDG_DATA_HOME": "relative"}, tmp_path / ".local/share/rawr/engine"),
    ]
    for number, (options, environ, folder) in enumerate(places):
        engine = world.engine(*options, dev=True, name=f"placed{number}", **environ)
        at = engine.arguments.index("--data")
        del engine.arguments[at : at + 2]
        engine.folder = tmp_path
        engine.start()
        engine.ready()
        assert (folder / "engine.sqlite").exists()
        assert folder.stat().st_mode & 0o077 == 0
        assert engine.stop() == 0


def test_a_taken_port_is_said(world: World, engine: EngineServer) -> None:
    second = world.engine(dev=True, name="late")
    second.arguments[second.arguments.index("--port") + 1] = str(engine.port)
    second.start()
    assert second.process is not None
    assert second.process.wait(60) != 0
    assert "is in use" in second.log
    assert "rawr engine serve --port" in second.log
