"""Reading what a request asks for: query parameters, times, limits and ids, all within bounds. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.execution.embedded.inspection import EventsAsked
from rawr.execution.embedded.model import RunFilter
from rawr.host.ingress import query_fields
from rawr.wire import JsonValue

LIMIT_DEFAULT: Final = 20
LIMIT_MAX: Final = 100
IF_MAX: Final = 4096
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}\Z")


class QueryError(BadInputError):
    code = "BAD_REQUEST"


class _Cancellation(msgspec.Struct, kw_only=True):
    function_id: str
    app_id: str | None = None
    started_after: str | None = None
    started_before: str | None = None
    condition: str | None = msgspec.field(default=None, name="if")


def fields_of(query: str) -> dict[str, str]:
    fields = query_fields(query)
    if fields is None:
        raise QueryError("a query parameter is given twice, or there are too many")
    return fields


def ulid_of(text: str, what: str) -> str:
    if _ULID.match(text) is None:
        raise QueryError(f"{text[:64]!r} is not {what}")
    return text


def limit_of(fields: Mapping[str, str]) -> int:
    text = fields.get("limit", str(LIMIT_DEFAULT))
    if not text.isdecimal() or len(text) > 9:
        raise QueryError(f"limit {text[:64]!r} is not a number")
    return min(max(int(text), 1), LIMIT_MAX)


def events_asked(query: str) -> EventsAsked:
    """Raises QueryError."""
    fields = fields_of(query)
    cursor = fields.get("cursor")
    return EventsAsked(
        limit=limit_of(fields),
        before_ulid=None if not cursor else ulid_of(cursor, "a cursor"),
        name=fields.get("name") or fields.get("event_name") or None,
        received_from_ms=_ms(fields.get("received_after"), "received_after", 0),
        received_before_ms=_ms(fields.get("received_before"), "received_before", 2**62),
    )


def runs_to_cancel(body: JsonValue) -> RunFilter:
    """What a request to cancel many means. A run has started when it was queued.

    Raises:
        QueryError
    """
    asked = _read_cancellation(body)
    fn_id = asked.function_id
    if asked.app_id is not None and not fn_id.startswith(f"{asked.app_id}-"):
        fn_id = f"{asked.app_id}-{fn_id}"
    if len(asked.condition or "") > IF_MAX:
        raise QueryError(f"if: it has more than {IF_MAX} characters")
    return RunFilter(
        fn_id=fn_id,
        queued_from_ms=_ms(asked.started_after, "started_after", 0),
        queued_before_ms=_ms(asked.started_before, "started_before", 2**62),
        condition=asked.condition or None,
        reason="cancelled by a request to cancel many",
    )


def _read_cancellation(body: JsonValue) -> _Cancellation:
    try:
        return msgspec.convert(body, _Cancellation)
    except msgspec.ValidationError as error:
        raise QueryError(f"the cancellation cannot be read: {error}") from error


def _ms(text: str | None, name: str, otherwise: int) -> int:
    """A time as ISO 8601 with its offset, or as Unix milliseconds."""
    if not text:
        return otherwise
    if text.isdecimal() and len(text) < 15:
        return int(text)
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return int(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        pass
    raise QueryError(f"{name} {text[:64]!r} is not a time like 2026-01-31T12:00:00Z")
