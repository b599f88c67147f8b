"""The embedded engine and the runs of an instance, opened in this process to be changed and not to be worked on.

Whoever works on the file, now or later, goes on with what is changed here. Nothing is called from here: a server may
be at work beside us, and a command must not take runs from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import msgspec

from rawr.cli.context import Invocation
from rawr.cli.in_process import manifest_of
from rawr.cli.server import run_lock_is_held
from rawr.clock import RunIdSource, SystemClock
from rawr.coordination.service import CoordinationService
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.errors import RawrError
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.embedded.history import EngineRunNotFoundError, run_named
from rawr.execution.embedded.replay import Replayer
from rawr.execution.finished import tell_finished
from rawr.execution.ports import FunctionDeps, IngressResponse
from rawr.execution.replaying import open_replayer
from rawr.host.dispatcher import EngineDispatcher
from rawr.host.runtime import code_of
from rawr.hq import Manifest

_NO_KEY = "none"


class EngineNotEmbeddedError(RawrError):
    """An Inngest server is the engine; its runs are not here."""

    code = "ENGINE_NOT_EMBEDDED"


class IdleEngine(msgspec.Struct, frozen=True, kw_only=True):
    engine: EmbeddedEngine
    coordination: CoordinationService
    manifest: Manifest
    store: SqliteCoordinationStore


@contextlib.asynccontextmanager
async def idle_engine(invocation: Invocation) -> AsyncIterator[IdleEngine]:
    """Open both files, with the code of the instance as it is on the disk now. Closing is quick.

    Raises:
        EngineNotEmbeddedError; RawrError: the manifest or a file cannot be used.
    """
    require_embedded(invocation)
    manifest, layout, clock = manifest_of(invocation), invocation.instance.layout, SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        store = await asyncio.to_thread(SqliteCoordinationStore, layout.coordination_database, clock)
        stack.push_async_callback(asyncio.to_thread, store.close)
        engine = await asyncio.to_thread(
            lambda: EmbeddedEngine(
                database=layout.engine_database,
                run_dir=layout.run,
                call=_call_nobody,
                signing_key=_NO_KEY,
                clock=clock,
                code=code_of(manifest, store),
            )
        )
        stack.push_async_callback(engine.stop, 0)
        deps = FunctionDeps(
            store=store,
            desk_handlers=manifest.desk_handlers,
            clock=clock,
            instance_root=invocation.instance.root,
            finished_hooks=manifest.finished_hooks,
        )
        port = invocation.config().server.port
        service = CoordinationService(
            store=store,
            dispatcher=EngineDispatcher(engine),
            clock=clock,
            run_ids=RunIdSource(clock),
            base_url=lambda: f"http://localhost:{port}",
            tell_finished=partial(tell_finished, deps),
        )
        yield IdleEngine(engine=engine, coordination=service, manifest=manifest, store=store)


def require_embedded(invocation: Invocation) -> None:
    if invocation.config().engine.mode != "embedded":
        raise EngineNotEmbeddedError(
            "an Inngest server is the engine of this HQ: its runs are not here",
            fix="use the pages of the Inngest server",
        )


async def replayer_of(invocation: Invocation, manifest: Manifest) -> Replayer:
    """A replayer of the code that is on the disk now."""
    return await open_replayer(
        manifest.functions,
        coordination_database=invocation.instance.layout.coordination_database,
        handlers=manifest.desk_handlers,
        instance_root=invocation.instance.root,
        clock=SystemClock(),
    )


def engine_run_named(invocation: Invocation, wanted: str) -> str:
    """The engine's id of a run that is named by it, or by the id of the coordination run.

    Raises:
        EngineRunNotFoundError
    """
    database = invocation.instance.layout.engine_database
    if not database.exists():
        raise EngineRunNotFoundError(f"the engine has no run {wanted}", details={"runId": wanted})
    return run_named(database, wanted)


def warn_if_nobody_works(invocation: Invocation) -> None:
    if not run_lock_is_held(invocation.instance):
        invocation.warn("no server runs: the run goes on at the next `rawr up`")


async def _call_nobody(*_: object, **__: object) -> IngressResponse:
    raise AssertionError("an engine that is not started calls nobody")
