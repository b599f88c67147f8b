"""The one of a line who acts for all: waits for the locks, commits what everybody wants, hands out the answers.

While the kernel lock is busy, what can be asked of its holder is asked (`requests.py`), so that under load one commit
serves many processes; whoever gets the lock carries out the requests of the others first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from rawr.clock import Clock
from rawr.errors import StorageError
from rawr.state import model
from rawr.state.changes import Change, Request
from rawr.state.commit import Committer, Done, Failed, Operation, Standing, read_state, was_intention
from rawr.state.entrance import Entrance
from rawr.state.faults import LockFileLostError, lock_timeout, outcome_unknown
from rawr.state.files import StateFiles
from rawr.state.grouping import Group, group_of, is_shared
from rawr.state.journal import sha_of
from rawr.state.line import Line, Ticket, changing
from rawr.state.lockfile import LockFile, present_holder
from rawr.state.mark import mark_in, read_mark, write_mark
from rawr.state.requests import RequestQueue, Taking
from rawr.storage.atomic import sync_entry_of
from rawr.storage.lock import free

GRACE_S: Final = 2.0
"""How long to wait, after the timeout, for a process that is just answering."""
POSTED_PAUSE_MAX_S: Final = 0.002
"""Who has asked looks often: the answer may be there at any moment."""
PAUSE_MIN_S: Final = 0.001


class _RequesterLeftError(Exception):
    """A requester took its request back at the last moment. The commit is made again without it."""


class _Watch:
    """What a leader that waits has seen last."""

    def __init__(self) -> None:
        self.seen: tuple[int, int | None] | None = None
        """How many had joined, and the mark."""
        self.next_timeout_s = 0.0
        """By the monotonic clock."""


class Leader:
    """Acts for `line`; one at a time."""

    def __init__(
        self, files: StateFiles, clock: Clock, line: Line, notify: Callable[[str], None], *, shares: bool
    ) -> None:
        self._files = files
        self._clock = clock
        self._line = line
        self._shares = shares
        self._notify = notify
        self._committer = Committer(files, clock, notify)
        self._requests = RequestQueue(files.requests)

    def lead(self, mine: Ticket) -> None:
        """Until `mine` is answered. An error that is nobody's in particular is everybody's answer."""
        entrance = Entrance(self._files)
        try:
            watch = _Watch()
            while mine.outcome is None:
                self._line.attempts += 1
                descriptor = entrance.try_pass()
                if descriptor is not None:
                    try:
                        self._enter(descriptor, mine)
                    finally:
                        free(descriptor)
                else:
                    self._look(entrance.mark(), watch)
                    if mine.outcome is None:
                        entrance.back_off(self._pause_max_s(mine, watch))
        except Exception as error:  # noqa: BLE001
            for ticket in self._line.waiting():
                if not self.give_up(ticket, error) and ticket.outcome is None:
                    self._line.answer(ticket, Failed(outcome_unknown(self._files, None)))
        finally:
            entrance.close()

    def _pause_max_s(self, mine: Ticket, watch: _Watch) -> float:
        longest_s = mine.waits.retry_delay_ms / 1000 if mine.posted is None else POSTED_PAUSE_MAX_S
        return max(PAUSE_MIN_S, min(longest_s, watch.next_timeout_s - time.monotonic()))

    # Without the kernel lock.

    def _look(self, mark: int | None, watch: _Watch) -> None:
        """One look at what others do. Nearly free while nothing has happened, as it is taken often."""
        if (self._line.joined, mark) != watch.seen:
            has_asked = self._ask()
            self._listen(mark)
            watch.seen = (self._line.joined, mark) if has_asked else None
            watch.next_timeout_s = min((ticket.timeout_s for ticket in self._line.waiting()), default=0.0)
        if time.monotonic() >= watch.next_timeout_s:
            self._expire()

    def _ask(self) -> bool:
        """Let the holder do what it can do for us; False when somebody has to be asked for again."""
        has_asked = True
        for ticket in self._line.waiting() if self._shares else ():
            change = ticket.operation.change
            if ticket.posted is None and is_shared(change):
                mark = read_mark(self._files.kernel_lock)
                with self._line.still():  # who leaves now must either be seen to have left or have something to claim
                    if ticket.outcome is None:
                        ticket.mark_seen = mark
                        ticket.posted = self._requests.post(change.op, change.id or "")
                        has_asked = has_asked and ticket.posted is not None
        return has_asked

    def _listen(self, mark: int | None) -> None:
        """Hand out what holders have done for us up to the revision that the mark names."""
        news = [ticket for ticket in self._asked().values() if ticket.mark_seen != mark]
        if mark is not None and news:
            for ticket, done in self._found_in_journal(news, upto=mark):
                self._line.answer(ticket, done)
            for ticket in news:
                ticket.mark_seen = mark

    def _found_in_journal(self, asked: Sequence[Ticket], *, upto: int) -> list[tuple[Ticket, Done]]:
        """Those of `asked` whose requests are in a commit up to revision `upto`."""
        by_key = {ticket.posted.request.key: ticket for ticket in asked if ticket.posted is not None}
        oldest = min((ticket.mark_seen or 0 for ticket in asked), default=0)
        found: list[tuple[Ticket, Done]] = []
        for entry in self._committer.journal.entries():
            if entry.rev > upto:
                continue
            if entry.rev <= oldest:
                break
            answered = [by_key[change.key] for change in entry.ops if change.key in by_key]
            if answered:
                done = Done(entry.rev, partial(model.written_state, entry.text))
                found += [(ticket, done) for ticket in answered]
        return found

    def _expire(self) -> None:
        """Send those away whose time is up. What they asked of others is taken back first, or waited for."""
        late = [ticket for ticket in self._line.waiting() if ticket.left_s <= 0]
        if not late:
            return
        holder = present_holder(self._files, self._clock)
        for ticket in late:
            waited_ms = round(ticket.elapsed_s * 1000)
            timeout = lock_timeout(self._files, holder, waited_ms, ticket.waits.stale_lock_ms)
            if not self.give_up(ticket, timeout) and ticket.left_s < -GRACE_S:
                self._line.answer(ticket, Failed(outcome_unknown(self._files, holder)))

    def give_up(self, ticket: Ticket, error: BaseException) -> bool:
        """Answer `ticket` by `error`; whether that was in time, so that its change is never made.

        Otherwise it has its true answer now, or will have it.
        """
        with self._line.still():
            if ticket.outcome is not None:
                return False
            if ticket.posted is not None:
                is_ours_again = ticket.posted.claim()
                for done in self._carried_out(ticket, is_settled=is_ours_again):
                    self._line.answer(ticket, done)
                    return False
                if not is_ours_again:
                    return False
            return self._line.leave(ticket, error)

    def _carried_out(self, ticket: Ticket, *, is_settled: bool) -> list[Done]:
        """What became of a request whose holder may be dead, or was stopped before it could tell.

        Unless it `is_settled`, as nobody can carry it out any more, only the commit that is the state now counts.
        """
        # The journal first: a line that is newer than what was read of the state may never be carried out.
        newest = next(self._committer.journal.entries(), None)
        raw = read_state(self._files.state)
        if raw is None or newest is None:
            return []
        sha = sha_of(raw)
        if newest.sha != sha and not is_settled:
            return []
        durable = read_mark(self._files.kernel_lock) or 0
        found = self._found_in_journal([ticket], upto=newest.rev - was_intention(newest, sha, durable=durable))
        if found:
            sync_entry_of(self._files.state)
        return [done for _, done in found]

    # With the kernel lock.

    def _enter(self, descriptor: int, mine: Ticket) -> None:
        lock_file = LockFile(self._files, self._clock, stale_lock_ms=mine.waits.stale_lock_ms)
        try:
            others_first = True
            while self._holds(lock_file, mine):
                try:
                    self._commit(descriptor, lock_file, others_first=others_first)
                except _RequesterLeftError:
                    self._expire()
                except LockFileLostError:
                    lock_file.release()
                    self._expire()
                others_first = not others_first  # or a stream of requests would keep us for ever
        finally:
            lock_file.release()

    def _holds(self, lock_file: LockFile, mine: Ticket) -> bool:
        """Wait for the lock file, which a TypeScript rawr may hold; False when there is nothing left to wait for."""
        pause_s = PAUSE_MIN_S
        while mine.outcome is None and not lock_file.was_taken and not lock_file.try_hold():
            self._line.attempts += 1
            self._expire()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, mine.waits.retry_delay_ms / 1000)
        return mine.outcome is None

    def _commit(self, descriptor: int, lock_file: LockFile, *, others_first: bool) -> None:
        """One commit of what waits, and its answers: to ours directly, to others by the mark."""
        if lock_file.was_left:
            self._committer.expect_orphans()
        standing = self._committer.standing(mark_in(descriptor, self._files.kernel_lock))
        with self._requests.taking(standing.upto) as taking:
            self._hand_out(standing, taking)
            group = self._group(standing, taking, others_first=others_first)
            tickets = self._line.into_commit(group.direct)
            try:
                revision = self._carry_out(standing, group, tickets, self._fence(taking, group, lock_file))
            finally:
                self._line.out_of_commit(tickets)
            if revision is not None:
                self._tell(descriptor, revision, taking)

    def _tell(self, descriptor: int, revision: int, taking: Taking) -> None:
        """Tell those who wait elsewhere. One who is not told finds out when it gets the lock itself."""
        try:
            write_mark(descriptor, revision, self._files.kernel_lock)
            taking.begin_anew_if_long()
        except StorageError as error:
            self._notify(f"revision {revision} is durable, and others could not be told: {error.message}")

    def _hand_out(self, standing: Standing, taking: Taking) -> None:
        """Give our own the answers that a holder left, who may have died before its commit was durable."""
        asked = self._asked()
        if not asked:
            return
        found = self._found_in_journal(list(asked.values()), upto=standing.revision)
        if found:
            sync_entry_of(self._files.state)
        for ticket, done in found:
            self._line.answer(ticket, done)
        pending = {item.request.key for item in taking.pending}
        for key, ticket in self._asked().items():
            if key not in pending:  # somebody removed the file of requests
                with self._line.still():
                    ticket.take_back()

    def _group(self, standing: Standing, taking: Taking, *, others_first: bool) -> Group[Ticket]:
        direct = [(ticket.operation.change, ticket) for ticket in self._line.waiting() if ticket.posted is None]
        if others_first or not direct:
            return group_of(taking.pending, direct, before=standing.upto, after=taking.upto)
        return group_of((), direct, before=standing.upto, after=standing.upto)

    def _fence(self, taking: Taking, group: Group[Ticket], lock_file: LockFile) -> Callable[[], None]:
        def fence() -> None:
            if taking.claim(item.request for item in group.requests):
                raise _RequesterLeftError
            if not lock_file.is_ours():
                raise LockFileLostError(f"{self._files.lock_file} was removed by somebody else")

        return fence

    def _carry_out(
        self, standing: Standing, group: Group[Ticket], tickets: Sequence[Ticket], fence: Callable[[], None]
    ) -> int | None:
        asked = self._asked() if group.requests else {}
        served = [asked.get(item.request.key) for item in group.requests] + list(tickets)
        ours = [ticket for ticket in served if ticket is not None]
        operations = [operation_of(item.request) for item in group.requests]
        operations += [ticket.operation for ticket in tickets]
        token = changing.set(changing.get() | {self._files.root})
        try:
            outcomes = self._committer.commit(standing, operations, upto=group.upto, fence=fence)
        except (LockFileLostError, _RequesterLeftError):
            raise
        except Exception as error:  # noqa: BLE001 - theirs to see; requesters elsewhere come and see for themselves
            self._line.refuse(ours, error)
            return None
        except BaseException:
            self._line.refuse(ours, outcome_unknown(self._files, None))
            raise
        finally:
            changing.reset(token)
        for ticket, outcome in zip(served, outcomes, strict=True):
            if ticket is not None:
                self._line.answer(ticket, outcome)
        return max((outcome.revision for outcome in outcomes if isinstance(outcome, Done)), default=None)

    def _asked(self) -> dict[int, Ticket]:
        """Our own who have posted a request, by its key."""
        return {ticket.posted.request.key: ticket for ticket in self._line.waiting() if ticket.posted is not None}


def operation_of(request: Request) -> Operation:
    """What a request of another process asks for."""
    apply = {"enable": model.enable, "disable": model.disable}[request.op]
    change = Change(op=request.op, id=request.id, key=request.key)
    return Operation(change, lambda document, at: apply(document, model.plugin_id_of(request.id), at=at))
