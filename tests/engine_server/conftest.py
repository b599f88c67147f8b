"""An engine server and apps of the official SDK, each in a process of its own, as tests start, ask and kill them."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import pytest

PROGRAM: Final = Path(__file__).with_name("app_program.py")
SIGNING_KEY: Final = "signkey-test-" + "0a" * 32
OTHER_KEY: Final = "signkey-test-" + "0b" * 32
EVENT_KEY: Final = "an-event-key"
DEADLINE_S: Final = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(found: Callable[[], Any], what: str, *, within_s: float = DEADLINE_S) -> Any:
    """What `found` gives, once that is something."""
    deadline = time.monotonic() + within_s
    while not (value := found()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)
    return value


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: dict[str, str] | None = None,
    raw: bytes | None = None,
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    content = raw if raw is not None else None if body is None else json.dumps(body).encode()
    with contextlib.closing(connection):
        connection.request(method, path, body=content, headers=headers or {})
        answer = connection.getresponse()
        given = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(status=answer.status, headers=given, body=answer.read())


def clean_environ(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("INNGEST_", "RAWR_"))} | more


class Program:
    """A process that is started and killed again and again."""

    def __init__(self, root: Path, name: str, environ: dict[str, str]) -> None:
        self.log_path = root / f"{name}.log"
        self.environ = environ
        self.arguments: list[str] = []
        self.folder: Path | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        # A file, not a pipe: nobody reads while a test works, and a full pipe would stop the process.
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(self.arguments, stdout=log, stderr=log, env=self.environ, cwd=self.folder)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class EngineServer(Program):
    def __init__(self, root: Path, *options: str, dev: bool, name: str = "engine", **environ: str) -> None:
        super().__init__(root, name, clean_environ(HOME=str(root), **environ))
        self.port = free_port()
        mode = ["--dev"] if dev else []
        self.arguments = [
            *(sys.executable, "-m", "rawr", "engine", "serve", *mode, "--port", str(self.port)),
            *("--data", str(root / "data"), "--retry-interval", "1s", *options),
        ]
        self.url = f"http://127.0.0.1:{self.port}"
        self.event_key = environ.get("INNGEST_EVENT_KEY", "any")
        self.token = environ.get("INNGEST_SIGNING_KEY", "none")

    def ready(self) -> EngineServer:
        wait_for(self._answers, f"the server is up: {self.log_path}")
        return self

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        return ask(self.port, method, path, body, headers={"authorization": f"Bearer {self.token}"}, **more)

    def data(self, path: str) -> Any:
        answer = self.ask("GET", path)
        assert answer.status == 200, (path, answer.status, answer.body)
        return answer.json["data"]

    def send(self, name: str, **data: Any) -> str:
        """The id of the event. Sent again until it is accepted, always as the same one."""
        seed = f"{time.time_ns() // 1_000_000},{base64.b64encode(os.urandom(10)).decode()}"

        def accepted() -> Any:
            try:
                answer = ask(
                    self.port,
                    "POST",
                    f"/e/{self.event_key}",
                    {"name": name, "data": data},
                    headers={"x-inngest-event-id-seed": seed},
                )
            except (OSError, http.client.HTTPException):
                return None
            assert answer.status == 200, answer.body
            return answer.json["ids"]

        return str(wait_for(accepted, f"{name} is accepted")[0])

    def runs_of(self, event: str) -> list[Any]:
        found: list[Any] = self.data(f"/v1/events/{event}/runs")
        return found

    def ended(self, event: str, *, within_s: float = DEADLINE_S) -> Any:
        """The only run of the event, when it has ended."""

        def found() -> Any:
            runs = self.runs_of(event)
            return runs if runs and runs[0]["ended_at"] is not None else None

        [run] = wait_for(found, f"the run of {event} ends", within_s=within_s)
        return run

    def functions(self) -> set[str]:
        return {one["id"] for app in self.data("/v1/apps") for one in app["functions"]}

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return ask(self.port, "GET", "/health").status == 200
        except (OSError, http.client.HTTPException):
            return False


class SdkApp(Program):
    def __init__(self, root: Path, app: str, *, dev: bool, **environ: str) -> None:
        super().__init__(root, app, clean_environ(HOME=str(root), **environ))
        self.app = app
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api/inngest"
        self.steps_path = root / f"{app}.steps"
        self._config_path = root / f"{app}.json"
        self._base = {"app": app, "dev": dev, "port": self.port, "log": str(self.steps_path)}
        self.configure()
        self.arguments = [sys.executable, str(PROGRAM), str(self._config_path)]

    def configure(self, **config: Any) -> None:
        """How it is from its next start on."""
        self._config_path.write_text(json.dumps({**self._base, **config}))

    @property
    def steps(self) -> list[list[str]]:
        if not self.steps_path.exists():
            return []
        return [line.split() for line in self.steps_path.read_text().splitlines()]


P = TypeVar("P", bound=Program)


class World:
    """What a test has started; all of it ends with the test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._programs: list[Program] = []

    def engine(self, *options: str, dev: bool, name: str = "engine", **environ: str) -> EngineServer:
        keys = {} if dev else {"INNGEST_SIGNING_KEY": SIGNING_KEY, "INNGEST_EVENT_KEY": EVENT_KEY}
        return self.kept(EngineServer(self.root, *options, dev=dev, name=name, **{**keys, **environ}))

    def app(self, name: str, engine_url: str, *, dev: bool, **environ: str) -> SdkApp:
        if dev:
            given = {"INNGEST_DEV": engine_url}
        else:
            given = {
                "INNGEST_BASE_URL": engine_url,
                "INNGEST_SIGNING_KEY": SIGNING_KEY,
                "INNGEST_EVENT_KEY": EVENT_KEY,
            }
        return self.kept(SdkApp(self.root, name, dev=dev, **{**given, **environ}))

    def kept(self, program: P) -> P:
        """The program, which ends with the test."""
        self._programs.append(program)
        return program

    def end(self) -> None:
        for program in self._programs:
            program.end()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.end()
