"""Server-sent events as oRPC writes them: what stands on the wire, and pinging while nothing happens.

`message` carries a value, `done` or `close` the end, `error` the end that something went wrong; its data is the error
of the family. The stream begins with a comment, so that the caller has its headers before the first event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from rawr.host.errors import ErrorBody, error_body
from rawr.procedures.contract import StreamEvent

COMMENT: Final = b": \n\n"


class Events(Protocol):
    async def __anext__(self) -> StreamEvent: ...

    async def aclose(self) -> None: ...


class EventStream:
    """The bytes of a stream of events. Whoever takes them closes it, however far it got."""

    def __init__(
        self,
        events: Events,
        *,
        ping_s: float,
        encode: Callable[[object], bytes],
        error: Callable[[ErrorBody], object] = lambda error: error,
        end: bytes = b"",
    ) -> None:
        """`end` is sent when the events have ended, and `error` gives the form of what they ended with instead."""
        self._events = events
        self._ping_s = ping_s
        self._encode = encode
        self._error = error
        self._end = end
        self._upcoming: asyncio.Future[StreamEvent] | None = None
        self._begun = self._ended = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            return COMMENT
        if self._upcoming is None:
            self._upcoming = asyncio.ensure_future(anext(self._events))
        # Not `wait_for`: running out of time must not cancel what is waited for.
        done, _ = await asyncio.wait({self._upcoming}, timeout=self._ping_s)
        return self._frame_of(done.pop()) if done else COMMENT

    async def aclose(self) -> None:
        if self._upcoming is not None:
            # A generator cannot be closed while it runs.
            self._upcoming.cancel()
            await asyncio.wait({self._upcoming})
        await self._events.aclose()

    def _frame_of(self, arrived: asyncio.Future[StreamEvent]) -> bytes:
        self._upcoming = None
        try:
            event = arrived.result()
            return frame("message", self._encode(event.value), event_id=event.event_id)
        except StopAsyncIteration:
            self._ended = True
            return self._end
        except Exception as error:  # noqa: BLE001 - the edge: the answer has begun, so its end says what happened
            self._ended = True
            return frame("error", self._encode(self._error(error_body(error))))


def frame(name: str, data: bytes | None, *, event_id: str = "") -> bytes:
    """One event. `data` is JSON on one line, if there are any; an empty id is left out."""
    assert "\n" not in event_id and "\r" not in event_id, event_id  # noqa: PT018 - one thing: a line of its own
    assert data is None or b"\n" not in data
    line_of_id = f"id: {event_id}\n" if event_id else ""
    line_of_data = b"" if data is None else b"data: " + data + b"\n"
    return b"event: " + name.encode() + b"\n" + line_of_id.encode() + line_of_data + b"\n"
