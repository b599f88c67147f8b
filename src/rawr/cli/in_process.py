"""Coordination in this process, for when no server runs: an event loop in a thread of its own behind blocking calls.

`store_only` opens the store and starts nothing; a run that is queued there is left for the next host. `hosted`
opens the whole composition, as the server does, without a socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import msgspec

from rawr.cli.context import Invocation
from rawr.clock import RunIdSource, SystemClock
from rawr.coordination.model import Run, TimelineEvent, ValidationResult, Workflow
from rawr.coordination.ports import WorkflowVersionConflictError
from rawr.coordination.runnable import WorkflowInvalidError
from rawr.coordination.service import CoordinationService
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.errors import RawrError
from rawr.hq import Manifest, load_manifest
from rawr.ids import EventId
from rawr.wire import JsonValue

T = TypeVar("T")
Opened = contextlib.AbstractAsyncContextManager[CoordinationService]

CALL_S: Final = 60.0
OPEN_S: Final = 60.0
CLOSE_S: Final = 5.0
DRAIN_S: Final = 2.0
"""The run has ended, or nobody waits for it: what is still under way is handed back and goes on later."""


class LocalTimeoutError(RawrError):
    """Our own store did not answer in time."""

    code = "STORAGE_BUSY"


class LocalCoordination:
    """A service on a loop in another thread, called and waited for."""

    def __init__(self, service: CoordinationService, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop

    @property
    def runs_without_us(self) -> bool:
        return False

    def list_workflows(self) -> Sequence[Workflow]:
        return self._call(self._service.list_workflows())

    def get_workflow(self, workflow_id: str) -> Workflow:
        return self._call(self._service.get_workflow(workflow_id))

    def save_workflow(self, workflow: Workflow) -> Workflow:
        return self._call(self._service.save_workflow(workflow))

    def validate_workflow(self, workflow_id: str) -> ValidationResult:
        return self._call(self._service.validate_workflow(workflow_id))

    def queue_run(self, workflow_id: str, run_id: str, run_input: JsonValue) -> Run:
        try:
            return self._call(self._service.queue_run(workflow_id, run_id, run_input)).run
        except _LeftForTheNextHost as left:
            return left.run

    def get_run(self, run_id: str) -> Run:
        return self._call(self._service.get_run(run_id))

    def run_timeline(self, run_id: str) -> Sequence[TimelineEvent]:
        return self._call(self._service.run_timeline(run_id))[1]

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(CALL_S)
        except TimeoutError as error:
            raise LocalTimeoutError(f"the store gave no answer within {CALL_S:g} s", fix="try again") from error


@contextlib.contextmanager
def store_only(invocation: Invocation, *, shipped: bool) -> Iterator[LocalCoordination]:
    """The store of the instance; nothing is executed. `shipped` saves what its plugins ship first, as a host does."""
    workflows = manifest_of(invocation).workflows if shipped else ()
    with _on_a_loop(lambda: _open_store(invocation, workflows), invocation) as (service, loop):
        yield LocalCoordination(service, loop)


@contextlib.contextmanager
def hosted(invocation: Invocation) -> Iterator[LocalCoordination]:
    """The whole composition of the instance in this process. Its stored runs go on, as under a server."""
    manifest = manifest_of(invocation)
    _log_to_file(invocation)
    with _on_a_loop(lambda: _open_host(invocation, manifest), invocation) as (service, loop):
        yield LocalCoordination(service, loop)


@contextlib.contextmanager
def hosted_embedded(invocation: Invocation) -> Iterator[None]:
    """As `hosted`, with the embedded engine whatever [engine] mode says: to work off what it has left."""
    manifest = manifest_of(invocation)
    _log_to_file(invocation)
    with _on_a_loop(lambda: _open_host(invocation, manifest, is_embedded=True), invocation):
        yield


class _LeftForTheNextHost(Exception):  # noqa: N818 - an outcome, not an error
    """The run is stored and queued; no engine has it yet."""

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run = run


class _NoEngine:
    """Leaves runs where the service stored them: the next host hands over what no engine has accepted."""

    async def dispatch(self, run: Run) -> Sequence[EventId]:
        raise _LeftForTheNextHost(run)

    async def withdraw(self, run: Run, reason: str) -> None:
        """The engine's next step finds the run ended."""


def manifest_of(invocation: Invocation) -> Manifest:
    """The manifest of the instance; plugins that had to be left out are warned of."""
    manifest = load_manifest(invocation.instance.root)
    for fault in manifest.faults:
        invocation.warn(f"plugin {fault.path} is left out: {fault.code}: {fault.message}")
    return manifest


@contextlib.asynccontextmanager
async def _open_store(invocation: Invocation, shipped: Sequence[Workflow]) -> AsyncIterator[CoordinationService]:
    clock = SystemClock()
    path = invocation.instance.layout.coordination_database
    port = invocation.config().server.port
    store = await asyncio.to_thread(SqliteCoordinationStore, path, clock)
    try:
        service = CoordinationService(
            store=store,
            dispatcher=_NoEngine(),
            clock=clock,
            run_ids=RunIdSource(clock),
            base_url=lambda: f"http://localhost:{port}",
        )
        for workflow in shipped:
            # What a host would say at its start; here only what was asked for matters.
            with contextlib.suppress(WorkflowVersionConflictError, WorkflowInvalidError):
                await service.save_workflow(workflow)
        yield service
    finally:
        await asyncio.to_thread(store.close)


@contextlib.asynccontextmanager
async def _open_host(
    invocation: Invocation, manifest: Manifest, *, is_embedded: bool = False
) -> AsyncIterator[CoordinationService]:
    from rawr.cli.host_settings import host_settings
    from rawr.host.runtime import open_host

    instance, config = invocation.instance, invocation.config()
    if is_embedded:
        config = msgspec.structs.replace(config, engine=msgspec.structs.replace(config.engine, mode="embedded"))
    settings = host_settings(
        config,
        root=instance.root,
        environ=invocation.environ,
        host="127.0.0.1",  # nothing listens
        drain_s=DRAIN_S,
    )
    async with open_host(instance.root, instance.id, manifest, settings) as host:
        yield host.coordination


@contextlib.contextmanager
def _on_a_loop(
    opened: Callable[[], Opened], invocation: Invocation
) -> Iterator[tuple[CoordinationService, asyncio.AbstractEventLoop]]:
    """Keep `opened()` open on a loop in another thread for the `with` block, entered and left by one task."""
    ready: Future[tuple[CoordinationService, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_live(opened, ready)), name="rawr-hosted", daemon=True)
    thread.start()
    service, loop, stop = ready.result(OPEN_S)
    try:
        yield service, loop
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(DRAIN_S + CLOSE_S)
        # A desk that works in a thread cannot be interrupted, and its run is durable: do not wait for it.
        invocation.leave_at_once = thread.is_alive()


async def _live(
    opened: Callable[[], Opened],
    ready: Future[tuple[CoordinationService, asyncio.AbstractEventLoop, asyncio.Event]],
) -> None:
    stop = asyncio.Event()
    try:
        async with opened() as service:
            ready.set_result((service, asyncio.get_running_loop(), stop))
            await stop.wait()
    except Exception as error:
        if ready.done():
            raise
        ready.set_exception(error)


def _log_to_file(invocation: Invocation) -> None:
    """What a server would write into its log goes to the CLI's, so that stderr stays for the person."""
    path = invocation.instance.layout.cli_log
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(filename=path, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
