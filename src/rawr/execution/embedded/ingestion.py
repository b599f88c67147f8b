"""Events as they are accepted: checked, completed and given their ids. No I/O and no clock.

What can never be delivered is refused here, before anybody relies on it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from rawr.errors import BadInputError, RawrError
from rawr.execution.embedded.fragment import fragment
from rawr.execution.embedded.model import NewEvent
from rawr.execution.embedded.protocol import EVENT_MAX_BYTES
from rawr.execution.ports import OutgoingEvent
from rawr.ids import ulid
from rawr.wire import JsonValue

EVENTS_MAX: Final = 5000
_NAME_MAX: Final = 512
_ID_MAX: Final = 512
_TS_MIN_MS: Final = 315_532_800_000  # 1980
_TS_MAX_MS: Final = 4_102_444_800_000  # 2100
_SEED: Final = re.compile(r"([0-9]{1,15}),([A-Za-z0-9+/=]{16})\Z")


class EventRefusedError(BadInputError):
    code = "EVENT_REFUSED"


class Seed(msgspec.Struct, frozen=True, kw_only=True):
    """Where a sender's ids come from, so that the same events sent again have the same ids."""

    ms: int
    entropy: bytes

    def ulid(self, index: int) -> str:
        """The id of event `index` of a request. The count is added as Inngest's server does it: without carry."""
        head, tail = self.entropy[:6], int.from_bytes(self.entropy[6:], "big")
        return ulid(self.ms, head + ((tail + index) % 2**32).to_bytes(4, "big"))


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """The events of a request up to the first that is refused, and why that one is."""

    events: tuple[NewEvent, ...]
    refusal: str | None


def parse_seed(header: str | None) -> Seed | None:
    """The value of `x-inngest-event-id-seed`: `<unix ms>,<base64 of 10 bytes>`. None when it is not of that form."""
    match = _SEED.match(header or "")
    if match is None:
        return None
    try:
        entropy = base64.b64decode(match[2], validate=True)
    except binascii.Error:
        return None
    ms = int(match[1])
    return Seed(ms=ms, entropy=entropy) if 0 < ms < 2**48 and len(entropy) == 10 else None


def parse_events(body: JsonValue, *, seed: Seed | None, new_ulid: Callable[[], str], now_ms: int) -> Parsed:
    """The events of an ingestion request, whose body is one event or a list of them.

    Those before a bad one are accepted; that is the contract of Inngest's API, which its SDKs rely on.
    """
    listed = body if isinstance(body, list) else [body]
    if len(listed) > EVENTS_MAX:
        return Parsed(events=(), refusal=f"{len(listed)} events in one request; the limit is {EVENTS_MAX}")
    accepted: list[NewEvent] = []
    for index, raw in enumerate(listed):
        event_ulid = new_ulid() if seed is None else seed.ulid(index)
        try:
            accepted.append(new_event(_read(raw), ulid=event_ulid, now_ms=now_ms))
        except RawrError as error:
            return Parsed(events=tuple(accepted), refusal=f"event {index}: {error.message}")
    return Parsed(events=tuple(accepted), refusal=None)


def new_events(events: Sequence[OutgoingEvent], *, new_ulid: Callable[[], str], now_ms: int) -> tuple[NewEvent, ...]:
    """All of the events, completed.

    Raises:
        EventRefusedError, NotCanonicalError: one of them could never be part of a call.
    """
    return tuple(new_event(event, ulid=new_ulid(), now_ms=now_ms) for event in events)


def new_event(event: OutgoingEvent, *, ulid: str, now_ms: int) -> NewEvent:
    """The event with everything filled in. Its runs start at its time, when that is still to come.

    Raises:
        EventRefusedError, NotCanonicalError
    """
    _check(event)
    event_id = event.event_id or ulid
    ts_ms = event.ts_ms or now_ms
    data = dict(event.data)
    parts = {"name": event.name, "id": event_id, "ts": ts_ms, "user": dict(event.user), "data": data}
    body = fragment(parts if event.version is None else {**parts, "v": event.version})
    if body.size_bytes > EVENT_MAX_BYTES:
        raise EventRefusedError(f"event {event.name} has {body.size_bytes} bytes; the limit is {EVENT_MAX_BYTES}")
    of_function = data.get("function_id")
    return NewEvent(
        ulid=ulid,
        event_id=event_id,
        name=event.name,
        of_function=of_function if isinstance(of_function, str) else None,
        body=body,
        starts_at_ms=ts_ms if ts_ms > now_ms else None,
    )


class _WireEvent(msgspec.Struct, kw_only=True):
    name: str
    data: dict[str, Any] | None = None
    id: str | None = None
    ts: int | None = None
    v: str | None = None
    user: dict[str, Any] | None = None


def _read(raw: JsonValue) -> OutgoingEvent:
    try:
        wire = msgspec.convert(raw, _WireEvent)
    except msgspec.ValidationError as error:
        raise EventRefusedError(str(error)) from error
    return OutgoingEvent(
        name=wire.name,
        data=wire.data or {},
        event_id=wire.id or None,
        ts_ms=wire.ts or None,
        version=wire.v,
        user=wire.user or {},
    )


def _check(event: OutgoingEvent) -> None:
    if not event.name or len(event.name) > _NAME_MAX or event.name.startswith("inngest/"):
        raise EventRefusedError(f"event name {event.name[:80]!r}: 1 to 512 characters, not starting with inngest/")
    if len(event.event_id or "") > _ID_MAX:
        raise EventRefusedError(f"event {event.name}: its id has more than {_ID_MAX} characters")
    if event.ts_ms is not None and not _TS_MIN_MS <= event.ts_ms <= _TS_MAX_MS:
        raise EventRefusedError(f"event {event.name}: ts {event.ts_ms} is not in milliseconds between 1980 and 2100")
