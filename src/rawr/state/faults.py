"""What can go wrong between the writers of one state, as errors that name the holder. No I/O here."""

from __future__ import annotations

from typing import Any

import msgspec

from rawr.errors import RawrError
from rawr.state.files import StateFiles
from rawr.state.stale import ORIGINAL_STALE_MS, Holder, described
from rawr.storage.faults import OutcomeUnknownError


class StateLockTimeoutError(RawrError):
    """Somebody else was changing the state for the whole time. Nothing was changed, and nothing will be."""

    code = "STATE_LOCK_TIMEOUT"


class ReentrantMutationError(RawrError):
    """A change of a state tried to make another change of the same state. Neither was made by this attempt."""

    code = "STATE_REENTRANT"


class StateOutcomeUnknownError(OutcomeUnknownError):
    """A process that was about to carry the change out does not go on. It may be carried out later."""

    code = "STATE_OUTCOME_UNKNOWN"


class WithdrawnError(RawrError):
    """Who asked for a change no longer waits for it. It was not made."""

    code = "STATE_WITHDRAWN"


class LockFileLostError(RawrError):
    """Somebody removed our lock file while we were writing. Nothing was changed; it is done again."""

    code = "STATE_LOCK_LOST"


class ForkedInChangeError(RawrError):
    """The function that changes a state was left by a forked child, which holds no lock."""

    code = "STATE_FORKED"


def lock_timeout(files: StateFiles, holder: Holder | None, waited_ms: int, stale_lock_ms: int) -> StateLockTimeoutError:
    who = "its holder has just let go" if holder is None else f"held by {described(holder)}"
    return StateLockTimeoutError(
        f"Timed out waiting for repo state lock: {files.lock_file}: {who}; waited {waited_ms} ms",
        details=_details(files, holder) | {"waitedMs": waited_ms},
        fix=_way_out(holder, stale_lock_ms),
    )


def outcome_unknown(files: StateFiles, holder: Holder | None) -> StateOutcomeUnknownError:
    who = "a process" if holder is None else described(holder)
    return StateOutcomeUnknownError(
        f"{who} was about to carry out this change of {files.state} and does not go on",
        details=_details(files, holder),
        fix="let that process go on or end it, then look at: rawr state show",
    )


def _details(files: StateFiles, holder: Holder | None) -> dict[str, Any]:
    return {
        "statePath": str(files.state),
        "lockPath": str(files.lock_file),
        "holder": None if holder is None else {**msgspec.to_builtins(holder), "id": holder.id},
    }


def _way_out(holder: Holder | None, stale_lock_ms: int) -> str:
    if holder is None:
        return "try again"
    if holder.is_alive is False and holder.age_ms is not None:
        left_s = max(0, min(stale_lock_ms, ORIGINAL_STALE_MS) - holder.age_ms) / 1000
        return f"try again in {left_s:.0f} s, when the lock of the dead process is taken over; or: rawr state unlock"
    return f"wait for that process, or end it and try again (holder id {holder.id})"
