"""Questions about what has come in and what became of it: events, runs, and the steps of a run. Changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

import msgspec

from rawr.execution.embedded.model import EngineRunStatus, JobKind
from rawr.execution.embedded.protocol import ROOT_STEP
from rawr.storage.sqlite import Connection, rows
from rawr.wire import JsonValue

T = TypeVar("T")

_EVENTS: Final = "SELECT ulid, name, body, received_at FROM events"
_RUNS: Final = (
    "SELECT r.run_id, r.fn_id, r.event_ulid, r.status, r.queued_at, r.started_at, r.ended_at, r.steps, r.output,"
    " r.error, r.version, f.app_id FROM runs r JOIN functions f ON f.fn_id = r.fn_id"
)
_RUNS_OF_EVENT: Final = (
    f"{_RUNS} WHERE r.event_ulid = ?1"  # noqa: S608 - a constant text
    " OR r.run_id IN (SELECT run_id FROM run_events WHERE event_ulid = ?1) ORDER BY r.run_id LIMIT ?2"
)
_OPS: Final = {JobKind.CALL: "StepRun", JobKind.SLEEP: "Sleep"}


class StepStatus(StrEnum):
    COMPLETED = "completed"
    FAILED = "failed"
    RUNNING = "running"
    QUEUED = "queued"
    WAITING = "waiting"


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    ulid: str
    name: str
    body: JsonValue
    """As functions see it."""
    received_at_ms: int


class EventsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which events, newest first."""

    limit: int
    before_ulid: str | None = None
    name: str | None = None
    received_from_ms: int = 0
    received_before_ms: int = 2**62


class RunTold(msgspec.Struct, frozen=True, kw_only=True):
    run_id: str
    app_id: str
    fn_id: str
    version: str
    event_ulid: str
    status: EngineRunStatus
    queued_at_ms: int
    started_at_ms: int | None
    ended_at_ms: int | None
    steps: int
    output: JsonValue
    error: JsonValue


