"""The work of an engine: claims what is due, makes the calls and writes their outcomes, again and again.

It moves work between the store and the functions and decides nothing: transitions are in `runs`, the meaning of
answers in `protocol`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec

from rawr.clock import Clock
from rawr.errors import StorageError
from rawr.execution.embedded.apps import Apps
from rawr.execution.embedded.damage import EngineFileDamagedError
from rawr.execution.embedded.model import Claim, Lease
from rawr.execution.embedded.outcomes import AppUnreachable, CallFailed, Failure, Outcome
from rawr.execution.embedded.protocol import parse_answer
from rawr.execution.embedded.store import EngineStore, Settled
from rawr.execution.ports import AppUnreachableError, RunCode
from rawr.storage.lock import LockTimeoutError

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


class Worker:
    """Works for one engine. `sweep` is done from time to time before looking for work, `turn` before each call."""

    def __init__(
        self,
        store: EngineStore,
        *,
        owner: str,
        apps: Apps,
        clock: Clock,
        times: EngineTimes,
        max_calls: int,
        code: RunCode | None,
        sweep: Callable[[], Awaitable[object]],
        turn: Callable[[], Awaitable[None]],
    ) -> None:
        self.damage: EngineFileDamagedError | None = None
        """Set when the file turned out to be damaged; there is no more work then."""
        self._store = store
        self._owner = owner
        self._apps = apps
        self._clock = clock
        self._times = times
        self._max_calls = max_calls
        self._code = code
        self._has: frozenset[str] = frozenset() if code is None else code.offered()
        self._sweep = sweep
        self._turn = turn
        self._serves: Mapping[str, str] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._accepting_work = False
        self._draining = False

    def serve(self, versions: Mapping[str, str]) -> None:
        """Work for these functions from now on, each in this version."""
        self._serves = versions

    def start(self) -> None:
        self._accepting_work = True
        self._loops = [asyncio.create_task(self._work()), asyncio.create_task(self._renew())]

    async def drain(self, drain_s: float) -> None:
        """Begin nothing new, give calls under way `drain_s` to end, and leave the others."""
        self._accepting_work = False
        self._draining = True
        await _cancelled(self._loops[:1])
        if self._calls:
            await asyncio.wait(self._calls, timeout=drain_s)  # their leases are still renewed meanwhile
        await _cancelled([*self._loops, *self._calls])

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def run_due(self) -> int:
        """Do all that is due and what follows from it, until nothing is; the number of calls made."""
        made = 0
        while claims := await self._claim(self._max_calls):
            made += sum(await asyncio.gather(*[self._drive(claim) for claim in claims]))
        return made

    async def _claim(self, limit: int) -> list[Claim]:
        return await self._store.claim(self.lease(), self._serves, limit, self._has)

    def lease(self) -> Lease:
        """What a job that is taken now is held under."""
        return Lease(owner=self._owner, until_ms=self._clock.now_ms() + self._times.lease_ms)

    async def _work(self) -> None:
        """Claim and call for ever. A refusing disk is waited for: leases and events are safe meanwhile."""
        swept_at = time.monotonic()
        wait_s = self._times.poll_busy_s
        while True:
            self._wake.clear()
            try:
                if time.monotonic() - swept_at >= self._times.sweep_s:
                    swept_at = time.monotonic()
                    await self._sweep()
                if (free := self._max_calls - len(self._calls)) <= 0:
                    await self._until_a_call_ends()
                    continue
                claims = await self._claim(free)
                for claim in claims:
                    self._begin(self._drive(claim))
                if claims:
                    wait_s = self._times.poll_busy_s
                    continue
                seen_version = self._store.data_version()
                next_due_ms = await self._store.next_due_ms()
                wait_s = await self._idle(seen_version, next_due_ms, wait_s)
            except EngineFileDamagedError as error:
                _log.error("the engine has stopped: %s; %s", error.message, error.fix)
                self.damage = error
                return
            except _TRANSIENT as error:
                _log.warning("the engine waits for its file: %s", error.code)
                await asyncio.sleep(self._times.storage_retry_s)
            # A loop that ended on a fault of ours would look like an engine with nothing to do.
            except Exception:  # noqa: BLE001
                _log.exception("the engine could not look for work, and tries again")
                await asyncio.sleep(self._times.storage_retry_s)

    async def _until_a_call_ends(self) -> None:
        """Or until it is time to sweep. What comes in meanwhile has to wait anyway, so nobody looks at it."""
        self._has_room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._times.sweep_s):
                await self._has_room.wait()

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
                await self._store.renew(self.lease())
            except Exception:  # noqa: BLE001 - an expired lease is fenced when the result is written
                _log.exception("the engine could not renew its leases, and tries again")

    def _begin(self, work: Coroutine[Any, Any, int]) -> None:
        task: asyncio.Task[Any] = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._calls.discard(task)
        self._has_room.set()
        self._wake.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a call could not be settled; its job is delivered again after a restart", exc_info=error)

    async def _drive(self, claim: Claim) -> int:
        """Make a claimed call, and the ones that directly follow it in its run; how many."""
        made = 0
        following: Claim | None = claim
        while following is not None:
            await self._turn()
            if self._draining or not await self._pinned(following):
                break
            made += 1
            outcome = await self._make(following)
            settled = await self._settle(following, outcome)
            following = settled.next_claim
            if settled.more_due or following is None:
                self._wake.set()
        return made

    async def _pinned(self, claim: Claim) -> bool:
        """Before a run is called for the first time it is settled which code it belongs to: a call may act.

        False when that could not be settled. The job is ours no more, or its call has failed with the reason.
        """
        if self._code is None or claim.is_pinned:
            return True
        try:
            tokens = await self._code.used(claim.call.fn_id, [event.value() for event in claim.call.events])
        except Exception as error:  # noqa: BLE001 - what the port says is the outcome of the call
            failure = Failure(name="CodeUnknown", message=f"which code it uses is not known: {str(error)!a}")
            await self._settle(claim, CallFailed(failure=failure, retriable=True))
            return False
        return tokens is None or await self._store.pin(claim, tokens)

    async def _make(self, claim: Claim) -> Outcome:
        try:
            async with asyncio.timeout(self._times.call_timeout_s):
                answer = await self._apps.call(claim.call)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except AppUnreachableError as error:
            _log.warning("a call of %s waits: %s", claim.call.fn_id, error.message)
            return AppUnreachable()
        # Whatever else comes out of functions in this process, or of the way to them, is a failed call. Even a
        # BaseException: it was not meant for us, and a call without an outcome would be held for as long as we live.
        except BaseException as error:  # noqa: BLE001
            message = f"the call did not get through: {type(error).__name__}: {str(error)!a}"
            return CallFailed(failure=Failure(name="CallFailed", message=message), retriable=True)
        return parse_answer(answer, trust=self._apps.trust)

    async def _settle(self, claim: Claim, outcome: Outcome) -> Settled:
        """Write the outcome, for as long as the disk takes: the work is done and must not be done again."""
        while True:
            next_lease = self.lease() if self._accepting_work else None
            is_full = len(self._calls) >= self._max_calls
            try:
                return await self._store.settle(claim, outcome, next_lease=next_lease, gives_way=is_full)
            except _TRANSIENT as error:
                _log.warning("the result of a call waits to be written: %s", error.code)
                await asyncio.sleep(self._times.storage_retry_s)
            except Exception as error:
                if isinstance(outcome, CallFailed) and not outcome.retriable:
                    raise
                # It can never be written as it is: the run fails, and says why.
                failure = Failure(name=type(error).__name__, message=ascii(str(error)))
                outcome = CallFailed(failure=failure, retriable=False)


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
