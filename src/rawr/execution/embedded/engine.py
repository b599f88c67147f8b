"""The embedded engine: accepts events, claims what is due and calls the durable functions until runs have ended.

It moves work between the store and the functions and decides nothing: transitions are in `runs`, the meaning of
answers in `protocol`. Nothing it has accepted or memoised is lost when the process dies at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from rawr.clock import Clock
from rawr.errors import StorageError
from rawr.execution.embedded.clockwatch import ClockWatch
from rawr.execution.embedded.durations import BACKOFF_JITTER_MS, Backoff, inngest_backoff
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.ingestion import new_events, parse_events, parse_seed
from rawr.execution.embedded.model import Claim, EngineRun, Forgotten, Ingested, Lease, NewEvent, RunFilter
from rawr.execution.embedded.outcomes import CallFailed, Failure, Outcome
from rawr.execution.embedded.owners import SlotLock
from rawr.execution.embedded.protocol import call_request, parse_answer, parse_functions, sync_request
from rawr.execution.embedded.registration import functions_of
from rawr.execution.embedded.reruns import Rerun
from rawr.execution.embedded.store import CRASHES_MAX, EngineStore, Settled
from rawr.execution.expressions import Wanted, check
from rawr.execution.ports import EngineCall, OutgoingEvent
from rawr.storage.lock import LockTimeoutError
from rawr.wire import JsonValue

_TRANSIENT: Final = (StorageError, LockTimeoutError)
"""What may pass by itself: a full disk, another process that holds the file for long."""
_log: Final = logging.getLogger(__name__)


class EngineTimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long the engine waits for what."""

    lease_ms: int = 30_000
    call_timeout_s: float = 2 * 3600.0
    poll_busy_s: float = 0.010
    poll_idle_s: float = 0.250
    sweep_s: float = 1.0
    storage_retry_s: float = 1.0
    """Between two tries to write the outcome of a call, when the disk refuses."""