class StepTold(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    op: str
    status: StepStatus
    attempt: int
    """From 0; the last one that was begun or is next."""
    input: JsonValue
    output: JsonValue
    error: JsonValue
    """Why it failed; of a step that is tried again, why its last attempt did."""
    ended_at_ms: int | None
    due_at_ms: int | None
    """When it is tried again or a wait ends at the latest, if that is known."""


class FunctionTold(msgspec.Struct, frozen=True, kw_only=True):
    fn_id: str
    name: str
    config: JsonValue


class AppTold(msgspec.Struct, frozen=True, kw_only=True):
    app_id: str
    url: str
    synced_at_ms: int
    functions: tuple[FunctionTold, ...]


class Reader(Protocol):
    async def read(self, question: Callable[[Connection], T]) -> T: ...


class Inspection:
    """What the file of an engine tells."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def events(self, asked: EventsAsked) -> list[StoredEvent]:
        sql = (
            f"{_EVENTS} WHERE ulid < ? AND (?2 IS NULL OR name = ?2) AND received_at >= ? AND received_at < ?"
            " ORDER BY ulid DESC LIMIT ?"
        )
        before = asked.before_ulid or "~"  # after every ULID
        parameters = (before, asked.name, asked.received_from_ms, asked.received_before_ms, asked.limit)
        return [_event(row) for row in await self._rows(sql, parameters)]

    async def event(self, ulid: str) -> StoredEvent | None:
        found = await self._rows(f"{_EVENTS} WHERE ulid = ?", (ulid,))
        return _event(found[0]) if found else None

    async def runs_of_event(self, ulid: str, limit: int) -> list[RunTold]:
        """The runs that it started, alone or in a batch; oldest first."""
        return [_run(row) for row in await self._rows(_RUNS_OF_EVENT, (ulid, limit))]

    async def run(self, run_id: str) -> RunTold | None:
        found = await self._rows(f"{_RUNS} WHERE r.run_id = ?", (run_id,))
        return _run(found[0]) if found else None

    async def steps(self, run_id: str) -> list[StepTold]:
        """Those that have ended, in the order in which they did; then those that are ahead or under way."""
        return await self._reader.read(lambda c: _steps(c, run_id))

    async def apps(self) -> list[AppTold]:
        return await self._reader.read(_apps)

    async def has_function(self, fn_id: str) -> bool:
        return bool(await self._rows("SELECT 1 FROM functions WHERE fn_id = ?", (fn_id,)))

    async def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Sequence[Any]]:
        return await self._reader.read(lambda c: [*rows(c, sql, parameters)])


def _steps(connection: Connection, run_id: str) -> list[StepTold]:
    asked = {
        step_id: (op, msgspec.json.decode(text))
        for step_id, op, text in rows(
            connection, "SELECT step_id, op, input FROM step_inputs WHERE run_id = ?", (run_id,)
        )
    }
    ended = rows(
        connection,
        "SELECT step_id, name, memo, attempt, ended_at FROM steps WHERE run_id = ? ORDER BY seq",
        (run_id,),
    )
    queued = rows(
        connection,
        "SELECT step_id, name, kind, attempt, last_error, lease_owner, due_at FROM queue"
        " WHERE run_id = ? AND (step_id <> ? OR last_error IS NOT NULL) ORDER BY rowid",
        (run_id, ROOT_STEP),
    )
    waits = rows(
        connection,
        "SELECT w.step_id, w.name, t.due_at FROM waits w LEFT JOIN timers t ON t.timer_id = w.wait_id"
        " WHERE w.run_id = ? ORDER BY w.rowid",
        (run_id,),
    )
    return [
        *(_ended_step(row, asked) for row in ended),
        *(_queued_step(row, asked) for row in queued),
        *(_waiting_step(row, asked) for row in waits),
    ]


_Asked = dict[str, tuple[str, JsonValue]]


def _ended_step(row: Sequence[Any], asked: _Asked) -> StepTold:
    step_id, name, text, attempt, ended_at = row
    op, given = asked.get(step_id, (_OPS[JobKind.CALL], None))
    output, error = _of_memo(msgspec.json.decode(text))
    return StepTold(
        step_id=step_id,
        name=name,
        op=op,
        status=StepStatus.COMPLETED if error is None else StepStatus.FAILED,
        attempt=attempt,
        input=given,
        output=output,
        error=error,
        ended_at_ms=ended_at,
        due_at_ms=None,
    )


def _of_memo(memo: JsonValue) -> tuple[JsonValue, JsonValue]:
    """Output and error. A memo that is wrapped has one of the two keys and no other; an event has a name."""
    if isinstance(memo, dict) and len(memo) == 1:
        if "data" in memo:
            return memo["data"], None
        if "error" in memo:
            return None, memo["error"]
    return memo, None


def _queued_step(row: Sequence[Any], asked: _Asked) -> StepTold:
    step_id, name, kind, attempt, last_error, lease_owner, due_at = row
    lost = {} if last_error is None else msgspec.json.decode(last_error)
    # A step that ran on sight failed in a call that was not made for it.
    step_id, name = lost.get("step_id", step_id), lost.get("name", name)
    op, given = asked.get(step_id, (_OPS[JobKind(kind)], None))
    if kind == JobKind.SLEEP.value:
        status = StepStatus.WAITING
    else:
        status = StepStatus.QUEUED if lease_owner is None else StepStatus.RUNNING
    return StepTold(
        step_id=step_id,
        name=name,
        op=op,
        status=status,
        attempt=attempt,
        input=given,
        output=None,
        error=lost.get("error"),
        ended_at_ms=None,
        due_at_ms=due_at,
    )


def _waiting_step(row: Sequence[Any], asked: _Asked) -> StepTold:
    step_id, name, due_at = row
    op, given = asked.get(step_id, ("WaitForEvent", None))
    return StepTold(
        step_id=step_id,
        name=name,
        op=op,
        status=StepStatus.WAITING,
        attempt=0,
        input=given,
        output=None,
        error=None,
        ended_at_ms=None,
        due_at_ms=due_at,
    )


def _apps(connection: Connection) -> list[AppTold]:
    found = rows(connection, "SELECT app_id, url, synced_at FROM apps ORDER BY app_id")
    functions = rows(connection, "SELECT app_id, fn_id, name, config FROM functions WHERE archived = 0 ORDER BY fn_id")
    return [
        AppTold(
            app_id=app_id,
            url=url,
            synced_at_ms=synced_at,
            functions=tuple(
                FunctionTold(fn_id=fn_id, name=name, config=msgspec.json.decode(config))
                for of_app, fn_id, name, config in functions
                if of_app == app_id
            ),
        )
        for app_id, url, synced_at in found
    ]


def _event(row: Sequence[Any]) -> StoredEvent:
    ulid, name, body, received_at = row
    return StoredEvent(ulid=ulid, name=name, body=msgspec.json.decode(body), received_at_ms=received_at)


def _run(row: Sequence[Any]) -> RunTold:
    run_id, fn_id, event_ulid, status, queued_at, started_at, ended_at, steps, output, error, version, app_id = row
    return RunTold(
        run_id=run_id,
        app_id=app_id,
        fn_id=fn_id,
        version=version,
        event_ulid=event_ulid,
        status=EngineRunStatus(status),
        queued_at_ms=queued_at,
        started_at_ms=started_at,
        ended_at_ms=ended_at,
        steps=steps,
        output=None if output is None else msgspec.json.decode(output),
        error=None if error is None else msgspec.json.decode(error),
    )
