"""Server-sent events of `/rpc`, line by line, into the values of a stream. Pure."""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from rawr.client.answers import ServerNotRunningError, converted, remote_error, value_of

T = TypeVar("T")


class Event(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """One value of a stream, and the id to go on after."""

    value: T
    event_id: str


class EventReader(Generic[T]):
    """Give it every line of an answer; it gives back the events."""

    def __init__(self, expected: type[T], *, source: str) -> None:
        self._expected = expected
        self._source = source
        self._fields: dict[str, str] = {}
        self.is_done = False
        """Whether the stream has said that it is over. One that ends without saying so broke off."""

    def feed(self, line: str) -> Event[T] | None:
        """`line` without its end. The event that the line completes, if it does.

        Raises:
            RemoteError: the stream ended with an error.
            ServerAnswerError: a value that is not of the expected type.
        """
        if line:
            name, _, text = line.partition(":")
            self._fields[name] = text.removeprefix(" ")
            return None
        fields, self._fields = self._fields, {}
        match fields.get("event"):
            case "message":
                value = converted(value_of(200, fields["data"].encode()), self._expected, source=self._source)
                return Event(value=value, event_id=fields.get("id", ""))
            case "error":
                raise remote_error(value_of(200, fields["data"].encode()), source=self._source)
            case "done":
                self.is_done = True
        return None

    def check_end(self) -> None:
        """Raises ServerNotRunningError when the stream broke off."""
        if not self.is_done:
            raise ServerNotRunningError(f"{self._source}: the stream broke off before its end", fix="rawr up")
