"""Who waits in this process to change one state: first come, first served, and one commit for all who wait.

Whoever waits may lead (`leader.py`): it gets the locks, commits what everybody wants and hands out the answers, while
the others only wait for theirs. There is no thread of our own, so nothing has to be closed and a fork leaves nothing
behind.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Final

import msgspec

from rawr.state.commit import Failed, Operation, Outcome
from rawr.state.faults import ReentrantMutationError
from rawr.state.requests import Posted

# Per thread and task, not per process: the roots whose state the running function is in the middle of changing.
changing: Final[ContextVar[frozenset[Path]]] = ContextVar("changing", default=frozenset())


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """How long somebody waits, in milliseconds."""

    lock_timeout_ms: int
    retry_delay_ms: int
    stale_lock_ms: int


class Ticket:
    """A place in the line. `outcome` is its answer, once there is one."""

    def __init__(
        self, operation: Operation, waits: Waits, on_answer: Callable[[], None] | None, *, attempts_before: int
    ) -> None:
        self.operation = operation
        self.waits = waits
        self.outcome: Outcome | None = None
        self.attempts = 0
        self._attempts_before = attempts_before
        self.waited_ms = 0
        """Until the locks were held, or for as long as it was waited for them."""
        self.posted: Posted | None = None
        self.mark_seen: int | None = None
        """The mark of the last durable commit when it was last looked at."""
        self.is_in_commit = False
        self._joined_s = time.monotonic()
        self._on_answer = on_answer

    @property
    def timeout_s(self) -> float:
        """When it ends, by the monotonic clock."""
        return self._joined_s + self.waits.lock_timeout_ms / 1000

    @property
    def left_s(self) -> float:
        """Until the timeout, in seconds; negative after it."""
        return self.timeout_s - time.monotonic()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._joined_s

    def take_back(self) -> None:
        """Ask nobody any more. For who knows that the request is not being carried out."""
        if self.posted is not None:
            self.posted.close()
            self.posted = None

    def answer(self, outcome: Outcome, *, attempts: int) -> None:
        self.outcome = outcome
        self.attempts = attempts - self._attempts_before
        self.waited_ms = self.waited_ms or round(self.elapsed_s * 1000)
        self.take_back()
        if self._on_answer is not None:
            self._on_answer()


class Line:
    """All who wait in this process for the state below `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._begin()

    def join(self, operation: Operation, waits: Waits, on_answer: Callable[[], None] | None = None) -> Ticket:
        """Stand in line; does not block. `on_answer` is called once, on any thread.

        Raises:
            ReentrantMutationError: the caller is itself being run by a change of this state.
        """
        if self._root in changing.get():
            raise ReentrantMutationError(
                f"a change of the state of {self._root} cannot contain another one",
                details={"root": str(self._root)},
                fix="make both changes in one function, or the second one after the first",
            )
        if self._pid != os.getpid():  # we are in a forked child: who waits and leads is in the parent
            self._begin()
        ticket = Ticket(operation, waits, on_answer, attempts_before=self.attempts)
        with self._changed:
            self._waiting.append(ticket)
            self.joined += 1
        return ticket

    def wait(
        self, ticket: Ticket, *, lead: Callable[[Ticket], None], give_up: Callable[[Ticket, BaseException], bool]
    ) -> Outcome:
        """The answer, as soon as it is there. Leads when nobody else does: `lead` ends when the ticket is answered."""
        try:
            while self._has_to_lead(ticket):
                try:
                    lead(ticket)
                finally:
                    with self._changed:
                        self._is_led = False
                        self._changed.notify_all()
        except BaseException as error:
            give_up(ticket, error)
            raise
        assert ticket.outcome is not None
        return ticket.outcome

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """While nobody joins, is answered or enters a commit."""
        with self._changed:
            yield

    def leave(self, ticket: Ticket, error: BaseException) -> bool:
        """Give up, with `error` for an answer; whether that was before its commit began."""
        with self._changed:
            if ticket.outcome is not None or ticket.is_in_commit:
                return False
            self.answer(ticket, Failed(error))
            return True

    def waiting(self) -> list[Ticket]:
        """In the order in which they came."""
        with self._changed:
            return list(self._waiting)

    def into_commit(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those of `tickets` that still wait; from now on they cannot leave."""
        with self._changed:
            staying = [ticket for ticket in tickets if ticket in self._waiting]
            for ticket in staying:
                ticket.is_in_commit = True
                ticket.waited_ms = round(ticket.elapsed_s * 1000)
            return staying

    def out_of_commit(self, tickets: Sequence[Ticket]) -> None:
        """The commit was given up before it happened."""
        with self._changed:
            for ticket in tickets:
                ticket.is_in_commit = False

    def answer(self, ticket: Ticket, outcome: Outcome) -> None:
        with self._changed:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            ticket.answer(outcome, attempts=self.attempts)
            self._changed.notify_all()

    def refuse(self, tickets: Sequence[Ticket], error: Exception) -> None:
        for ticket in tickets:
            self.answer(ticket, Failed(error))

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()
        self._waiting: list[Ticket] = []
        self._is_led = False
        self.joined = 0
        """How many have ever joined."""
        self.attempts = 0
        """To get a lock, by all who have led."""

    def _has_to_lead(self, ticket: Ticket) -> bool:
        with self._changed:
            while ticket.outcome is None and self._is_led:
                self._changed.wait(1.0)
            if ticket.outcome is None:
                self._is_led = True
            return ticket.outcome is None
