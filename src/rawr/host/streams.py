"""The streams that are open on a host: how many there may be, and how they end when the host stops.

A stream has no end of its own in sight, so a stopping host would wait for it until its time was up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

from rawr.errors import RawrError
from rawr.procedures.contract import StreamEvent


class TooManyStreamsError(RawrError):
    """As many streams are open as there may be. Another attempt can find one closed."""

    code = "TOO_MANY_STREAMS"


class HostStoppingError(RawrError):
    """The host stops. What a stream was about goes on; the stream does not."""

    code = "SERVICE_UNAVAILABLE"


class OpenStreams:
    """For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: set[Stream] = set()
        self._stopping = False

    def __len__(self) -> int:
        return len(self._open)

    def opened(self, events: AsyncGenerator[StreamEvent, None]) -> Stream:
        """`events` as one of ours, until it is closed. Raises TooManyStreamsError, HostStoppingError."""
        if self._stopping:
            raise HostStoppingError("the host is stopping")
        if len(self._open) >= self._most:
            raise TooManyStreamsError(f"{self._most} streams are open, and there may be no more")
        stream = Stream(events, left=self._open.discard)
        self._open.add(stream)
        return stream

    def stop(self) -> None:
        """End every stream with HostStoppingError, and admit none any more."""
        self._stopping = True
        for stream in self._open:
            stream.stop()


class Stream:
    """The events of one caller. Must be closed, also when nobody has asked for an event."""

    def __init__(self, events: AsyncGenerator[StreamEvent, None], *, left: Callable[[Stream], None]) -> None:
        self._events = events
        self._left = left
        self._next: asyncio.Future[StreamEvent] | None = None
        self._stopped = False

    async def __anext__(self) -> StreamEvent:
        if not self._stopped:
            self._next = asyncio.ensure_future(anext(self._events))
            try:
                return await self._next
            except asyncio.CancelledError:
                # Cancelled by `stop` when stopped, otherwise together with whoever waits here.
                if not self._stopped:
                    raise
        raise HostStoppingError("the host is stopping; ask again with the last-event-id to go on")

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None:
            self._next.cancel()

    async def aclose(self) -> None:
        self._left(self)
        await self._events.aclose()