class EmbeddedEngine:
    """One engine on one `engine.sqlite`; several, in any number of processes, may share the file.

    Give it events from its construction on. `start` registers the functions and begins to work; `stop` ends that
    and closes the file.
    """

    def __init__(
        self,
        *,
        database: Path,
        run_dir: Path,
        call: EngineCall,
        signing_key: str,
        clock: Clock,
        serve_url: str = "http://127.0.0.1/api/inngest",
        max_calls: int = 64,
        backoff: Backoff | None = None,
        steady_ms: Callable[[], int] = lambda: time.monotonic_ns() // 1_000_000,
        times: EngineTimes | None = None,
        crashes_max: int = CRASHES_MAX,
    ) -> None:
        """`run_dir` holds the locks that tell which engines live; all engines of one file share it.

        `steady_ms` only goes forward, at the pace of `clock`; where the two differ, the wall clock was set.
        `crashes_max` is how often a host may die in one job before the job is given up.
        """
        backoff = backoff or inngest_backoff(lambda: secrets.randbelow(BACKOFF_JITTER_MS + 1))
        self._store = EngineStore(database, clock=clock, backoff=backoff, crashes_max=crashes_max)
        self._slot = SlotLock(run_dir)
        self._call = call
        self._key = signing_key
        self._clock = clock
        self._serve_url = serve_url
        self._max_calls = max_calls
        self._times = times or EngineTimes()
        self._steady_ms = steady_ms
        self._watch = ClockWatch(wall_ms=clock.now_ms(), steady_ms=steady_ms())
        self._leases_doubted_until_ms = 0
        self._owner = secrets.token_hex(8)
        self._app_id: str | None = None
        self._functions: tuple[RegisteredFunction, ...] = ()
        self._serves: dict[str, str] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._accepting_work = False
        self._stopped = False

    async def start(self) -> None:
        """Take over from dead engines, register the functions, and work until `stop`.

        Raises:
            SyncRefusedError, UnsupportedFunctionError: the functions cannot be registered.
        """
        await self.prepare()
        self._accepting_work = True
        self._loops = [asyncio.create_task(self._work()), asyncio.create_task(self._renew())]

    async def prepare(self) -> None:
        """Everything of `start` but the work itself; `run_due` then does that step by step."""
        slot = await self._slot.take()
        await self._store.take_slot(slot, self._owner)
        await self._sync()
        await self._store.mend_clock()
        await self.sweep()

    async def stop(self, drain_s: float) -> None:
        """Begin nothing new, give calls under way `drain_s` to end, hand the others back, and close the file.

        What is handed back is delivered again, to another engine or after the next start. Stopping twice is harmless.
        """
        if self._stopped:
            return
        self._stopped = True
        self._accepting_work = False
        await _cancelled(self._loops[:1])
        if self._calls:
            await asyncio.wait(self._calls, timeout=drain_s)  # their leases are still renewed meanwhile
        await _cancelled([*self._loops, *self._calls])
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
        await self._store.accept(events, route_now=bool(self._serves))
        self._wake.set()
        return [event.ulid for event in events]

    async def cancel(self, run_id: str, reason: str = "cancelled") -> bool:
        """End a run at once; False if there is none or it has ended. The answer of a call under way is dropped."""
        cancelled = await self._store.cancel(run_id, reason)
        self._wake.set()
        return cancelled

    async def cancel_where(self, which: RunFilter) -> list[str]:
        """End all runs that fit, and only those queued before this began; their ids.

        Raises:
            ExpressionInvalidError: the condition can never be answered.
        """
        if which.condition is not None:
            check(which.condition, Wanted.CONDITION, "event")
        before_ms = min(which.queued_before_ms, self._clock.now_ms() + 1)
        which = msgspec.structs.replace(which, queued_before_ms=before_ms)
        cancelled: list[str] = []
        after: str | None = ""
        while after is not None:
            page = await self._store.cancel_page(which, after)
            cancelled += page.cancelled
            after = page.last_run_id
        self._wake.set()
        return cancelled

    async def rerun(self, asked: Rerun) -> str:
        """Start a new run like an old one, from its beginning or from a step on; its id.

        Raises:
            RerunRefusedError: there is no such run or step, or its function cannot run now.
        """
        run_id = await self._store.rerun(asked)
        self._wake.set()
        return run_id

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
        made = 0
        await self.sweep()
        while claims := await self._store.claim(self._lease(), self._serves, self._max_calls):
            made += sum(await asyncio.gather(*[self._drive(claim) for claim in claims]))
        return made

    async def sweep(self) -> int:
        """Free what dead engines held and start what waits to be routed; how much there was of both."""
        await self._look_at_clock()
        freed = await self._take_over()
        if self._app_id is not None:
            await self._store.register_if_unserved(self._app_id, self._functions)
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
        await self._store.renew(self._lease())
        await self._store.mend_clock()

    def _doubts_leases(self) -> bool:
        return self._steady_ms() < self._leases_doubted_until_ms

    async def _sync(self) -> None:
        request = sync_request(self._serve_url, key=self._key, t=self._clock.now_ms() // 1000)
        answer = await self._call("PUT", request.query, request.headers, request.body)
        app = parse_functions(answer, keys=(self._key,))
        self._functions = functions_of(app["functions"], app.get("appVersion"))
        self._app_id = app["app_id"]
        await self._store.register(app["app_id"], self._functions, self._owner)
        self._serves = {function.fn_id: function.version for function in self._functions}

    async def _work(self) -> None:
        """Claim and call for ever. A refusing disk is waited for: leases and events are safe meanwhile."""
        swept_at = time.monotonic()
        wait_s = self._times.poll_busy_s
        while not self._stopped:
            self._wake.clear()
            try:
                if time.monotonic() - swept_at >= self._times.sweep_s:
                    swept_at = time.monotonic()
                    await self.sweep()
                free = self._max_calls - len(self._calls)
                claims = await self._store.claim(self._lease(), self._serves, free) if free > 0 else []
                for claim in claims:
                    self._begin(self._drive(claim))
                if claims:
                    wait_s = self._times.poll_busy_s
                    continue
                seen_version = self._store.data_version()
                next_due_ms = await self._store.next_due_ms()
                wait_s = await self._idle(seen_version, next_due_ms, wait_s)
            except _TRANSIENT as error:
                _log.warning("the engine waits for its file: %s", error.code)
                await asyncio.sleep(self._times.storage_retry_s)
            # A loop that ended on a fault of ours would look like an engine with nothing to do.
            except Exception:  # noqa: BLE001
                _log.exception("the engine could not look for work, and tries again")
                await asyncio.sleep(self._times.storage_retry_s)

    async def _idle(self, seen_version: int, next_due_ms: int | None, wait_s: float) -> float:
        """Wait until there may be something to claim; how long to wait the next time.

        Our own events and calls wake us at once. Those of other processes show as a new version of the file, which
        is polled more and more seldom while nothing happens.
        """
        due_s = self._times.sweep_s if next_due_ms is None else (next_due_ms - self._clock.now_ms()) / 1000
        # What is due and was not claimed has no room, or is for functions of another process: look again soon.
        limit_s = wait_s if due_s <= 0 else min(due_s, self._times.sweep_s)
        ends_at = time.monotonic() + limit_s
        while (left_s := ends_at - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`: before Python 3.12 it loses a cancellation that comes together with the wake-up.
                async with asyncio.timeout(min(wait_s, left_s)):
                    await self._wake.wait()
            if self._wake.is_set() or self._store.data_version() != seen_version:
                return self._times.poll_busy_s
            wait_s = min(wait_s * 2, self._times.poll_idle_s)
        return wait_s

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._times.lease_ms / 3000)
            try:
                await self._store.renew(self._lease())
            except Exception:  # noqa: BLE001 - an expired lease is fenced when the result is written
                _log.exception("the engine could not renew its leases, and tries again")

    def _begin(self, work: Coroutine[Any, Any, int]) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a call could not be settled; its job is delivered again after a restart", exc_info=error)

    async def _drive(self, claim: Claim) -> int:
        """Make a claimed call, and the ones that directly follow it in its run; how many."""
        made = 0
        following: Claim | None = claim
        while following is not None:
            made += 1
            outcome = await self._make(following)
            settled = await self._settle(following, outcome)
            following = settled.next_claim
            if settled.more_due or following is None:
                self._wake.set()
        return made

    async def _make(self, claim: Claim) -> Outcome:
        request = call_request(claim.call, key=self._key, t=self._clock.now_ms() // 1000)
        try:
            async with asyncio.timeout(self._times.call_timeout_s):
                answer = await self._call("POST", request.query, request.headers, request.body)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        # Whatever else comes out of functions in this process, or of the way to them, is a failed call. Even a
        # BaseException: it was not meant for us, and a call without an outcome would be held for as long as we live.
        except BaseException as error:  # noqa: BLE001
            message = f"the call did not get through: {type(error).__name__}: {str(error)!a}"
            return CallFailed(failure=Failure(name="CallFailed", message=message), retriable=True)
        return parse_answer(answer, keys=(self._key,))

    async def _settle(self, claim: Claim, outcome: Outcome) -> Settled:
        """Write the outcome, for as long as the disk takes: the work is done and must not be done again."""
        while True:
            has_room = self._accepting_work and len(self._calls) < self._max_calls
            try:
                return await self._store.settle(claim, outcome, next_lease=self._lease() if has_room else None)
            except _TRANSIENT as error:
                _log.warning("the result of a call waits to be written: %s", error.code)
                await asyncio.sleep(self._times.storage_retry_s)
            except Exception as error:
                if isinstance(outcome, CallFailed) and not outcome.retriable:
                    raise
                # It can never be written as it is: the run fails, and says why.
                failure = Failure(name=type(error).__name__, message=ascii(str(error)))
                outcome = CallFailed(failure=failure, retriable=False)

    def _lease(self) -> Lease:
        return Lease(owner=self._owner, until_ms=self._clock.now_ms() + self._times.lease_ms)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
