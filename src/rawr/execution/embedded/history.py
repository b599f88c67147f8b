"""What the engine remembers of a run, read as one snapshot and without opening the engine: nothing is written.

It also reads the file of an older rawr, which did not note what kind of step each was.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.execution.embedded.damage import damage_said
from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.model import EngineRunStatus, StepOp
from rawr.execution.embedded.outcomes import Failure
from rawr.execution.embedded.protocol import ROOT_STEP
from rawr.execution.embedded.runs import run_events
from rawr.execution.embedded.transition import stored_fragment
from rawr.storage.snapshots import snapshot
from rawr.storage.sqlite import Connection, one, rows

PAGE: Final = 500
# Keys are forgotten after a day; then every event has to be looked at.
_BY_KEY: Final = (
    "SELECT k.run_id FROM functions f CROSS JOIN event_keys k ON k.fn_id = f.fn_id AND k.event_id = ?1"
    " JOIN runs r ON r.run_id = k.run_id ORDER BY k.run_id DESC LIMIT 1"
)
_BY_EVENT: Final = (
    "SELECT r.run_id FROM events e JOIN runs r ON r.event_ulid = e.ulid WHERE e.event_id = ?1"
    " ORDER BY r.run_id DESC LIMIT 1"
)
_AHEAD: Final = (
    "SELECT step_id, name, CASE kind WHEN 'sleep' THEN 'sleep' ELSE 'run' END FROM queue"
    " WHERE run_id = ?1 AND step_id <> ?2 UNION ALL SELECT step_id, name,"
    " CASE WHEN event_name IS NULL THEN 'invoke' ELSE 'wait' END FROM waits WHERE run_id = ?1"
)
_MAY_ASK: Final = (
    "SELECT EXISTS (SELECT 1 FROM queue WHERE run_id = ?1 AND step_id = ?2)"
    " OR EXISTS (SELECT 1 FROM pending WHERE run_id = ?1 AND race = 0)"
)


class EngineRunNotFoundError(BadInputError):
    """No run has this id, and no event with this id has started one."""

    code = "ENGINE_RUN_NOT_FOUND"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """A step that the function asked for."""

    step_id: str
    name: str
    op: StepOp | None
    """None where that was not noted."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """A step that has finished, and what is remembered of it."""

    step: Step
    memo: Fragment


class History(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    fn_id: str
    status: EngineRunStatus
    """Never `waiting`: a held run is running."""
    events: tuple[Fragment, ...]
    steps: tuple[Remembered, ...]
    """In the order in which they finished."""
    ahead: tuple[Step, ...]
    """Asked for and not finished: they are queued or wait, or the run ended without them."""
    may_ask_more: bool
    """The function is about to be asked what comes next, so what it asks for is not known."""
    output: Fragment | None
    error: Failure | None


def find_run(connection: Connection, wanted: str) -> str:
    """The engine's id of a run that is named by that, or by the id of the event that triggered it.

    Raises:
        EngineRunNotFoundError
    """
    if one(connection, "SELECT 1 FROM runs WHERE run_id = ?", (wanted,)) is not None:
        return wanted
    run_id = run_of_event(connection, wanted)
    if run_id is not None:
        return run_id
    raise EngineRunNotFoundError(f"the engine has no run {wanted}", details={"runId": wanted}, fix="rawr engine runs")


def run_of_event(connection: Connection, event_id: str) -> str | None:
    """The newest run of the event with this id of its sender's."""
    for sql in (_BY_KEY, _BY_EVENT):
        row = one(connection, sql, (event_id,))
        if row is not None:
            return str(row[0])
    return None


def run_named(database: Path, wanted: str) -> str:
    """`find_run` in the file of an engine."""
    with damage_said(), snapshot(database) as connection:
        return find_run(connection, wanted)


def run_ids(database: Path) -> Iterator[str]:
    """All runs but those of failure handlers, newest first; those that begin meanwhile are not among them."""
    before = "~"
    while True:
        with damage_said(), snapshot(database) as connection:
            found = rows(
                connection,
                "SELECT run_id FROM runs WHERE run_id < ? AND fn_id NOT IN"
                " (SELECT fn_id FROM triggers WHERE of_function IS NOT NULL) ORDER BY run_id DESC LIMIT ?",
                (before, PAGE),
            )
        yield from (run_id for (run_id,) in found)
        if len(found) < PAGE:
            return
        before = found[-1][0]


def read_history(database: Path, run_id: str) -> History:
    """Raises EngineRunNotFoundError."""
    with damage_said(), snapshot(database) as connection:
        return history_of(connection, run_id)


def history_of(connection: Connection, run_id: str) -> History:
    """Raises EngineRunNotFoundError."""
    row = one(connection, "SELECT status, output, error FROM runs WHERE run_id = ?", (run_id,))
    if row is None:
        raise EngineRunNotFoundError(f"the engine has no run {run_id}", details={"runId": run_id})
    status, output, error = row
    fn_id, events = run_events(connection, run_id)
    has_ended = EngineRunStatus(status) not in (EngineRunStatus.QUEUED, EngineRunStatus.RUNNING)
    return History(
        run_id=run_id,
        fn_id=fn_id,
        status=EngineRunStatus(status),
        events=tuple(body for _, body in events),
        steps=tuple(_steps(connection, run_id)),
        ahead=tuple(_ahead(connection, run_id, has_ended=has_ended)),
        may_ask_more=has_ended or one(connection, _MAY_ASK, (run_id, ROOT_STEP)) == (1,),
        output=None if output is None else Fragment(output.encode()),
        error=None if error is None else msgspec.json.decode(error, type=Failure),
    )


def _steps(connection: Connection, run_id: str) -> Iterator[Remembered]:
    notes_ops = one(connection, "SELECT 1 FROM pragma_table_info('steps') WHERE name = 'op'") is not None
    op_column = "op" if notes_ops else "NULL"
    sql = f"SELECT step_id, name, {op_column}, memo, memo_canonical FROM steps WHERE run_id = ? ORDER BY seq"  # noqa: S608
    for step_id, name, op, *memo in rows(connection, sql, (run_id,)):
        step = Step(step_id=step_id, name=name, op=None if op is None else StepOp(op))
        yield Remembered(step=step, memo=stored_fragment(*memo))


def _ahead(connection: Connection, run_id: str, *, has_ended: bool) -> Iterator[Step]:
    found = rows(connection, _AHEAD, (run_id, ROOT_STEP))
    if has_ended and one(connection, "SELECT 1 FROM sqlite_schema WHERE name = 'unfinished'") is not None:
        found = rows(connection, "SELECT step_id, name, op FROM unfinished WHERE run_id = ?", (run_id,))
    for step_id, name, op in found:
        yield Step(step_id=step_id, name=name, op=StepOp(op))
