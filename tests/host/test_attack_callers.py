"""Attacks on who one is, sent byte for byte to a server process: each is refused, and tells nothing.

One table. A row is a request by somebody who has some credential, or none, and wants what it does not open.
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from tests.host.server_process import Server

from rawr.clock import SystemClock
from rawr.execution.signing import sign
from rawr.security.credentials import SecretsFolder, TokenStore
from rawr.security.policy import CallerClass
from rawr.security.sessions import LoginCodes, Sessions

Pairs = list[tuple[str, str]]

LIST = "/rpc/coordination/listWorkflows"
ORPC = "/api/orpc/coordination/workflows"
WORKFLOWS = "/api/workflows/coordination/workflows"
INGRESS = "/api/inngest"
CONSOLE = "/console/"
GIVEN = b'{"json":{}}'
JSON = ("content-type", "application/json")
FORM = ("content-type", "application/x-www-form-urlencoded")
IN_BAND: Pairs = [JSON, ("x-inngest-sync-kind", "in_band")]
SYNC = b'{"url":"http://127.0.0.1/api/inngest"}'
CLAIMS: Pairs = [
    ("x-rawr-caller-surface", "first-party"),
    ("x-rawr-session-auth", "verified"),
    ("x-rawr-service-auth", "trusted"),
    ("x-rawr-cli-auth", "1"),
    ("x-forwarded-host", "localhost"),
    ("x-forwarded-for", "127.0.0.1"),
    ("forwarded", "for=127.0.0.1;host=localhost"),
    ("user-agent", "rawr-cli"),
]


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that opens something on the server, or once did."""

    origin: str
    port: int
    cli: str
    engine: str
    orpc: str
    narrow: str
    other: str
    worker: str
    state_worker: str
    revoked: str
    expired: str
    rotated: str
    session: str
    revoked_session: str
    used_code: str

    def all(self) -> list[str]:
        values = msgspec.structs.asdict(self)
        return [str(value) for name, value in values.items() if name not in ("origin", "port")]

    def cookie(self, secret: str | None = None) -> tuple[str, str]:
        return ("cookie", f"rawr_session_{self.port}={secret or self.session}")


class Row(NamedTuple):
    name: str
    method: str
    target: str
    headers: Callable[[Secrets], Pairs]
    status: int
    body: bytes | Callable[[Secrets], bytes] = b""


