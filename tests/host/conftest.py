"""A raw ASGI caller, with no client library between a test and what the app sees; and the app to call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from tests.host.access_lines import into
from tests.host.server_process import Server

from rawr.clock import RunIdSource
from rawr.coordination.model import Run
from rawr.coordination.service import CoordinationService
from rawr.errors import StorageError
from rawr.execution.ports import IngressRequest, IngressResponse
from rawr.execution.signing import mac, sign
from rawr.host.app import AppParts, build_app
from rawr.host.authority import Authority
from rawr.host.console import ConsoleParts
from rawr.host.dispatch import FamilyDeps
from rawr.host.request import AsgiApp, Message, Request, Scope
from rawr.host.settings import MIB, HostSettings, Limits, Rates
from rawr.host.streams import OpenStreams
from rawr.hq import Manifest, WebMount
from rawr.ids import EventId, InstanceId, PluginId
from rawr.procedures.catalog import PROCEDURES, STREAMS
from rawr.procedures.context import Context
from rawr.procedures.contract import Capability
from rawr.procedures.coordination import COORDINATION_PROCEDURES
from rawr.security.credentials import SecretsFolder, TokenStore
from rawr.security.keyring import Keyring
from rawr.security.policy import Caller, Decision
from rawr.security.rates import Rate
from rawr.security.sessions import LoginCodes
from rawr.state.model import PluginState, RepoState
from rawr.testing.clock import FakeClock
from rawr.testing.stores import MemoryCoordinationStore

BASE_URL = "http://localhost:3901"
ENGINE_KEY = "0123456789abcdef" * 4

RATES = Rates(key_per_minute=6000, address_per_minute=60_000, tracked=100)

HeaderPairs = list[tuple[str, str]]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: dict[str, str]
    body: bytes
    chunks_taken: int
    """How many pieces of the request body the app asked for."""

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def content_type(self) -> str | None:
        return self.headers.get("content-type")


def _ask(
    app: AsgiApp,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | HeaderPairs | None = None,
    body: bytes | Iterable[bytes] = b"",
    host: str | None = "127.0.0.1:3000",
    scheme: str = "http",
) -> Answer:
    return asyncio.run(
        asyncio.wait_for(_ask_async(app, method, target, headers=headers, body=body, host=host, scheme=scheme), 10)
    )


async def _ask_async(
    app: AsgiApp,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | HeaderPairs | None = None,
    body: bytes | Iterable[bytes] = b"",
    host: str | None = "127.0.0.1:3000",
    scheme: str = "http",
) -> Answer:
    chunks = _Chunks([body] if isinstance(body, bytes) else body)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**_scope(method, target, headers, host), "scheme": scheme}, chunks.receive, send)
    start, *pieces = sent
    assert start["type"] == "http.response.start"
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    return Answer(
        status=start["status"],
        headers={name.decode(): value.decode() for name, value in start["headers"]},
        body=b"".join(piece["body"] for piece in pieces),
        chunks_taken=chunks.taken,
    )


def _scope(method: str, target: str, headers: Mapping[str, str] | HeaderPairs | None, host: str | None) -> Scope:
    pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
    if host is not None:
        pairs.insert(0, ("host", host))
    path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("latin-1"),
        "query_string": query.encode("latin-1"),
        "headers": [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in pairs],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 3000),
    }


class _Chunks:
    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._left = iter(chunks)
        self._has_ended = False
        self.taken = 0

    async def receive(self) -> Message:
        if self._has_ended:
            # The caller stays on the line and says nothing more.
            await asyncio.get_running_loop().create_future()
        self.taken += 1
        chunk = next(self._left, None)
        if chunk is None:
            self._has_ended = True
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": chunk, "more_body": True}


class Live:
    """A request whose answer is read while it comes, and whose caller may hang up."""

    def __init__(
        self, app: AsgiApp, method: str, target: str, *, headers: Mapping[str, str], body: bytes = b""
    ) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.received = b""
        self._body = [body]
        self._hung_up = asyncio.Event()
        self._news = asyncio.Condition()
        self._task = asyncio.ensure_future(
            app(_scope(method, target, headers, "127.0.0.1:3000"), self._receive, self._send)
        )

    async def until(self, text: str, *, times: int = 1) -> None:
        """Wait until `text` has come so many times."""
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: self.received.count(text.encode()) >= times)

    async def ended(self) -> str:
        """Wait for the end of the answer; all of it."""
        await asyncio.wait_for(self._task, 10)
        return self.received.decode()

    async def hang_up(self) -> None:
        self._hung_up.set()
        await asyncio.wait_for(self._task, 10)

    async def _receive(self) -> Message:
        if self._body:
            return {"type": "http.request", "body": self._body.pop(), "more_body": False}
        await self._hung_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        async with self._news:
            self.received += message["body"]
            self._news.notify_all()


class Ask(Protocol):
    """One request, answered within ten seconds. `headers` as pairs may repeat a name."""

    def __call__(
        self,
        app: AsgiApp,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | HeaderPairs | None = None,
        body: bytes | Iterable[bytes] = b"",
        host: str | None = "127.0.0.1:3000",
        scheme: str = "http",
    ) -> Answer: ...


class AskAsync(Protocol):
    """The same from within an event loop, and without the ten seconds."""

    async def __call__(
        self,
        app: AsgiApp,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | HeaderPairs | None = None,
        body: bytes | Iterable[bytes] = b"",
        host: str | None = "127.0.0.1:3000",
        scheme: str = "http",
    ) -> Answer: ...


class FakeIngress:
    """Durable functions that answer every verified call with 206, and remember it."""

    def __init__(self) -> None:
        self.requests: list[IngressRequest] = []

    async def handle(self, request: IngressRequest) -> IngressResponse:
        self.requests.append(request)
        headers = {"Content-Type": "application/json", "X-Inngest-SDK": "inngest-py:test", "Content-Length": "999"}
        return IngressResponse(status=206, headers=headers, body=b"[]")

    async def close(self) -> None:
        """There is nothing to close."""


class FakeDispatcher:
    """An engine that accepts every run, until it is told to refuse."""

    def __init__(self) -> None:
        self.run_ids: list[str] = []
        self.refuses = False

    async def dispatch(self, run: Run) -> list[EventId]:
        if self.refuses:
            raise StorageError("disk full")
        self.run_ids.append(run.run_id)
        return [EventId(f"evt-{len(self.run_ids)}")]

    async def withdraw(self, run: Run, reason: str) -> None:
        self.run_ids.remove(run.run_id)


class FakeState:
    def __init__(self) -> None:
        self.enabled: tuple[PluginId, ...] = ()
        self.error: Exception | None = None

    def enable(self, *plugin_ids: str) -> None:
        """Make exactly these the enabled ones."""
        self.enabled = tuple(PluginId(plugin_id) for plugin_id in plugin_ids)

    async def get(self) -> RepoState:
        if self.error is not None:
            raise self.error
        plugins = PluginState(enabled=self.enabled, last_updated_at="2026-11-22T11:37:43.454Z")
        return RepoState(version=1, plugins=plugins)


class Credentials:
    """The real credentials of an instance folder."""

    def __init__(self, folder: Path, clock: FakeClock, *, key_rate: Rate) -> None:
        self.folder = SecretsFolder(folder)
        self.cli_key = self.folder.cli_key()
        self.tokens_path = self.folder.tokens_path()
        self.tokens = TokenStore(self.tokens_path, clock)
        self.ring = Keyring(self.folder, clock, key_rate=key_rate)


class Hosted:
    """The app of one instance with everything real but the engine, the disk of the stores and the clock."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.clock = clock
        self.folder = folder
        self.login_codes = LoginCodes(folder / "secrets" / "login-codes.json", clock)
        key_rate = Rate(per_minute=RATES.key_per_minute)
        self.credentials = Credentials(folder / "secrets", clock, key_rate=key_rate)
        self.decisions: list[Decision] = []
        self.authority = Authority(
            self.credentials.ring,
            port=3000,
            rates=RATES,
            clock=clock,
            decided=lambda _, decision: self.decisions.append(decision),
        )
        self.state = FakeState()
        self.ingress = FakeIngress()
        self.dispatcher = FakeDispatcher()
        self.missing: str | None = None
        self.lines: list[Mapping[str, object]] = []
        self.module = folder / "web.js"
        self.module.write_text("export const mount = () => {};\n")
        self.store = MemoryCoordinationStore(clock)
        self.coordination = CoordinationService(
            store=self.store,
            dispatcher=self.dispatcher,
            clock=clock,
            run_ids=RunIdSource(clock),
            base_url=lambda: BASE_URL,
        )
        self.settings = HostSettings(
            limits=Limits(body_bytes=9 * MIB, ingress_body_bytes=MIB, body_s=5, streams=3, stream_ping_s=0.02)
        )
        self.streams = OpenStreams(self.settings.limits.streams)
        self.rebuild()

    def rebuild(self) -> None:
        """Make the app of the parts as they are now."""
        self.app = build_app(self.manifest(), self.settings, self.parts(), access_log=into(self.lines))

    def manifest(self) -> Manifest:
        capability = Capability(name="coordination", path_prefix="/coordination", procedures=COORDINATION_PROCEDURES)
        mount = WebMount(plugin_id="@rawr/plugin-mfe-demo", dir_name="mfe-demo", module_path=self.module)
        gone = WebMount(plugin_id="@rawr/plugin-gone", dir_name="gone", module_path=self.module.with_name("gone.js"))
        return Manifest(
            procedures=PROCEDURES,
            capabilities=(capability,),
            functions=(),
            desk_handlers={},
            workflows=(),
            web_mounts=(mount, gone),
            streams=STREAMS,
        )

    def bearer(self, *scopes: str) -> dict[str, str]:
        """The header with a new API key for `scopes`; without scopes, with the CLI's key."""
        secret = self.credentials.tokens.create("test", scopes).token if scopes else self.credentials.cli_key
        return {"authorization": f"Bearer {secret}"}

    def signed(self, body: bytes, *, offset_s: int = 0) -> dict[str, str]:
        return {"x-inngest-signature": sign(body, ENGINE_KEY, self.clock.now_ms() // 1000 + offset_s)}

    def parts(self) -> AppParts:
        return AppParts(
            instance_id=InstanceId("inst-test"),
            base_url=BASE_URL,
            families=FamilyDeps(
                authority=self.authority, context=self._context, limits=self.settings.limits, streams=self.streams
            ),
            ingress=self.ingress,
            signing_keys=(ENGINE_KEY,),
            mac=mac,
            enabled_plugins=self._enabled,
            readiness=self._readiness,
            console=ConsoleParts(
                root=str(self.folder),
                port=3000,
                coordination=self.coordination,
                login_codes=self.login_codes,
                sessions=self.credentials.ring.sessions,
            ),
            clock=self.clock,
        )

    def _context(self, request: Request, caller: Caller) -> Context:
        return Context(
            coordination=self.coordination,
            state=self.state,
            caller=caller,
            request_id=request.request_id,
            correlation_id=request.correlation_id,
        )

    async def _enabled(self) -> frozenset[str]:
        return frozenset((await self.state.get()).plugins.enabled)

    async def _readiness(self) -> str | None:
        return self.missing


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1_795_347_464_000)


@pytest.fixture
def hosted(tmp_path: Path, clock: FakeClock) -> Hosted:
    return Hosted(tmp_path, clock)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "instance"


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    root.mkdir()
    started = Server(root)
    yield started
    started.end()


@pytest.fixture
def live() -> type[Live]:
    return Live


@pytest.fixture
def ask() -> Ask:
    return _ask


@pytest.fixture
def ask_async() -> AskAsync:
    return _ask_async
