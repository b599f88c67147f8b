"""What is noted of each request while it is answered, and the line of the access log that is made of it. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rawr.security.policy import CallerClass
from rawr.wire import iso_from_ms


class AccessNotes(msgspec.Struct, kw_only=True):
    """What the guard and a family learn about a request while they answer it; the access log reads it afterwards."""

    family: str = "none"
    caller_class: CallerClass = CallerClass.UNLABELED
    operation: str | None = None
    key_id: str | None = None
    """Which API key it was, never the key."""
    route: str | None = None
    """The path with the names of its parameters in place of what they are."""
    bytes_in: int = 0
    """Of the body, as far as it was read."""
    status: int = 0
    """0 as long as nothing was sent."""
    bytes_out: int = 0


class AccessLine(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the log keeps of a request. Paths, queries, headers and bodies may hold secrets and stay out."""

    ts: str
    request_id: str
    correlation_id: str
    address: str
    method: str | None
    family: str
    operation: str | None
    route: str | None
    status: int
    duration_ms: float
    bytes_in: int
    bytes_out: int
    caller: CallerClass
    key_id: str | None


AccessLog = Callable[[AccessLine], None]


class Stamps:
    """Times as text, as `iso_from_ms` has them. Most are of the same second as the one before."""

    def __init__(self) -> None:
        self._second = -1
        self._beginning = ""

    def text(self, ms: int) -> str:
        second, rest = divmod(ms, 1000)
        if second != self._second:
            self._second, self._beginning = second, iso_from_ms(second * 1000)[:-4]
        return f"{self._beginning}{rest:03d}Z"
