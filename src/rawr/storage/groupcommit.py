"""One thread that commits what many callers wait for, in groups. Knows no database.

While one group is being forced to disk the next one gathers, so the cost of an fsync is shared by all who wait,
without any artificial delay. A caller is answered only after its group was committed.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec

from rawr.errors import StorageError
from rawr.storage.faults import OutcomeUnknownError

GROUP_MAX: Final = 256
ANSWER_TIMEOUT_S: Final = 60.0
"""Longer than any wait inside a commit, so that this fires only when the disk itself hangs."""

T = TypeVar("T")
U = TypeVar("U")
"""A unit of work, in whatever form the committer understands."""


class WriterClosedError(StorageError):
    """The store was closed. Nothing was changed."""

    code = "DATABASE_CLOSED"


class Done(msgspec.Struct, frozen=True):
    value: Any


class Failed(msgspec.Struct, frozen=True):
    error: BaseException


Outcome = Done | Failed


class _Ticket(Generic[U]):
    __slots__ = ("future", "loop", "unit")

    def __init__(
        self,
        unit: U,
        future: asyncio.Future[Any] | concurrent.futures.Future[Any],
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        self.unit = unit
        self.future = future
        self.loop = loop


class GroupWriter(Generic[U]):
    """`commit(units)` runs on the writer's thread, makes the group durable and gives one outcome per unit."""

    def __init__(
        self, name: str, commit: Callable[[Sequence[U]], Sequence[Outcome]], *, answer_s: float = ANSWER_TIMEOUT_S
    ) -> None:
        """Whoever waits for a commit gives up after `answer_s` and does not know whether it took place."""
        self._name = name
        self._answer_s = answer_s
        self._commit = commit
        self._queue: queue.SimpleQueue[_Ticket[U] | None] = queue.SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def submit(self, unit: U) -> Any:
        """Wait until `unit` is committed. Cancelling the waiter does not withdraw the unit."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._enqueue(_Ticket(unit, future, loop))
        alarm = loop.call_later(self._answer_s, self._give_up, future)
        try:
            return await future
        finally:
            alarm.cancel()

    def submit_sync(self, unit: U) -> Any:
        assert threading.current_thread() is not self._thread, "a unit waits for its own writer"
        try:
            return self.submit_soon(unit).result(self._answer_s)
        except concurrent.futures.TimeoutError as error:
            raise self._unanswered() from error

    def submit_soon(self, unit: U) -> concurrent.futures.Future[Any]:
        """Take `unit`, and wait for nothing. The future is done when it was committed, by the writer's thread."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._enqueue(_Ticket(unit, future, None))
        return future

    def close(self) -> None:
        """Commit what was accepted, then stop. Safe to call twice."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        self._thread.join(ANSWER_TIMEOUT_S)

    def _enqueue(self, ticket: _Ticket[U]) -> None:
        with self._door:  # nothing may be queued behind the end mark, it would wait for ever
            if self._closed:
                raise WriterClosedError(f"{self._name} is closed")
            self._queue.put(ticket)

    def _unanswered(self) -> OutcomeUnknownError:
        return OutcomeUnknownError(f"{self._name} gave no answer within {self._answer_s:g} s")

    def _give_up(self, future: asyncio.Future[Any]) -> None:
        _settle(future, Failed(self._unanswered()))

    def _work(self) -> None:
        try:
            while group := self._next_group():
                _deliver(group, self._outcomes(group))
        finally:
            with self._door:
                self._closed = True
            self._refuse_rest()

    def _next_group(self) -> list[_Ticket[U]]:
        """At least one ticket, and whatever else is waiting already; empty at the end."""
        first = self._queue.get()
        if first is None:
            return []
        group = [first]
        while len(group) < GROUP_MAX:
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                break
            if ticket is None:
                self._queue.put(None)
                break
            group.append(ticket)
        return group

    def _outcomes(self, group: Sequence[_Ticket[U]]) -> Sequence[Outcome]:
        try:
            outcomes = self._commit([ticket.unit for ticket in group])
        except BaseException as error:
            _deliver(group, [Failed(error)] * len(group))
            raise  # the thread ends and the writer is closed, rather than going on in an unknown state
        assert len(outcomes) == len(group)
        return outcomes

    def _refuse_rest(self) -> None:
        while True:
            try:
                ticket = self._queue.get_nowait()
            except queue.Empty:
                return
            if ticket is not None:
                _deliver([ticket], [Failed(WriterClosedError(f"{self._name} has stopped"))])


def _deliver(group: Sequence[_Ticket[U]], outcomes: Sequence[Outcome]) -> None:
    """Answer everybody; all waiters of one event loop are woken by a single call into it."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Outcome]]] = defaultdict(list)
    for ticket, outcome in zip(group, outcomes, strict=True):
        if ticket.loop is None:
            _settle(ticket.future, outcome)
        else:
            assert isinstance(ticket.future, asyncio.Future)
            by_loop[ticket.loop].append((ticket.future, outcome))
    for loop, settled in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle_all, settled)
        except RuntimeError:
            continue  # that loop has been closed: nobody is left there to be told


def _settle_all(settled: Sequence[tuple[asyncio.Future[Any], Outcome]]) -> None:
    for future, outcome in settled:
        _settle(future, outcome)


def _settle(future: asyncio.Future[Any] | concurrent.futures.Future[Any], outcome: Outcome) -> None:
    if future.done():  # cancelled or timed out meanwhile
        return
    match outcome:
        case Done(value=value):
            future.set_result(value)
        case Failed(error=error):
            future.set_exception(error)
