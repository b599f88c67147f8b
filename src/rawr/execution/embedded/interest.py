"""Who may be concerned by an event: rows of `waits` or `cancels`, found by its name and the value they look for.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from rawr.execution.embedded.matching import equality_of, key_at
from rawr.execution.embedded.model import NewEvent
from rawr.execution.embedded.transition import Transition, stored_fragment
from rawr.execution.expressions import Scope
from rawr.storage.sqlite import SqlValue, one, rows
from rawr.wire import JsonValue


class Interest(msgspec.Struct, frozen=True, kw_only=True):
    """A table of those who may be concerned. Its rows have a run, an event name, a condition, and a place."""

    table: str
    row_id: str
    """The column that `concerned` answers with."""
    valid: str = "1"
    """Which rows still count, as SQL over the row `i` and `:now`."""


def place_of(condition: str | None, trigger: Callable[[], JsonValue]) -> tuple[str | None, str | None]:
    """Where a new row is found: the path in the coming event and the key of the value there, or nowhere special."""
    equality = None if condition is None else equality_of(condition)
    key = None if equality is None else key_at(trigger(), equality.event_path)
    return (None, None) if equality is None or key is None else (equality.async_path, key)


def interest_in(at: Transition, event_name: str) -> tuple[bool, bool]:
    """Whether there are waits for such an event, and whether there are runs that such an event may cancel."""
    row = one(
        at.connection,
        "SELECT EXISTS (SELECT 1 FROM waits WHERE event_name = ?1),"
        " EXISTS (SELECT 1 FROM cancels WHERE event_name = ?1)",
        (event_name,),
    )
    assert row is not None
    return bool(row[0]), bool(row[1])


def concerned(at: Transition, event: NewEvent, interest: Interest) -> list[str]:
    """The rows whose condition holds for the event, each with the trigger of its own run."""
    select = (
        f"SELECT i.{interest.row_id}, i.condition, e.body, e.body_canonical FROM {interest.table} i"  # noqa: S608
        " JOIN runs r ON r.run_id = i.run_id JOIN events e ON e.ulid = r.event_ulid"
        f" WHERE i.event_name = :name AND {interest.valid}"
    )
    asked: dict[str, SqlValue] = {"name": event.name, "now": at.now_ms}
    found = rows(at.connection, f"{select} AND i.match_path IS NULL", asked)
    candidate = event.body.value() if found else None
    for path in _paths(at, event.name, interest.table):
        candidate = event.body.value() if candidate is None else candidate
        place = {"path": path, "key": key_at(candidate, path)}
        found += rows(at.connection, f"{select} AND i.match_path = :path AND i.match_key = :key", {**asked, **place})
    return sorted(
        row_id
        for row_id, condition, *trigger in found
        if condition is None or at.expressions.is_true(condition, Scope(stored_fragment(*trigger).value(), candidate))
    )


def _paths(at: Transition, event_name: str, table: str) -> Iterator[str]:
    """The few paths that rows for this event are found by; each is one step in the index, whatever lies between."""
    path = ""
    sql = f"SELECT min(match_path) FROM {table} WHERE event_name = ? AND match_path > ?"  # noqa: S608 - a constant name
    while (row := one(at.connection, sql, (event_name, path))) is not None and row[0] is not None:
        path = row[0]
        yield path
