"""The repo state of one instance: `.rawr/state/state.json`, for any number of processes, threads and coroutines."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from rawr import wire
from rawr.clock import Clock, SystemClock
from rawr.state import model
from rawr.state.changes import Change
from rawr.state.commit import Done, Operation, Outcome, read_state, standing_in
from rawr.state.faults import WithdrawnError
from rawr.state.files import StateFiles, files_of
from rawr.state.journal import Journal
from rawr.state.leader import Leader
from rawr.state.line import Line, Ticket, Waits
from rawr.state.mark import read_mark
from rawr.state.model import RepoState, StateCorruptError

Mutator = Callable[[RepoState], RepoState]
READ_TRIES: Final = 3
READ_PAUSE_S: Final = 0.005
SNAPSHOT_TRIES: Final = 50
_log: Final = logging.getLogger("rawr.state")


class RepoStateMutationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. What is not a positive number stands for the default; fractions are cut off."""

    lock_timeout_ms: float = 5000
    """How long to wait for others."""
    retry_delay_ms: float = 25
    """The longest pause between two attempts."""
    stale_lock_ms: float = 60_000
    """How old the lock file of a dead process must be before it is taken over."""


class RepoStateMutationResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a change did. It is durable."""

    state: RepoState
    state_path: Path
    lock_path: Path
    attempts: int
    """To get the lock, at least 1."""
    waited_ms: int
    revision: int
    """Counts the commits of the state from 1; changes that were committed together share one."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    state: RepoState
    revision: int
    """0 before the first commit. What somebody else wrote counts as 1 more than the last one."""
    text: str | None
    """The file as it is; None when there is none."""


class RepoStateStore:
    """The state of the instance at `root`, whose real path is the authority: aliases are the same state.

    Readers never lock and never see a file in the middle of a change. Changes wait for each other, within and
    between processes; those that wait at the same time are committed together. Every method blocks; `aio` has the
    same for coroutines. Nothing has to be closed.

    `notify` is told, in a sentence, when a corrupt file was replaced by what the journal knows.
    `shares` lets other processes carry out our enabling and disabling while they hold the lock, and us theirs.
    """

    def __init__(
        self,
        root: Path | str,
        clock: Clock | None = None,
        *,
        options: RepoStateMutationOptions | None = None,
        notify: Callable[[str], None] = _log.warning,
        shares: bool = True,
    ) -> None:
        self.files: Final[StateFiles] = files_of(root)
        self._path_text = str(self.files.state)
        self._clock = clock or SystemClock()
        self._options = options or RepoStateMutationOptions()
        self._line = Line(self.files.root)
        self._leader = Leader(self.files, self._clock, self._line, notify, shares=shares)

    @property
    def root(self) -> Path:
        return self.files.root

    @property
    def path(self) -> Path:
        return self.files.state

    def get(self) -> RepoState:
        """The state as it is on disk now; no plugin enabled when there is no file.

        Raises:
            StateCorruptError, StateVersionError, StorageError: the file is there and cannot be used.
        """
        return self._read()[1]

    def snapshot(self) -> Snapshot:
        """The state with its revision and the text of its file, which belong together. Raises as `get` does."""
        for _ in range(SNAPSHOT_TRIES):
            raw, state = self._read()
            durable = read_mark(self.files.kernel_lock) or 0
            standing = standing_in(self.files, raw, Journal(self.files.journal), durable=durable, at=self._now())
            if read_state(self.files.state) == raw:  # so the journal that was read is that of this file
                break
        return Snapshot(state=state, revision=standing.revision, text=None if raw is None else raw.decode())

    def enable(self, plugin_id: str) -> RepoState:
        """Enable a plugin, which is then not disabled any more; the state after that, which is durable.

        Whether there is such a plugin is the caller's business.

        Raises:
            BadInputError: not a plugin id.
            StateLockTimeoutError: others are changing it; this change will never be made.
            StateCorruptError, StateVersionError, StorageError: nothing was changed.
            DurabilityUnknownError: it is changed, and a power cut may undo that.
            StateOutcomeUnknownError: a process that was about to make the change was stopped in that moment.
        """
        return self._change(enabling(plugin_id)).state

    def disable(self, plugin_id: str) -> RepoState:
        """As `enable`, the other way: disabled on purpose, which is more than not enabled."""
        return self._change(disabling(plugin_id)).state

    def set(self, state: RepoState) -> RepoStateMutationResult:
        """Replace both lists and the time of the change. Keys of the file that are not ours stay."""
        return self._change(setting(state))

    def mutate(self, mutator: Mutator, options: RepoStateMutationOptions | None = None) -> RepoStateMutationResult:
        """Change the state by a function of it, while nobody else changes it. What the function raises is raised.

        `mutator` may run on another thread, and again when the lock was lost to somebody who does not know better.
        """
        return self._change(mutating(mutator), options)

    def restore(self, revision: int, text: str) -> RepoStateMutationResult:
        """Make the state again what `text`, the file of an earlier `revision`, says."""
        return self._change(restoring(revision, text, self.files))

    def join(
        self,
        operation: Operation,
        options: RepoStateMutationOptions | None = None,
        on_answer: Callable[[], None] | None = None,
    ) -> Ticket:
        """Stand in line for `operation` without waiting; `wait` must follow, on any thread."""
        return self._line.join(operation, _waits(options or self._options), on_answer)

    def attend(self, ticket: Ticket) -> Outcome:
        """Block until the ticket has its answer, and do what is needed for it."""
        return self._line.wait(ticket, lead=self._leader.lead, give_up=self._leader.give_up)

    def wait(self, ticket: Ticket) -> RepoStateMutationResult:
        """The result, when it is there. Raises what the change raised."""
        outcome = self.attend(ticket)
        if not isinstance(outcome, Done):
            raise outcome.error
        return RepoStateMutationResult(
            state=outcome.state,
            state_path=self.files.state,
            lock_path=self.files.lock_file,
            attempts=max(1, ticket.attempts),
            waited_ms=ticket.waited_ms,
            revision=outcome.revision,
        )

    def leave(self, ticket: Ticket) -> bool:
        """Give up waiting; whether that was in time, so that the change is never made."""
        return self._leader.give_up(ticket, WithdrawnError("the change was taken back by who asked for it"))

    def _change(self, operation: Operation, options: RepoStateMutationOptions | None = None) -> RepoStateMutationResult:
        return self.wait(self.join(operation, options))

    def _read(self) -> tuple[bytes | None, RepoState]:
        """A file that is written in place, by an editor, may be half there: it is looked at again."""
        for tries_left in reversed(range(READ_TRIES)):
            raw = read_state(self.files.state)
            try:
                document = model.empty(at=self._now()) if raw is None else model.decode(raw, path=self._path_text)
            except StateCorruptError:
                if not tries_left:
                    raise
                time.sleep(READ_PAUSE_S)
            else:
                at = "" if "lastUpdatedAt" in document["plugins"] else self._now()
                return raw, model.state_of(document, at=at)
        raise AssertionError("the last try returns or raises")

    def _now(self) -> str:
        return wire.iso_from_ms(self._clock.now_ms())


