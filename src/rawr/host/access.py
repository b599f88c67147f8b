"""What is noted of each request while it is answered, and the line of the access log that is made of it. Pure."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rawr.security.policy import CallerClass
from rawr.wire import encode, iso_from_ms


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


class Times:
    """Times as text. Many in a row are of one second, whose text is made once."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, at_ms: int) -> str:
        """As `iso_from_ms`."""
        second = at_ms // 1000
        if second != self._second:
            self._second, self._text = second, iso_from_ms(at_ms).removesuffix(f"{at_ms % 1000:03d}Z")
        return f"{self._text}{at_ms % 1000:03d}Z"


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered, as it is handed to the log. Holds nothing that must not be logged."""

    request_id: str
    correlation_id: str
    address: str
    method: str | None
    notes: AccessNotes
    at_ms: int
    took_s: float

    def line(self, times: Times) -> AccessLine:
        notes = self.notes
        return AccessLine(
            ts=times.text(self.at_ms),
            request_id=self.request_id,
            correlation_id=self.correlation_id,
            address=self.address,
            method=self.method,
            family=notes.family,
            operation=notes.operation,
            route=notes.route,
            status=notes.status,
            duration_ms=round(self.took_s * 1000, 2),
            bytes_in=notes.bytes_in,
            bytes_out=notes.bytes_out,
            caller=notes.caller_class,
            key_id=notes.key_id,
        )

    def rendered(self, times: Times) -> bytes:
        return encode(self.line(times))


AccessLog = Callable[[Answered], None]
"""Takes what was answered at once, and makes a line of it a little later."""
