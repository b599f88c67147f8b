"""The embedded engine: accepts events and runs the durable functions that they trigger until the runs have ended.

This is its door, and its place among the engines of one file: what it serves, and what it takes over from the dead.
The work itself is in `worker`. Nothing it has accepted or memoised is lost when the process dies at any moment.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final, Required, TypedDict, Unpack

from rawr.clock import Clock
from rawr.execution.embedded.apps import Apps, OwnApp
from rawr.execution.embedded.clockwatch import ClockWatch
from rawr.execution.embedded.damage import EngineFileDamagedError
from rawr.execution.embedded.durations import BACKOFF_JITTER_MS, Backoff, inngest_backoff
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.ingestion import new_events, parse_events, parse_seed
from rawr.execution.embedded.inspection import Inspection
from rawr.execution.embedded.model import EngineRun, Forgotten, Ingested, NewEvent, RunFilter
from rawr.execution.embedded.owners import SlotLock
from rawr.execution.embedded.pins import CodeNotAcceptedError
from rawr.execution.embedded.reruns import Rerun
from rawr.execution.embedded.store import CRASHES_MAX, EngineStore
from rawr.execution.embedded.worker import EngineTimes, Worker
from rawr.execution.ports import EngineCall, OutgoingEvent, RunCode
from rawr.wire import JsonValue

_log: Final = logging.getLogger(__name__)
_RERUN_FIX: Final = "make its function available again, or cancel the run"


class EngineSettings(TypedDict, total=False):
    """What every engine can be given besides its apps and its clock."""

    database: Required[Path]
    run_dir: Required[Path]
    max_calls: int
    backoff: Backoff | None
    steady_ms: Callable[[], int]
    times: EngineTimes | None
    crashes_max: int
    code: RunCode | None
    turn: Callable[[], Awaitable[None]] | None


class Engine:
    """One engine on one `engine.sqlite`; several, in any number of processes, may share the file.

    Give it events from its construction on. `start` offers the functions of its apps and begins to work; `stop` ends
    that and closes the file.
    """

    def __init__(
        self,
        *,
        database: Path,
        run_dir: Path,
        apps: Apps,
        clock: Clock,
        max_calls: int = 64,
        backoff: Backoff | None = None,
        steady_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        times: EngineTimes | None = None,
        crashes_max: int = CRASHES_MAX,
        code: RunCode | None = None,
        turn: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`run_dir` holds the locks that tell which engines live; all engines of one file share it.

        `steady_ms` only goes forward, at the pace of `clock`; where the two differ, the wall clock was set.
        `crashes_max` is how often a host may die in one job before the job is given up.
        `code` tells the code of this process; runs are pinned to it. Without it runs are pinned to nothing.
        `turn` is awaited before each call of a run: other things may go first.
        """
        backoff = backoff or inngest_backoff(lambda: secrets.randbelow(BACKOFF_JITTER_MS + 1))
        self._store = EngineStore(database, clock=clock, backoff=backoff, crashes_max=crashes_max)
        self._slot = SlotLock(run_dir)
        self._apps = apps
        self._clock = clock
        self._times = times or EngineTimes()
        self._steady_ms = steady_ms
        self.inspection = Inspection(self._store)
        self._watch = ClockWatch(wall_ms=clock.now_ms(), steady_ms=steady_ms())
        self._leases_doubted_until_ms = 0
        self._owner = secrets.token_hex(8)
        self._code = code
        self._routes = False
        self._worker = Worker(
            self._store,
            owner=self._owner,
            apps=apps,
            clock=clock,
            times=self._times,
            max_calls=max_calls,
            code=code,
            sweep=self.sweep,
            turn=turn or _at_once,
        )
        self._stopped = False

    async def start(self) -> None:
        """Take over from dead engines, offer the functions of the apps, and work until `stop`.

        Raises: what the apps raise when they are offered.
        """
        await self.prepare()
        self._worker.start()

    async def prepare(self) -> None:
        """Everything of `start` but the work itself; `run_due` then does that step by step."""
        slot = await self._slot.take()
        await self._store.take_slot(slot, self._owner)
        self._worker.serve(await self._apps.offer(self._store, self._owner))
        self._routes = True
        await self._store.mend_clock()
        await self.sweep()

    async def drain(self, drain_s: float) -> None:
        """Begin nothing new, and give calls under way `drain_s` to end. Events are still accepted."""
        await self._worker.drain(drain_s)

    async def stop(self, drain_s: float) -> None:
        """Begin nothing new, give calls under way `drain_s` to end, hand the others back, and close the file.

        What is handed back is delivered again, to another engine or after the next start. Stopping twice is harmless.
        """
        if self._stopped:
            return
        self._stopped = True
        await self._worker.drain(drain_s)
        try:
            await self._store.release(self._owner)
        finally:
            self._store.close()
            self._slot.free()

    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        """Durably accept events, all or none; their ULIDs. Before `start` they wait for it.

        Raises:
            EventRefusedError: one has no proper name, is too large, or could never be part of a call.
        """
        accepted = new_events(events, new_ulid=self._store.new_ulid, now_ms=self._clock.now_ms())
        return await self._accept(accepted)

    async def ingest(self, body: JsonValue, seed: str | None) -> Ingested:
        """Durably accept the events of a request in Inngest's form: one event or a list, up to the first bad one.

        `seed` is the value of its header `x-inngest-event-id-seed`; the same request sent again is the same events.
        """
        now_ms = self._clock.now_ms()
        parsed = parse_events(body, seed=parse_seed(seed), new_ulid=self._store.new_ulid, now_ms=now_ms)
        return Ingested(ids=await self._accept(parsed.events), refusal=parsed.refusal)

    async def _accept(self, events: Sequence[NewEvent]) -> list[str]:
        await self._store.accept(events, route_now=self._routes)
        self._worker.wake()
        return [event.ulid for event in events]

    async def register(self, app_id: str, functions: Sequence[RegisteredFunction], *, url: str) -> bool:
        """Take over what an app at `url` has: other functions that it had start no new runs. Whether anything is new.

        Raises:
            FunctionTakenError: another app has a function of such an id.
        """
        modified = await self._store.register(app_id, functions, url=url)
        await self._keep_offered()
        return modified

    async def cancel(self, run_id: str, reason: str = "cancelled") -> bool:
        """End a run at once; False if there is none or it has ended. The answer of a call under way is dropped."""
        cancelled = await self._store.cancel(run_id, reason)
        self._worker.wake()
        return cancelled

    async def cancel_of_event(self, event_id: str, reason: str) -> bool:
        """`cancel` the newest run that the event with this id of its sender's started; False if there is none."""
        run_id = await self._store.run_of_event(event_id)
        return run_id is not None and await self.cancel(run_id, reason)

    async def cancel_where(self, which: RunFilter) -> list[str]:
        """End all runs that fit, and only those queued before this began; their ids.

        Raises:
            ExpressionInvalidError: the condition can never be answered.
        """
        cancelled = await self._store.cancel_where(which)
        self._worker.wake()
        return cancelled

    async def rerun(self, asked: Rerun) -> str:
        """Start a new run like an old one, from its beginning or from a step on; its id.

        Raises:
            RerunRefusedError: there is no such run or step, or its function cannot run now.
        """
        run_id = await self._store.rerun(asked)
        self._worker.wake()
        return run_id

    async def check_held(self, run_id: str) -> None:
        """Raises CodeNotAcceptedError: there is no such run, or it is not held."""
        await self._store.held_call(run_id)

    async def accept_code(self, run_id: str, by: str) -> None:
        """Let a run that is held for want of its code go on with the code that there is now; `by` is kept with it.

        Raises:
            CodeNotAcceptedError: there is no such run, it is not held, or nobody has the code.
        """
        await self._take_over()
        fn_id, events = await self._store.held_call(run_id)
        tokens = None if self._code is None else await self._code.used(fn_id, events)
        if tokens is None:
            raise CodeNotAcceptedError(f"nobody has code for {fn_id}, the function of run {run_id}", fix=_RERUN_FIX)
        await self._store.accept_code(run_id, tokens, by)
        self._worker.wake()

    async def forget(self, before_ms: int) -> Forgotten:
        """Remove the runs that ended before this time, and the events that came before it and no run is about.

        Their ids count as never used. The file does not shrink; its free pages are used again.
        """
        return await self._store.forget(before_ms)

    async def run(self, run_id: str) -> EngineRun | None:
        return await self._store.run(run_id)

    async def runs(self, limit: int) -> list[EngineRun]:
        """Newest first."""
        return await self._store.runs(limit)

    async def run_events(self, run_id: str) -> list[JsonValue] | None:
        """What triggered the run, for calls that are too large to hold it; None if there is no such run."""
        return await self._store.run_events(run_id)

    async def run_memos(self, run_id: str) -> dict[str, JsonValue]:
        """What the run remembers by step id, for calls that are too large to hold it."""
        return await self._store.run_memos(run_id)

    @property
    def damage(self) -> EngineFileDamagedError | None:
        """Why it works no more, when its file was damaged under it."""
        return self._worker.damage

    async def has_taken_over(self) -> bool:
        """Whether its file knows what an earlier one in its place had left. A new file does not."""
        return await self._store.has_taken_over()

    async def mark_taken_over(self) -> None:
        """To be called once everything unfinished was handed over, and not before: a host that dies does it again."""
        await self._store.mark_taken_over()

    async def pending_count(self) -> int:
        """Jobs that are due, under way or wait for their time, and events that wait for `start`."""
        return await self._store.pending_count()

    async def is_idle(self) -> bool:
        """Whether nothing is due or under way. Sleeps and retries whose time has not come do not count."""
        return await self._store.busy_count(self._clock.now_ms()) == 0

    async def run_due(self) -> int:
        """Do all that is due and what follows from it, until nothing is; the number of calls made.

        For drivers with a clock of their own; the background work of `start` does the same by itself.
        """
        await self.sweep()
        return await self._worker.run_due()

    async def sweep(self) -> int:
        """Free what dead engines held and start what waits to be routed; how much there was of both."""
        await self._look_at_clock()
        freed = await self._take_over()
        if self._routes:
            await self._keep_offered()
        return freed + await self._store.route_waiting()

    async def _take_over(self) -> int:
        """Free what dead engines held, and what live ones hold for longer than they said."""
        others = await self._store.other_owners(self._owner)
        if not others:
            return 0
        slots = await self._store.slots()
        dead = await self._slot.dead({owner: slots.get(owner) for owner in others})
        late = [owner for owner, until_ms in others.items() if until_ms is not None and until_ms < self._clock.now_ms()]
        if self._doubts_leases():
            late = []
        if not dead and not late:
            return 0
        alive = [owner for owner in others if owner not in dead and owner not in late]
        return await self._store.reclaim(dead=dead, alive=[self._owner, *alive])

    async def _look_at_clock(self) -> None:
        """When the clock was set, leases seem to end too early until all engines have renewed them by the new time."""
        jump_ms = self._watch.jump_ms(wall_ms=self._clock.now_ms(), steady_ms=self._steady_ms())
        if jump_ms == 0:
            return
        _log.warning("the clock was set by %+.1f s", jump_ms / 1000)
        self._leases_doubted_until_ms = self._steady_ms() + self._times.lease_ms
        await self._store.renew(self._worker.lease())
        await self._store.mend_clock()

    def _doubts_leases(self) -> bool:
        return self._steady_ms() < self._leases_doubted_until_ms

    async def _keep_offered(self) -> None:
        versions = await self._apps.keep_offered(self._store, self._owner)
        if versions is not None:
            self._worker.serve(versions)
            self._worker.wake()


async def _at_once() -> None:
    """Nothing goes before the work."""


class EmbeddedEngine(Engine):
    """The engine of one app that is in this process.

    Starting it raises SyncRefusedError or UnsupportedFunctionError when the functions cannot be registered.
    """

    def __init__(
        self,
        *,
        call: EngineCall,
        signing_key: str,
        clock: Clock,
        serve_url: str = "http://127.0.0.1/api/inngest",
        **settings: Unpack[EngineSettings],
    ) -> None:
        code = settings.get("code")
        app = OwnApp(call, serve_url=serve_url, signing_key=signing_key, clock=clock, code=code)
        super().__init__(apps=app, clock=clock, **settings)