def enabling(plugin_id: str) -> Operation:
    accepted = model.plugin_id_of(plugin_id)
    change = Change(op="enable", id=accepted)
    return Operation(change, lambda document, at: model.enable(document, accepted, at=at))


def disabling(plugin_id: str) -> Operation:
    accepted = model.plugin_id_of(plugin_id)
    change = Change(op="disable", id=accepted)
    return Operation(change, lambda document, at: model.disable(document, accepted, at=at))


def setting(state: RepoState) -> Operation:
    return Operation(Change(op="set"), lambda document, at: model.replaced(document, state, at=at, is_set=True))


def mutating(mutator: Mutator) -> Operation:
    def apply(document: model.Document, at: str) -> model.Document:
        return model.replaced(document, mutator(model.state_of(document, at=at)), at=at, is_set=False)

    return Operation(Change(op="mutate"), apply)


def restoring(revision: int, text: str, files: StateFiles) -> Operation:
    document = model.decode(text.encode(), path=f"revision {revision} in {files.journal}")
    return Operation(Change(op="restore", rev=revision), lambda _, at: model.touched(document, at=at))


def _waits(options: RepoStateMutationOptions) -> Waits:
    default = RepoStateMutationOptions()
    return Waits(
        lock_timeout_ms=_whole(options.lock_timeout_ms, default.lock_timeout_ms),
        retry_delay_ms=_whole(options.retry_delay_ms, default.retry_delay_ms),
        stale_lock_ms=_whole(options.stale_lock_ms, default.stale_lock_ms),
    )


def _whole(given: float, default: float) -> int:
    return math.floor(given if math.isfinite(given) and given >= 1 else default)
