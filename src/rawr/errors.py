"""The root of every fault of the world that rawr reports. It refuses to know HTTP or exit codes.

A fault of the world (missing plugin, busy lock, bad input) is a subclass with a stable `code`; a fault of
ours is an `assert`. `host/errors.py` maps codes to HTTP statuses, `cli/output.py` maps them to exit codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class RawrError(Exception):
    """A fault that a caller can act on.

    `code` is stable API. `details` is plain JSON data for machines, never a secret. `fix` is one command or
    sentence that gets the reader out.
    """

    code: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        details: Mapping[str, object] | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.fix = fix


class BadInputError(RawrError):
    """What the caller gave cannot be read or does not fit."""

    code = "BAD_REQUEST"


class CorruptFileError(RawrError):
    """A file of ours exists and cannot be understood. It is never treated as absent."""

    code = "FILE_CORRUPT"


class StorageError(RawrError):
    """The disk refused: full, read-only, unwritable. Nothing was changed."""

    code = "STORAGE_FAILED"
