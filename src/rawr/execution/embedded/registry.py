"""The functions that an app has registered, as routing and claiming find them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

import msgspec

from rawr.execution.embedded import jobs, schedules
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.pins import offer_code, withdraw_code
from rawr.execution.embedded.transition import Transition
from rawr.storage.sqlite import Connection, one, run
from rawr.wire import encode_canonical


def register(at: Transition, app_id: str, functions: Sequence[RegisteredFunction]) -> None:
    """Make these the functions of the app; others that it had start no new runs."""
    checksum = hashlib.sha256(encode_canonical(list(functions))).hexdigest()
    same = one(at.connection, "SELECT 1 FROM apps WHERE app_id = ? AND checksum = ?", (app_id, checksum))
    if same is not None:
        return
    run(
        at.connection,
        "INSERT INTO apps VALUES (?, ?, ?) ON CONFLICT (app_id) DO UPDATE"
        " SET checksum = excluded.checksum, synced_at = excluded.synced_at",
        (app_id, checksum, at.now_ms),
    )
    run(at.connection, "UPDATE functions SET archived = 1 WHERE app_id = ?", (app_id,))
    run(
        at.connection,
        "DELETE FROM triggers WHERE fn_id IN (SELECT fn_id FROM functions WHERE app_id = ?)",
        (app_id,),
    )
    for function in functions:
        _register_one(at, app_id, function)
        schedules.schedule(at, function)
    schedules.unschedule_archived(at)
    jobs.call_all(at)


def offer(at: Transition, owner: str, functions: Sequence[RegisteredFunction], code: Collection[str] = ()) -> None:
    """This engine serves these versions and has this code from now on."""
    withdraw(at, [owner])
    values = [(owner, function.fn_id, function.version) for function in functions]
    at.connection.execute_many("INSERT INTO offers VALUES (?, ?, ?)", values)
    offer_code(at, owner, [function.fn_id for function in functions], code)


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
    return msgspec.json.decode(row[0], type=RegisteredFunction)


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
