"""Running again what has run: all of it, or from a step on, with the same data or other data.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

import msgspec

from rawr.errors import BadInputError
from rawr.execution.embedded.fragment import Fragment, fragment
from rawr.execution.embedded.protocol import EVENT_MAX_BYTES
from rawr.execution.embedded.registry import function_of
from rawr.execution.embedded.runs import Cancelled, end_run, run_events
from rawr.execution.embedded.starts import LazyScope, Start, start_run
from rawr.execution.embedded.transition import Transition, stored_texts
from rawr.storage.sqlite import one, run
from rawr.wire import JsonValue


class RerunRefusedError(BadInputError):
    """There is no such run or step, or its function cannot run now."""

    code = "ENGINE_RERUN_REFUSED"


class Rerun(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    from_step: str | None = None
    """The id or name of a step: it and what finished after it runs again, what finished before it is kept."""
    data: dict[str, JsonValue] | None = None
    """Takes the place of the data of the run's event."""
    end_old: bool = False
    """Cancel the old run if it has not ended, in the same transaction."""


def rerun(at: Transition, asked: Rerun) -> str:
    """Start a new run like the old one, whose history stays as it is; its id.

    Raises:
        RerunRefusedError, NotCanonicalError
    """
    old = one(at.connection, "SELECT fn_id, event_ulid, is_batch FROM runs WHERE run_id = ?", (asked.run_id,))
    if old is None:
        raise RerunRefusedError(f"there is no run {asked.run_id}")
    fn_id, event_ulid, is_batch = old
    if one(at.connection, "SELECT 1 FROM functions WHERE fn_id = ? AND archived = 0", (fn_id,)) is None:
        raise RerunRefusedError(f"the function {fn_id} of run {asked.run_id} is not registered any more")
    kept = _steps_before(at, asked)
    _, events = run_events(at.connection, asked.run_id)
    ulids, first = _ulids(at, asked.run_id, event_ulid, is_batch=bool(is_batch)), events[0][1]
    if asked.data is not None:
        if len(ulids) > 1:
            raise RerunRefusedError(f"run {asked.run_id} has a batch of {len(ulids)} events; their data is kept")
        first = _with_data(first, asked.data)
        ulids = (_store_event(at, event_ulid, first),)
    new_id = at.new_ulid()
    if asked.end_old:
        end_run(at, asked.run_id, Cancelled(reason=f"it is run again as {new_id}"))
    start = Start(run_id=new_id, event_ulids=ulids, due_ms=at.now_ms, rerun_of=asked.run_id)
    if not start_run(at, function_of(at, fn_id), start, LazyScope(at, first)):
        raise RerunRefusedError(f"a run of {fn_id} is under way, and it allows one at a time")
    _copy_steps(at, asked.run_id, start.run_id, kept)
    return start.run_id


def _steps_before(at: Transition, asked: Rerun) -> int:
    """How many of the old run's steps are kept."""
    if asked.from_step is None:
        return 0
    row = one(
        at.connection,
        "SELECT seq FROM steps WHERE run_id = ? AND (step_id = ? OR name = ?) ORDER BY seq LIMIT 1",
        (asked.run_id, asked.from_step, asked.from_step),
    )
    if row is None:
        raise RerunRefusedError(f"run {asked.run_id} has no finished step {asked.from_step!r}")
    return int(row[0]) - 1


def _ulids(at: Transition, run_id: str, event_ulid: str, *, is_batch: bool) -> tuple[str, ...]:
    if not is_batch:
        return (event_ulid,)
    found = at.connection.execute("SELECT event_ulid FROM run_events WHERE run_id = ? ORDER BY seq", (run_id,))
    return tuple(ulid for (ulid,) in found)


def _with_data(event: Fragment, data: dict[str, JsonValue]) -> Fragment:
    body = fragment({**event.value(), "data": data})
    if body.size_bytes > EVENT_MAX_BYTES:
        raise RerunRefusedError(f"the data makes an event of {body.size_bytes} bytes; the limit is {EVENT_MAX_BYTES}")
    return body


def _store_event(at: Transition, like_ulid: str, body: Fragment) -> str:
    """Keep an event that only this run is about: it triggers nothing else."""
    ulid = at.new_ulid()
    run(
        at.connection,
        "INSERT INTO events (ulid, event_id, name, of_function, body, body_canonical, received_at, routed)"
        " SELECT ?, ?, name, of_function, ?, ?, ?, 1 FROM events WHERE ulid = ?",
        (ulid, ulid, *stored_texts(body), at.now_ms, like_ulid),
    )
    return ulid


def _copy_steps(at: Transition, old_id: str, new_id: str, count: int) -> None:
    run(
        at.connection,
        "INSERT INTO steps (run_id, step_id, seq, name, memo, memo_canonical, attempt, ended_at, op)"
        " SELECT ?, step_id, seq, name, memo, memo_canonical, attempt, ended_at, op FROM steps"
        " WHERE run_id = ? AND seq <= ?",
        (new_id, old_id, count),
    )
    run(
        at.connection,
        "UPDATE runs SET (steps, state_bytes) = (SELECT count(*), coalesce(sum(octet_length(memo)), 0) FROM steps"
        " WHERE run_id = ?1) WHERE run_id = ?1",
        (new_id,),
    )