def bearer(secret: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {secret}")


def flipped(secret: str) -> str:
    return secret[:-1] + ("0" if secret[-1] != "0" else "1")


def signed(secrets: Secrets, *, key: str = "", offset_s: int = 0, body: bytes = b"{}") -> tuple[str, str]:
    now_s = SystemClock().now_ms() // 1000
    return ("x-inngest-signature", sign(body, key or secrets.engine, now_s + offset_s))


def batch_of(*headers: dict[str, str]) -> bytes:
    return json.dumps(
        [{"url": f"http://x{LIST}", "headers": given, "body": {"json": {}}} for given in headers]
    ).encode()


ROWS = [
    # On /rpc, with claims and with what is no evidence.
    Row("nothing", "POST", LIST, lambda _: [JSON], 403, GIVEN),
    Row("the flags that the original believed", "POST", LIST, lambda _: [JSON, *CLAIMS], 403, GIVEN),
    Row("claims from our own origin", "POST", LIST, lambda s: [JSON, *CLAIMS, ("origin", s.origin)], 403, GIVEN),
    Row("a wrong key with claims", "POST", LIST, lambda _: [JSON, *CLAIMS, bearer("verified")], 403, GIVEN),
    Row("a key with one wrong digit", "POST", LIST, lambda s: [JSON, bearer(flipped(s.cli))], 403, GIVEN),
    Row("half a key", "POST", LIST, lambda s: [JSON, bearer(s.cli[:32])], 403, GIVEN),
    Row("a key of 60 KB", "POST", LIST, lambda s: [JSON, bearer(s.cli * 900)], 403, GIVEN),
    Row("a key that is no text", "POST", LIST, lambda _: [JSON, bearer("\xff\xfe\xa0")], 403, GIVEN),
    Row("the key twice", "POST", LIST, lambda s: [JSON, bearer(s.cli), bearer(s.cli)], 403, GIVEN),
    Row("the key and a wrong one", "POST", LIST, lambda s: [JSON, bearer(s.cli), bearer("x")], 403, GIVEN),
    Row(
        "the key as a password",
        "POST",
        LIST,
        lambda s: [JSON, ("authorization", "Basic " + base64.b64encode(f"cli:{s.cli}".encode()).decode())],
        403,
        GIVEN,
    ),
    Row("the key in another header", "POST", LIST, lambda s: [JSON, ("x-api-key", s.cli)], 403, GIVEN),
    Row("the key in a cookie", "POST", LIST, lambda s: [JSON, s.cookie(s.cli), ("origin", s.origin)], 403, GIVEN),
    Row("the key, labelled external", "POST", LIST, lambda s: [JSON, bearer(s.cli), _label("external")], 403, GIVEN),
    Row(
        "the key, labelled ingress",
        "POST",
        LIST,
        lambda s: [JSON, bearer(s.cli), _label("runtime-ingress")],
        403,
        GIVEN,
    ),
    Row(
        "the key, labelled twice",
        "POST",
        LIST,
        lambda s: [JSON, bearer(s.cli), _label("cli"), _label("cli")],
        403,
        GIVEN,
    ),
    Row("an API key", "POST", LIST, lambda s: [JSON, bearer(s.orpc)], 403, GIVEN),
    Row("an API key, labelled cli", "POST", LIST, lambda s: [JSON, bearer(s.orpc), *CLAIMS], 403, GIVEN),
    Row("the engine's key", "POST", LIST, lambda s: [JSON, bearer(s.engine)], 403, GIVEN),
    Row("the engine's signature", "POST", LIST, lambda s: [JSON, signed(s)], 403, b"{}"),
    Row("a service of another namespace", "POST", LIST, lambda s: [JSON, bearer(s.state_worker)], 403, GIVEN),
    Row(
        "a batch whose calls have the key",
        "POST",
        "/rpc/__batch__",
        lambda s: [JSON, ("x-orpc-batch", "buffered"), bearer(s.orpc)],
        403,
        lambda s: batch_of({"authorization": f"Bearer {s.cli}"}),
    ),
    # With a session that a browser brings along.
    Row("a session and no page", "POST", LIST, lambda s: [JSON, s.cookie()], 403, GIVEN),
    Row(
        "a session, another site",
        "POST",
        LIST,
        lambda s: [JSON, s.cookie(), ("origin", "http://evil.example")],
        403,
        GIVEN,
    ),
    Row(
        "a session, another port",
        "POST",
        LIST,
        lambda s: [JSON, s.cookie(), ("origin", "http://127.0.0.1:5173")],
        403,
        GIVEN,
    ),
    Row("a session, a sandboxed page", "POST", LIST, lambda s: [JSON, s.cookie(), ("origin", "null")], 403, GIVEN),
    Row(
        "a session, same site", "POST", LIST, lambda s: [JSON, s.cookie(), ("sec-fetch-site", "same-site")], 403, GIVEN
    ),
    Row(
        "a session, no-cors is no origin",
        "POST",
        LIST,
        lambda s: [JSON, s.cookie(), ("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")],
        403,
        GIVEN,
    ),
    Row("a session and a form", "POST", LIST, lambda s: [FORM, s.cookie(), ("origin", s.origin)], 415, b"json=%7B%7D"),
    Row(
        "a session and a text",
        "POST",
        LIST,
        lambda s: [("content-type", "text/plain"), s.cookie(), ("origin", s.origin)],
        415,
        GIVEN,
    ),
    Row(
        "a link that makes a batch",
        "GET",
        "/rpc/__batch__?batch=%5B%5D",
        lambda s: [("x-orpc-batch", "buffered"), s.cookie(), ("sec-fetch-site", "none")],
        403,
    ),
    Row(
        "a session of another port",
        "POST",
        LIST,
        lambda s: [JSON, ("cookie", f"rawr_session_1={s.session}"), ("origin", s.origin)],
        403,
        GIVEN,
    ),
    Row(
        "a session and a wrong key",
        "POST",
        LIST,
        lambda s: [JSON, s.cookie(), ("origin", s.origin), bearer("x")],
        403,
        GIVEN,
    ),
    Row(
        "a session that was revoked",
        "POST",
        LIST,
        lambda s: [JSON, s.cookie(s.revoked_session), ("origin", s.origin)],
        403,
        GIVEN,
    ),
    Row("a session of the API", "GET", ORPC, lambda s: [s.cookie(), ("origin", s.origin)], 401),
    # On the published families.
    Row("no key", "GET", ORPC, lambda _: CLAIMS, 401),
    Row("no key for the document", "GET", "/api/orpc/openapi.json", lambda _: CLAIMS, 401),
    Row("the CLI's key for the API", "GET", ORPC, lambda s: [bearer(s.cli)], 401),
    Row("a service key for the API", "GET", ORPC, lambda s: [bearer(s.worker)], 401),
    Row("a key in the query", "GET", "/api/orpc/coordination/workflows?access_token=x", lambda _: [], 401),
    Row("a key without the scope", "GET", ORPC, lambda s: [bearer(s.narrow)], 403),
    Row("a key of the other family", "GET", WORKFLOWS, lambda s: [bearer(s.orpc)], 403),
    Row("the id of one key, the secret of another", "GET", ORPC, lambda s: [bearer(s.orpc[:18] + s.other[18:])], 401),
    Row("a revoked key", "GET", ORPC, lambda s: [bearer(s.revoked)], 401),
    Row("an expired key", "GET", ORPC, lambda s: [bearer(s.expired)], 401),
    Row("a key that was rotated away", "GET", ORPC, lambda s: [bearer(s.rotated)], 401),
    # At the ingress.
    Row("an unsigned call", "POST", INGRESS, lambda _: [JSON, *CLAIMS], 403, b"{}"),
    Row("an API key at the ingress", "POST", INGRESS, lambda s: [JSON, bearer(s.orpc)], 403, b"{}"),
    Row("the CLI's key at the ingress", "POST", INGRESS, lambda s: [JSON, bearer(s.cli)], 403, b"{}"),
    Row("a session at the ingress", "POST", INGRESS, lambda s: [JSON, s.cookie(), ("origin", s.origin)], 403, b"{}"),
    Row("a signature of another key", "POST", INGRESS, lambda s: [JSON, signed(s, key="0" * 64)], 403, b"{}"),
    Row("an old signature", "POST", INGRESS, lambda s: [JSON, signed(s, offset_s=-600)], 403, b"{}"),
    Row("a signature of another body", "POST", INGRESS, lambda s: [JSON, signed(s)], 403, b'{"a":1}'),
    # At the console.
    Row("a page without a session", "GET", CONSOLE, lambda _: CLAIMS, 303),
    Row("a page with a guessed session", "GET", CONSOLE, lambda s: [s.cookie("a" * 43)], 303),
    Row("a page with a revoked session", "GET", CONSOLE, lambda s: [s.cookie(s.revoked_session)], 303),
    Row("a page with the CLI's key", "GET", CONSOLE, lambda s: [bearer(s.cli)], 303),
    Row("a page with an API key", "GET", CONSOLE, lambda s: [bearer(s.orpc)], 303),
    Row(
        "a link that was used",
        "POST",
        "/console/login",
        lambda s: [JSON, ("origin", s.origin)],
        401,
        lambda s: _code(s.used_code),
    ),
    Row(
        "a guessed link",
        "POST",
        "/console/login",
        lambda s: [JSON, ("origin", s.origin)],
        401,
        lambda _: _code("b" * 43),
    ),
    Row(
        "a login by another site",
        "POST",
        "/console/login",
        lambda _: [JSON, ("origin", "http://evil.example")],
        403,
        lambda s: _code(s.used_code),
    ),
    Row(
        "a login by a form",
        "POST",
        "/console/login",
        lambda s: [FORM, ("origin", s.origin)],
        415,
        lambda s: _code(s.used_code),
    ),
]


def _label(text: str) -> tuple[str, str]:
    return ("x-rawr-caller-surface", text)


def _code(code: str) -> bytes:
    return json.dumps({"code": code}).encode()


class Target:
    """The server under attack, what would open it, and all that it ever said."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.address = server.ready().url.removeprefix("http://")
        self.said: list[str] = []
        self.secrets = self._made()

    def ask(self, method: str, target: str, headers: Pairs, body: bytes = b"") -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.putrequest(method, target)
        for name, value in headers:
            connection.putheader(name, value.encode("latin-1"))
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        connection.close()
        self.said.append(f"{answer.getheaders()}\n{text}")
        return answer

    def log_in(self) -> tuple[str, str]:
        """A session, and the code that was used for it."""
        code = LoginCodes(self.folder.login_codes_path(), SystemClock()).mint()
        answer = self.ask("POST", "/console/login", [JSON], _code(code))
        assert answer.status == 200
        said = self.said.pop()  # the one answer that has a secret in it, for who is to have it
        return said.partition("rawr_session_")[2].partition("=")[2].partition(";")[0], code

    @property
    def folder(self) -> SecretsFolder:
        return SecretsFolder(self.server.root / ".rawr" / "secrets")

    def _made(self) -> Secrets:
        clock = SystemClock()
        tokens = TokenStore(self.folder.tokens_path(), clock)
        orpc, other = tokens.create("orpc", ["orpc:*"]), tokens.create("other", ["orpc:*"])
        revoked, rotated = tokens.create("revoked", ["orpc:*"]), tokens.create("rotated", ["orpc:*"])
        tokens.revoke(revoked.record.token_id)
        tokens.rotate(rotated.record.token_id, overlap_ms=0)
        gone, _ = self.log_in()
        Sessions(self.folder.sessions_path(), clock).end_all()
        session, used_code = self.log_in()
        return Secrets(
            origin=f"http://{self.address}",
            port=int(self.address.rpartition(":")[2]),
            cli=self.folder.cli_key(),
            engine=self.folder.engine_key(),
            orpc=orpc.token,
            other=other.token,
            narrow=tokens.create("narrow", ["orpc:state"]).token,
            worker=tokens.create("worker", ["rpc:*"], caller_class=CallerClass.TRUSTED_SERVICE).token,
            state_worker=tokens.create("state", ["rpc:state"], caller_class=CallerClass.INTERNAL).token,
            revoked=revoked.token,
            expired=tokens.create("expired", ["orpc:*"], expires_at_ms=clock.now_ms() - 1).token,
            rotated=rotated.token,
            session=session,
            revoked_session=gone,
            used_code=used_code,
        )


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    root: Path = tmp_path_factory.mktemp("attacked") / "instance"
    root.mkdir()
    server = Server(root)
    yield Target(server)
    server.end()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_an_attack_is_refused_and_tells_nothing(target: Target, row: Row) -> None:
    body = row.body if isinstance(row.body, bytes) else row.body(target.secrets)
    answer = target.ask(row.method, row.target, row.headers(target.secrets), body)
    assert answer.status == row.status
    assert answer.getheader("set-cookie") is None
    for secret in target.secrets.all():
        assert secret not in target.said[-1]
        assert secret not in target.server.log()
    assert str(target.server.root) not in target.said[-1]
    assert "Traceback" not in target.said[-1]


@pytest.mark.parametrize(
    "row",
    [
        Row("the CLI's key", "POST", LIST, lambda s: [JSON, bearer(s.cli), _label("cli")], 200, GIVEN),
        Row("a service key", "POST", LIST, lambda s: [JSON, bearer(s.worker)], 200, GIVEN),
        Row("a session on our page", "POST", LIST, lambda s: [JSON, s.cookie(), ("origin", s.origin)], 200, GIVEN),
        Row("a session in the console", "GET", CONSOLE, lambda s: [s.cookie()], 200),
        Row("an API key", "GET", ORPC, lambda s: [bearer(s.orpc)], 200),
        Row("a signed call", "PUT", INGRESS, lambda s: [*IN_BAND, signed(s, body=SYNC)], 200, SYNC),
    ],
    ids=lambda row: row.name,
)
def test_who_has_the_right_credential_is_let_in(target: Target, row: Row) -> None:
    """So that no row above is refused for another reason than its own."""
    assert isinstance(row.body, bytes)
    answer = target.ask(row.method, row.target, row.headers(target.secrets), row.body)
    assert answer.status == row.status


def test_the_same_signature_opens_the_ingress_once(target: Target) -> None:
    headers = [*IN_BAND, signed(target.secrets, offset_s=-7, body=SYNC)]
    assert [target.ask("PUT", INGRESS, headers, SYNC).status for _ in range(2)] == [200, 403]


def test_a_key_file_that_others_may_read_shuts_rpc_until_it_is_private_again(target: Target) -> None:
    path = target.folder.cli_key_path()
    call = [JSON, bearer(target.secrets.cli)]
    path.chmod(0o644)
    try:
        assert target.ask("POST", LIST, call, GIVEN).status == 503
        assert str(path) not in target.said[-1]
    finally:
        path.chmod(0o600)
    assert target.ask("POST", LIST, call, GIVEN).status == 200


def test_a_killed_server_leaves_no_session_to_the_next(server: Server) -> None:
    before = Target(server)
    assert before.ask("GET", CONSOLE, [before.secrets.cookie()]).status == 200
    server.end()
    again = Server(server.root, before.secrets.port)
    try:
        again.ready()
        assert before.ask("GET", CONSOLE, [before.secrets.cookie()]).status == 303
        assert before.ask("GET", ORPC, [bearer(before.secrets.orpc)]).status == 200
    finally:
        again.end()
