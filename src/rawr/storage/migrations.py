"""The schema of a database as an ordered list of SQL texts with a ledger. Refuses to guess about foreign schemas.

A released migration never changes: the ledger keeps its hash, and a text that differs is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from rawr.errors import RawrError


class Migration(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    sql: str
    """One or more statements; without BEGIN and COMMIT."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class SchemaNewerError(RawrError):
    """A newer rawr has migrated this database. Nothing was changed."""

    code = "DATABASE_SCHEMA_NEWER"


class SchemaChangedError(RawrError):
    """The database was made by other texts of the same migrations. Nothing was changed."""

    code = "DATABASE_SCHEMA_CHANGED"


class Executes(Protocol):
    def execute(self, sql: str, params: Sequence[str | int] = ()) -> Iterable[tuple[Any, ...]]: ...


_LEDGER: Final = """
CREATE TABLE IF NOT EXISTS rawr_migration (
  position INTEGER PRIMARY KEY,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL
) STRICT
"""


def migrate(connection: Executes, path: Path, migrations: Sequence[Migration]) -> None:
    """Bring the schema up to date. The caller holds the write transaction, so that it is all or nothing."""
    connection.execute(_LEDGER)
    applied = list(connection.execute("SELECT name, sha256 FROM rawr_migration ORDER BY position"))
    if len(applied) > len(migrations):
        raise SchemaNewerError(
            f"{path} has schema {len(applied)} ({applied[-1][0]}), this rawr knows {len(migrations)}",
            details={"path": str(path), "found": len(applied), "known": len(migrations)},
            fix="update rawr, or open the database with the version that migrated it",
        )
    for migration, (name, sha256) in zip(migrations, applied, strict=False):
        if migration.sha256 != sha256:
            raise SchemaChangedError(
                f"{path} was migrated by another text of {name}; this rawr has {migration.name}",
                details={"path": str(path), "found": name, "known": migration.name},
                fix="open the database with the version that migrated it",
            )
    for position, migration in enumerate(migrations[len(applied) :], start=len(applied) + 1):
        connection.execute(migration.sql)
        connection.execute(
            "INSERT INTO rawr_migration (position, name, sha256) VALUES (?, ?, ?)",
            (position, migration.name, migration.sha256),
        )
