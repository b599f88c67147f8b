"""One instance put together: its stores, its engine, its service and its app, opened and closed as one.

The server process and a command that finds no server use the same composition; only the first puts a socket
in front of it. Nothing in here is shared between two instances.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import msgspec

from rawr.clock import Clock, RunIdSource, SystemClock
from rawr.coordination.ports import CoordinationStore
from rawr.coordination.service import CoordinationService
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.errors import RawrError
from rawr.execution.code import InstanceCode
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.finished import tell_finished
from rawr.execution.inngest_engine import InngestEngine
from rawr.execution.pending import check_drained
from rawr.execution.ports import APP_ID, EventSink, FunctionDeps, IngressResponse, RunCode
from rawr.execution.precedence import Precedence
from rawr.execution.signing import mac
from rawr.host.access import AccessLog, Answered
from rawr.host.app import AppParts, build_app
from rawr.host.asgi_call import PATH, asgi_call
from rawr.host.authority import Authority
from rawr.host.console import ConsoleParts
from rawr.host.dispatch import FamilyDeps
from rawr.host.dispatcher import EngineDispatcher
from rawr.host.guard import Guard
from rawr.host.last_used_writer import last_used_written
from rawr.host.opening import begin
from rawr.host.request import Request
from rawr.host.settings import HostSettings
from rawr.host.streams import OpenStreams
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.procedures.context import Context
from rawr.security.credentials import SecretsFolder
from rawr.security.keyring import Keyring
from rawr.security.policy import Caller
from rawr.security.rates import Rate
from rawr.security.sessions import LoginCodes
from rawr.state.aio import AsyncRepoState
from rawr.state.model import RepoState
from rawr.state.store import RepoStateStore

READY_TIMEOUT_S: Final = 2.0


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """An open instance. Its engine works for as long as it is open."""

    app: Guard
    coordination: CoordinationService
    settings: HostSettings
    base_url: str
    """How callers are told to reach it; trace links start with it."""
    local_url: str
    """How processes of this machine reach it, when a socket is in front of it."""
    streams: OpenStreams
    """To be stopped before the socket is: what follows a run has no end of its own in sight."""
    drain: Callable[[float], Awaitable[None]]
    """Begin no more calls of runs, and give those under way so many seconds to end."""


@asynccontextmanager
async def open_host(
    root: Path,
    instance_id: InstanceId,
    manifest: Manifest,
    settings: HostSettings,
    *,
    port: int | None = None,
    clock: Clock | None = None,
    access_log: AccessLog | None = None,
    precedence: Precedence | None = None,
) -> AsyncIterator[Host]:
    """Open the instance at `root`; its stored runs go on at once. Closing waits for calls under way, within limits.

    `port` is the one that is really bound, when there is a socket. `precedence` says how starts go before work.

    Raises:
        RawrError: a store, a secret or the engine cannot be opened; what was opened is closed again.
    """
    place = _Place(
        root=await asyncio.to_thread(root.resolve),
        instance_id=instance_id,
        manifest=manifest,
        settings=settings,
        port=port or settings.port,
        clock=clock or SystemClock(),
    )
    async with AsyncExitStack() as stack:
        store = await asyncio.to_thread(SqliteCoordinationStore, place.file("coordination.sqlite"), place.clock)
        stack.push_async_callback(asyncio.to_thread, store.close)
        keys = await asyncio.to_thread(_Keys.of, place)
        if port is not None:
            # A browser that was signed in at the server before is not signed in at this one, nor after it.
            await asyncio.to_thread(keys.ring.sessions.end_all)
            stack.push_async_callback(asyncio.to_thread, keys.ring.sessions.end_all)
        await stack.enter_async_context(last_used_written(keys.ring.last_used))
        engine_calls = _InProcessCalls()
        precedence = precedence or Precedence()
        engine = await _engine(place, keys, engine_calls, code_of(manifest, store), precedence)
        stack.push_async_callback(engine.stop, settings.limits.drain_s)
        deps = _function_deps(place, store)
        service = _service(place, deps, engine, precedence)
        parts = _app_parts(place, keys, deps, service, engine)
        stack.push_async_callback(parts.ingress.close)
        engine_calls.app = build_app(manifest, settings, parts, access_log=access_log or _no_log)
        await engine.start()
        await begin(service, manifest, engine)
        yield Host(
            app=engine_calls.app,
            coordination=service,
            settings=settings,
            base_url=place.base_url,
            local_url=place.local_url,
            streams=parts.families.streams,
            drain=engine.drain,
        )


class _Place(msgspec.Struct, frozen=True, kw_only=True):
    """Which instance, where it lies, and where it is reached."""

    root: Path
    instance_id: InstanceId
    manifest: Manifest
    settings: HostSettings
    port: int
    clock: Clock

    @property
    def base_url(self) -> str:
        return self.settings.url_for(self.port)

    @property
    def local_url(self) -> str:
        return self.settings.local_url_for(self.port)

    @property
    def serve_url(self) -> str:
        """How the engine reaches us: a real server may be elsewhere, the embedded one never is."""
        return self.local_url if self.settings.inngest is None else self.settings.base_url or self.local_url

    def file(self, name: str) -> Path:
        return self.root / ".rawr" / name


class _Keys(msgspec.Struct, frozen=True, kw_only=True):
    engine: str
    ring: Keyring

    @classmethod
    def of(cls, place: _Place) -> _Keys:
        folder = SecretsFolder(place.file("secrets"))
        folder.cli_key()  # there, and to be trusted, before anything is opened
        rate = Rate(per_minute=place.settings.rates.key_per_minute)
        return cls(engine=folder.engine_key(), ring=Keyring(folder, place.clock, key_rate=rate))

    def __repr__(self) -> str:
        return "_Keys(...)"  # never into a log


class _Engine(EventSink, Protocol):
    """What runs the functions of the instance, in here or elsewhere."""

    async def start(self) -> None: ...

    async def drain(self, drain_s: float) -> None: ...

    async def stop(self, drain_s: float) -> None: ...


class _InProcessCalls:
    """The engine's way to the app, which exists only after the engine."""

    def __init__(self) -> None:
        self.app: Guard | None = None

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        assert self.app is not None, "the engine makes no call before it is started"
        return await asgi_call(self.app, method, query, headers, body)


