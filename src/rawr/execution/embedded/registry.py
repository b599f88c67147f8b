"""The functions that an app has registered, as routing and claiming find them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence

import msgspec

from rawr.errors import RawrError
from rawr.execution.embedded import jobs, schedules
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.pins import offer_code, withdraw_code
from rawr.execution.embedded.transition import Transition
from rawr.storage.sqlite import Connection, one, rows, run
from rawr.wire import encode_canonical


class FunctionTakenError(RawrError):
    """Two apps cannot have a function of one id: a run would not know whose it is."""

    code = "ENGINE_FUNCTION_TAKEN"


def register(at: Transition, app_id: str, functions: Sequence[RegisteredFunction], url: str | None) -> bool:
    """Make these the functions of the app at `url` (None: where it was); others that it had start no new runs.

    Whether anything is new.

    Raises:
        FunctionTakenError: another app has a function of such an id.
    """
    checksum = hashlib.sha256(encode_canonical(list(functions))).hexdigest()
    known = one(at.connection, "SELECT checksum, url FROM apps WHERE app_id = ?", (app_id,))
    if url is None:
        url = "" if known is None else known[1]
    if known == (checksum, url):
        return False
    if known is not None and known[0] == checksum:
        _retire_others_at(at, app_id, url)
        run(at.connection, "UPDATE apps SET url = ?, synced_at = ? WHERE app_id = ?", (url, at.now_ms, app_id))
        return True
    if url:
        _retire_others_at(at, app_id, url)
    _refuse_taken(at, app_id, functions)
    run(
        at.connection,
        "INSERT INTO apps (app_id, checksum, synced_at, url) VALUES (?, ?, ?, ?) ON CONFLICT (app_id) DO UPDATE"
        " SET checksum = excluded.checksum, synced_at = excluded.synced_at, url = excluded.url",
        (app_id, checksum, at.now_ms, url),
    )
    _retire(at, app_id)
    for function in functions:
        _register_one(at, app_id, function)
        schedules.schedule(at, function)
    schedules.unschedule_archived(at)
    jobs.call_all(at)
    return True


def registered_versions(connection: Connection) -> dict[str, str]:
    """The version of every function that an app has now."""
    return dict(rows(connection, "SELECT fn_id, version FROM functions WHERE archived = 0"))


def offer(at: Transition, owner: str, versions: Mapping[str, str], code: Collection[str] = ()) -> None:
    """This engine serves these versions of functions and has this code from now on."""
    withdraw(at, [owner])
    values = [(owner, fn_id, version) for fn_id, version in versions.items()]
    at.connection.execute_many("INSERT INTO offers VALUES (?, ?, ?)", values)
    offer_code(at, owner, list(versions), code)


def withdraw(at: Transition, owners: Sequence[str]) -> None:
    """These engines serve nothing any more."""
    run(
        at.connection,
        "DELETE FROM offers WHERE owner IN (SELECT value FROM json_each(?))",
        (encode_canonical(list(owners)).decode(),),
    )
    withdraw_code(at, owners)


def is_represented(connection: Connection, app_id: str) -> bool:
    """Whether an engine serves what is registered of the app. If not, who registered it last is gone."""
    sql = (
        "SELECT 1 FROM functions f WHERE f.app_id = ? AND f.archived = 0"
        " AND NOT EXISTS (SELECT 1 FROM offers o WHERE o.version = f.version) LIMIT 1"
    )
    return one(connection, sql, (app_id,)) is None


def function_of(at: Transition, fn_id: str) -> RegisteredFunction:
    """The function as it was registered last, maybe long ago."""
    row = one(at.connection, "SELECT config FROM functions WHERE fn_id = ?", (fn_id,))
    assert row is not None
    return function_from(row[0])


def function_from(config: str) -> RegisteredFunction:
    """The function as it is stored in `functions.config`."""
    return msgspec.json.decode(config, type=RegisteredFunction)


def _retire(at: Transition, app_id: str) -> None:
    """Its functions start no new runs."""
    run(at.connection, "UPDATE functions SET archived = 1 WHERE app_id = ?", (app_id,))
    run(
        at.connection,
        "DELETE FROM triggers WHERE fn_id IN (SELECT fn_id FROM functions WHERE app_id = ?)",
        (app_id,),
    )


def _retire_others_at(at: Transition, app_id: str, url: str) -> None:
    """One address is one app: who was there before has gone, or has another name now."""
    for (other,) in rows(at.connection, "SELECT app_id FROM apps WHERE url = ? AND app_id <> ?", (url, app_id)):
        _retire(at, other)
        run(at.connection, "UPDATE apps SET checksum = '', url = '' WHERE app_id = ?", (other,))
        schedules.unschedule_archived(at)


def _refuse_taken(at: Transition, app_id: str, functions: Sequence[RegisteredFunction]) -> None:
    taken = one(
        at.connection,
        "SELECT fn_id, app_id FROM functions WHERE archived = 0 AND app_id <> ?"
        " AND fn_id IN (SELECT value FROM json_each(?)) LIMIT 1",
        (app_id, encode_canonical([function.fn_id for function in functions]).decode()),
    )
    if taken is not None:
        raise FunctionTakenError(
            f"function id {taken[0]!r} belongs to the app {taken[1]!r}", fix="give one of the two apps another id"
        )


def _register_one(at: Transition, app_id: str, function: RegisteredFunction) -> None:
    run(
        at.connection,
        "INSERT INTO functions (fn_id, app_id, name, max_attempts, config, version) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (fn_id) DO UPDATE SET app_id = excluded.app_id, name = excluded.name,"
        " max_attempts = excluded.max_attempts, config = excluded.config, version = excluded.version, archived = 0",
        (
            function.fn_id,
            app_id,
            function.name,
            function.max_attempts,
            encode_canonical(function).decode(),
            function.version,
        ),
    )
    for trigger in function.triggers:
        values = (trigger.event_name, function.fn_id, trigger.of_function, trigger.condition)
        run(at.connection, "INSERT INTO triggers VALUES (?, ?, ?, ?)", values)
