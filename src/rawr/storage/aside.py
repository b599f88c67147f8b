"""Giving a SQLite file another name, with its log and the log's index."""

from __future__ import annotations

import os
from pathlib import Path

from rawr.storage.atomic import sync_entry_of
from rawr.storage.faults import storage_fault


def moved_aside(database: Path, name: str) -> list[str]:
    """The new places of the file and what belongs to it, in the same folder, durably. Nobody may work with it.

    SQLite throws a log away that it finds beside no database. So the log has its new name before the file is gone, and
    loses the old one after that: killed anywhere in between, nothing is lost.

    Raises:
        StorageError
    """
    companions = [suffix for suffix in ("-wal", "-shm") if os.path.lexists(f"{database}{suffix}")]
    place = database.with_name(name)
    try:
        for suffix in companions:
            os.link(f"{database}{suffix}", f"{place}{suffix}", follow_symlinks=False)
        os.rename(database, place)
        for suffix in companions:
            os.unlink(f"{database}{suffix}")
    except OSError as error:
        raise storage_fault(database, "move away", error) from error
    sync_entry_of(database)
    return [f"{place}{suffix}" for suffix in ("", *companions)]
