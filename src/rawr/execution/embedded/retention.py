"""Forgetting what is over: ended runs with their steps, events that no run is about, keys that nobody is held to.

Every function here is part of one transition inside the caller's transaction, of a size that others can wait for.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.execution.embedded.events import DEDUPE_MS
from rawr.execution.embedded.transition import Transition
from rawr.storage.sqlite import rows, run
from rawr.wire import encode_canonical

PAGE: Final = 200


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    removed: int
    last_ulid: str | None
    """Go on after this one; None at the end."""


def forget_runs(at: Transition, before_ms: int) -> int:
    """Remove up to `PAGE` runs that ended before this time; how many there were."""
    found = rows(
        at.connection,
        "SELECT run_id FROM runs WHERE ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT ?",
        (before_ms, PAGE),
    )
    ids = encode_canonical([run_id for (run_id,) in found]).decode()
    for table in ("steps", "step_inputs", "run_events", "accepted_code", "unfinished", "runs"):
        sql = f"DELETE FROM {table} WHERE run_id IN (SELECT value FROM json_each(?))"  # noqa: S608 - a constant name
        run(at.connection, sql, (ids,))
    return len(found)


def forget_events(at: Transition, before_ms: int, after_ulid: str) -> EventPage:
    """Remove those of the next `PAGE` events that came before this time and that nothing is about any more."""
    found = rows(at.connection, "SELECT ulid FROM events WHERE ulid > ? ORDER BY ulid LIMIT ?", (after_ulid, PAGE))
    removed = rows(
        at.connection,
        "DELETE FROM events WHERE ulid IN (SELECT value FROM json_each(?)) AND routed = 1 AND received_at < ?"
        " AND NOT EXISTS (SELECT 1 FROM runs r WHERE r.event_ulid = ulid)"
        " AND NOT EXISTS (SELECT 1 FROM run_events r WHERE r.event_ulid = ulid)"
        " AND NOT EXISTS (SELECT 1 FROM debounces d WHERE d.event_ulid = ulid)"
        " AND NOT EXISTS (SELECT 1 FROM batch_events b WHERE b.event_ulid = ulid) RETURNING 1",
        (encode_canonical([ulid for (ulid,) in found]).decode(), before_ms),
    )
    return EventPage(removed=len(removed), last_ulid=found[-1][0] if len(found) == PAGE else None)


def forget_keys(at: Transition) -> None:
    """Remove the ids of events, the starts and the throttles that bind nobody any more."""
    run(at.connection, "DELETE FROM event_keys WHERE seen_at <= ?", (at.now_ms - DEDUPE_MS,))
    run(at.connection, "DELETE FROM rate_starts WHERE until <= ?", (at.now_ms,))
    run(at.connection, "DELETE FROM throttles WHERE full_at <= ?", (at.now_ms,))