class _AuthoritativeState:
    """The state of the instance, with the real path that it is the state of."""

    def __init__(self, store: AsyncRepoState, root: Path) -> None:
        self._store = store
        self._root = str(root)
        self._stored: RepoState | None = None
        self._shown: RepoState | None = None

    async def get(self) -> RepoState:
        stored = self._store.kept() or await self._store.get()
        if self._shown is None or stored is not self._stored:
            self._stored, self._shown = stored, msgspec.structs.replace(stored, authority_repo_root=self._root)
        return self._shown


def code_of(manifest: Manifest, store: CoordinationStore) -> RunCode:
    """The code that the functions of the manifest are made of, as an engine pins runs to it."""
    return InstanceCode(
        manifest.functions,
        app_id=APP_ID,
        handler_code=manifest.handler_code,
        own_code=manifest.own_code,
        get_workflow=store.get_workflow,
    )


async def _engine(place: _Place, keys: _Keys, calls: _InProcessCalls, code: RunCode, precedence: Precedence) -> _Engine:
    if place.settings.inngest is None:
        return await asyncio.to_thread(_embedded_engine, place, keys, calls, code, precedence)
    await asyncio.to_thread(check_drained, place.file("engine.sqlite"))
    # Importing the SDK takes half a second; only an opened host needs it.
    from rawr.execution.ingest import make_event_sink

    server = place.settings.inngest
    return InngestEngine(server, events=make_event_sink(server), call=calls, clock=place.clock)


def _embedded_engine(
    place: _Place, keys: _Keys, calls: _InProcessCalls, code: RunCode, precedence: Precedence
) -> EmbeddedEngine:
    return EmbeddedEngine(
        database=place.file("engine.sqlite"),
        run_dir=place.file("run"),
        call=calls,
        signing_key=keys.engine,
        clock=place.clock,
        serve_url=place.local_url + PATH,
        max_calls=place.settings.engine_calls,
        code=code,
        turn=precedence.turn,
    )


def _function_deps(place: _Place, store: CoordinationStore) -> FunctionDeps:
    return FunctionDeps(
        store=store,
        desk_handlers=place.manifest.desk_handlers,
        clock=place.clock,
        instance_root=place.root,
        finished_hooks=place.manifest.finished_hooks,
        trace_url=None if place.settings.inngest is None else place.settings.inngest.trace_url,
    )


def _service(place: _Place, deps: FunctionDeps, engine: EventSink, precedence: Precedence) -> CoordinationService:
    return CoordinationService(
        store=deps.store,
        dispatcher=EngineDispatcher(engine),
        clock=place.clock,
        run_ids=RunIdSource(place.clock),
        base_url=lambda: place.base_url,
        trace_url=deps.trace_url,
        tell_finished=partial(tell_finished, deps),
        starting=precedence.starting,
    )


def _app_parts(
    place: _Place,
    keys: _Keys,
    deps: FunctionDeps,
    service: CoordinationService,
    engine: EventSink,
) -> AppParts:
    # Importing the framework of the functions takes half a second; only an opened host needs it.
    from rawr.execution.ingest import make_ingress

    state = _AuthoritativeState(AsyncRepoState(RepoStateStore(place.root, place.clock)), place.root)

    def context(request: Request, caller: Caller) -> Context:
        return Context(
            coordination=service,
            state=state,
            caller=caller,
            request_id=request.request_id,
            correlation_id=request.correlation_id,
        )

    inngest = place.settings.inngest

    async def enabled_plugins() -> frozenset[str]:
        return frozenset((await state.get()).plugins.enabled)

    return AppParts(
        instance_id=place.instance_id,
        base_url=place.base_url,
        families=FamilyDeps(
            authority=Authority(keys.ring, port=place.port, rates=place.settings.rates, clock=place.clock),
            context=context,
            limits=place.settings.limits,
            streams=OpenStreams(place.settings.limits.streams),
        ),
        ingress=make_ingress(
            place.manifest.functions,
            deps,
            signing_key=keys.engine,
            event_sink=engine,
            serve_origin=place.serve_url,
            server=inngest,
            run_states=engine if isinstance(engine, EmbeddedEngine) else None,
        ),
        signing_keys=(keys.engine,) if inngest is None else inngest.signing_keys,
        mac=mac,
        enabled_plugins=enabled_plugins,
        readiness=lambda: _readiness(deps.store, engine),
        console=ConsoleParts(
            root=str(place.root),
            port=place.port,
            coordination=service,
            login_codes=LoginCodes(SecretsFolder(place.file("secrets")).login_codes_path(), place.clock),
            sessions=keys.ring.sessions,
        ),
        clock=place.clock,
    )


async def _readiness(store: CoordinationStore, engine: EventSink) -> str | None:
    if isinstance(engine, EmbeddedEngine) and engine.damage is not None:
        return f"the engine has stopped: {engine.damage.code}"
    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            await store.count_runs()
    except TimeoutError:
        return f"the coordination store did not answer within {READY_TIMEOUT_S:g} s"
    except RawrError as error:
        return f"the coordination store cannot be read: {error.code}"
    return None


def _no_log(answered: Answered) -> None:
    """A host without a socket has nobody to keep a log of."""
