"""The examples of the runbook, as they stand there, in front of a real server: nginx and Caddy over TLS."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.host.server_process import DEADLINE_S, Server
from tests.host.test_tls import certificate

from rawr.clock import SystemClock
from rawr.host.settings import MIB, TlsFiles
from rawr.security.credentials import SecretsFolder, TokenStore
from rawr.security.policy import PrincipalKind
from rawr.security.sessions import LoginCodes

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbooks" / "reverse-proxy.md"
NAME = "hq.example.org"
ORIGIN = f"https://{NAME}"
CALLER, OTHER_CALLER = "127.0.0.2", "127.0.0.3"
JSON = {"content-type": "application/json"}

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


def example(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", RUNBOOK.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert old in text, f"the runbook does not say {old}"
        text = text.replace(old, new)
    return text


def nginx(folder: Path, port: int, rawr_port: int, files: TlsFiles) -> list[str]:
    """The command that runs the example; what is around it is what a distribution has in nginx.conf."""
    server = replaced(
        example("nginx"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/ssl/hq.example.org.pem", str(files.certificate)),
        ("/etc/ssl/private/hq.example.org.key", str(files.key)),
        ("127.0.0.1:3000", f"127.0.0.1:{rawr_port}"),
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    scratch = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    user = "user root;\n" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"{user}daemon off;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{scratch}{server}}}\n"
    )
    return ["nginx", "-p", str(folder), "-c", str(config), "-e", "stderr"]


def caddy(folder: Path, port: int, rawr_port: int, files: TlsFiles) -> list[str]:
    site = replaced(
        example("caddyfile"),
        (f"{NAME} {{\n", f"{NAME} {{\nbind 127.0.0.1\ntls {files.certificate} {files.key}\n"),
        ("127.0.0.1:3000", f"127.0.0.1:{rawr_port}"),
    )
    config = folder / "Caddyfile"
    general = f"admin off\nhttps_port {port}\nauto_https disable_redirects\n"
    config.write_text(f"{{\n{general}storage file_system {folder}/storage\n}}\n{site}")
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Proxied:
    """A server behind a proxy, and callers of it from several addresses."""

    def __init__(self, server: Server, port: int, files: TlsFiles) -> None:
        self.server = server
        self.port = port
        self._trust = ssl.create_default_context(cafile=str(files.certificate))
        self._trust.check_hostname = False  # it names hq.example

    def connection(self, caller: str = CALLER) -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE_S, source_address=(caller, 0))
        return self._trust.wrap_socket(plain, server_hostname=NAME)

    @contextlib.contextmanager
    def asked(
        self, method: str, path: str, body: bytes | None = None, *, caller: str = CALLER, **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(NAME)
        connection.sock = self.connection(caller)
        with contextlib.closing(connection):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"host": NAME, **given})
            yield connection.getresponse()

    def ask(self, method: str, path: str, body: bytes | None = None, *, caller: str = CALLER, **headers: str) -> Answer:
        with self.asked(method, path, body, caller=caller, **headers) as answer:
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def rpc(self, procedure: str, given: object) -> Answer:
        key = f"Bearer {self.server.cli_key()}"
        return self.ask("POST", f"/rpc/{procedure}", json.dumps({"json": given}).encode(), authorization=key, **CONTENT)

    def api_key(self, *scopes: str) -> str:
        tokens = TokenStore(self.server.root / ".rawr" / "secrets" / "tokens.json", SystemClock())
        return f"Bearer {tokens.create('proxied', scopes, principal=PrincipalKind.SERVICE).token}"

    def last_line(self, operation: str) -> dict[str, Any]:
        """What the access log says of the last call of it, once that is there."""

        def found() -> list[dict[str, Any]]:
            return [one for one in self.server.access_lines() if one["operation"] == operation]

        until(found)
        return found()[-1]


CONTENT = {"content_type": "application/json"}


def until(holds: Callable[[], Any]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def proxied(request: pytest.FixtureRequest, root: Path, tmp_path: Path) -> Iterator[Proxied]:
    made: Callable[[Path, int, int, TlsFiles], list[str]] = request.param
    if shutil.which(made.__name__) is None:
        pytest.skip(f"there is no {made.__name__} here")
    root.mkdir()
    server = Server(
        root, base_url=ORIGIN, trusted_hosts=[NAME], trusted_proxies=["127.0.0.1"], rates={"address_per_minute": 600}
    )
    files, port, folder = certificate(tmp_path), free_port(), tmp_path / "proxy"
    folder.mkdir()
    try:
        command = made(folder, port, server.port(), files)
        home = {**os.environ, "HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
        with (folder / "log").open("wb") as log:
            proxy = subprocess.Popen(command, stdout=log, stderr=log, env=home)
        try:
            until(lambda: is_listening(port, proxy, folder / "log"))
            yield Proxied(server, port, files)
        finally:
            proxy.terminate()
            proxy.wait(DEADLINE_S)
    finally:
        server.end()


def is_listening(port: int, proxy: subprocess.Popen[bytes], log: Path) -> bool:
    assert proxy.poll() is None, log.read_text()
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_every_family_is_reached_with_its_own_evidence(proxied: Proxied) -> None:
    assert proxied.ask("GET", "/health").json["ok"] is True
    assert proxied.rpc("state/getRuntimeState", {}).json["json"]["state"]["version"] == 1
    assert proxied.ask("POST", "/rpc/state/getRuntimeState", b'{"json":{}}', **CONTENT).status == 403
    key = proxied.api_key("orpc:*", "workflows:*")
    assert proxied.ask("GET", "/api/orpc/state/runtime", authorization=key).status == 200
    assert proxied.ask("GET", "/api/orpc/state/runtime").status == 401
    workflows = proxied.ask("GET", "/api/workflows/coordination/workflows", authorization=key).json
    assert "doubling" in json.dumps(workflows)
    queued = proxied.rpc("coordination/queueRun", {"workflowId": "doubling", "input": {"number": 2}}).json["json"]
    assert queued["run"]["traceLinks"][0]["url"].startswith(f"{ORIGIN}/")


def test_the_ingress_is_not_passed_on(proxied: Proxied) -> None:
    for path in ("/api/inngest", "/api/inngest?fnId=x", "/api/%69nngest", "//api/inngest", "/api/inngest/"):
        assert proxied.ask("POST", path, b"{}", **CONTENT).status == 404, path
    lines = proxied.server.access_lines()
    assert not [one for one in lines if one["family"] == "ingress" and one["address"]]  # the engine's have none


@pytest.mark.parametrize("forged", [{}, {"x_forwarded_for": "9.9.9.9"}, {"x_forwarded_for": "127.0.0.1, 10.0.0.1"}])
def test_the_caller_in_the_log_is_who_called_whatever_it_says(proxied: Proxied, forged: dict[str, str]) -> None:
    headers = {"authorization": proxied.api_key("orpc:*"), **forged}
    answer = proxied.ask("GET", "/api/orpc/state/runtime", None, caller=CALLER, **headers)
    assert answer.status == 200
    line = proxied.last_line("state/getRuntimeState")
    assert (line["address"], line["requestId"]) == (CALLER, answer.headers["x-request-id"])


def test_one_callers_failures_are_not_the_others(proxied: Proxied) -> None:
    def status(caller: str) -> int:
        return proxied.ask("GET", "/api/orpc/state/runtime", caller=caller, authorization="Bearer wrong").status

    until(lambda: status(CALLER) == 429)
    assert status(OTHER_CALLER) == 401


def test_a_person_signs_in_and_reads_pages_over_https(proxied: Proxied) -> None:
    secrets = SecretsFolder(proxied.server.root / ".rawr" / "secrets")
    code = json.dumps({"code": LoginCodes(secrets.login_codes_path(), SystemClock()).mint()}).encode()
    own = {"origin": ORIGIN, "sec_fetch_site": "same-origin"}
    foreign = {"origin": "https://evil.example", "sec_fetch_site": "cross-site"}
    assert proxied.ask("POST", "/console/login", code, **CONTENT, **foreign).status == 403
    answer = proxied.ask("POST", "/console/login", code, **CONTENT, **own)
    assert answer.status == 200
    cookie, _, how = answer.headers["set-cookie"].partition("; ")
    assert cookie.startswith("__Host-")
    assert "Secure" in how.split("; ")
    assert proxied.ask("GET", "/console/", cookie=cookie).status == 200
    assert proxied.ask("GET", "/console/").status == 303
    called = {"cookie": cookie, **own}
    assert proxied.ask("POST", "/rpc/coordination/listWorkflows", b'{"json":{}}', **CONTENT, **called).status == 200


def test_a_claim_that_it_came_in_the_clear_is_not_believed(proxied: Proxied) -> None:
    answer = proxied.ask("GET", "/health", origin=ORIGIN, x_forwarded_proto="http")
    assert answer.status == 200  # by http, it would be another origin than ours


def test_a_stream_comes_as_it_happens(proxied: Proxied) -> None:
    proxied.rpc("coordination/queueRun", {"workflowId": "waiting", "runId": "run-g"})
    body, key = b'{"json":{"runId":"run-g"}}', f"Bearer {proxied.server.cli_key()}"
    with proxied.asked("POST", "/rpc/coordination/watchRun", body, authorization=key, **CONTENT) as stream:
        assert stream.status == 200
        received = b""
        while b"desk.started" not in received:
            received += stream.read1()
        (proxied.server.root / "go").touch()  # nothing more comes before that
        received += stream.read()
    assert b"run.completed" in received
    assert b"event: done" in received


def test_a_body_that_is_too_large_is_refused(proxied: Proxied) -> None:
    key = {"authorization": f"Bearer {proxied.server.cli_key()}", **CONTENT}
    large = {"workflowId": "doubling", "runId": "run-large", "input": {"number": 2, "x": "x" * 4 * MIB}}
    with contextlib.suppress(OSError):  # it may also hang up before we have sent everything
        answer = proxied.ask("POST", "/rpc/coordination/queueRun", json.dumps({"json": large}).encode(), **key)
        assert answer.status in (413, 502)
    assert proxied.rpc("coordination/getRunStatus", {"runId": "run-large"}).status == 404


def test_no_request_is_smuggled_past_the_proxy(proxied: Proxied) -> None:
    hidden = b"GET /hidden HTTP/1.1\r\nHost: %b\r\n\r\n" % NAME.encode()
    begin = b"POST /rpc/x HTTP/1.1\r\nHost: %b\r\n" % NAME.encode()
    length = b"Content-Length: %d\r\n" % (len(hidden) + 5)
    for lengths in (
        length + b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\n" + length,
        b"Content-Length: 5\r\n" + length,
        b"Transfer-Encoding: xchunked\r\n" + length,
        b"Transfer-Encoding : chunked\r\n" + length,
    ):
        with proxied.connection() as connection, contextlib.suppress(ConnectionError, TimeoutError):
            connection.settimeout(1)  # a connection that is kept tells nothing more
            connection.sendall(begin + lengths + b"\r\n0\r\n\r\n" + hidden)
            while connection.recv(65536):
                pass
    proxied.ask("GET", "/health")
    until(lambda: [one for one in proxied.server.access_lines() if one["route"] == "/health"])
    assert not [one for one in proxied.server.access_lines() if "hidden" in json.dumps(one)]
