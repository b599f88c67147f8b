"""What changes are called, in the journal and between processes. Pure."""

from __future__ import annotations

import msgspec


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One operation of a commit."""

    op: str
    """enable, disable, set, mutate, restore, repair; adopt (somebody else wrote the file), recall (a power cut
    took the line), recover (the file was corrupt)."""
    id: str | None = None
    rev: int | None = None
    quarantine: str | None = None
    key: int | None = None
    """Of the request of another process that asked for it."""


class QueuePosition(msgspec.Struct, frozen=True, kw_only=True):
    """How far the requests of other processes have been answered."""

    queue: str
    offset: int


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the file."""

    key: int
    op: str
    id: str


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose requester waits, and how far the file has been answered once it is."""

    request: Request
    upto: QueuePosition
