"""When a call is made again, and what the lines of a stream come to."""

from __future__ import annotations

import msgspec
import pytest

from rawr.client.answers import RemoteError, ServerAnswerError, ServerNotRunningError, pause_before_retry_s
from rawr.client.events import EventReader

NOW_S = 1_795_347_464.0


class Thing(msgspec.Struct, frozen=True, kw_only=True):
    name: str


@pytest.mark.parametrize(
    ("status", "retry_after", "pause_s"),
    [
        (503, "1", 1.0),
        (429, "0", 0.0),
        (503, " 2 ", 2.0),
        (503, "Sun, 22 Nov 2026 12:00:00 GMT", 1_795_348_800.0 - NOW_S),
        (503, "Sun, 22 Nov 2026 11:37:50 GMT", 6.0),
        (503, "Sun, 22 Nov 2020 11:37:50 GMT", 0.0),
        (503, "61", None),
        (503, "soon", None),
        (503, "-1", None),
        (503, "", None),
        (500, "1", None),
        (200, "1", None),
        (404, "1", None),
    ],
)
def test_a_call_is_made_again_when_the_server_says_when(status: int, retry_after: str, pause_s: float | None) -> None:
    found = pause_before_retry_s(status, {"retry-after": retry_after}, attempt=1, now_s=NOW_S)
    assert found == (None if pause_s is None or pause_s > 60 else pause_s)


def test_a_call_is_made_three_times_at_most() -> None:
    asked = [pause_before_retry_s(503, {"retry-after": "1"}, attempt=attempt, now_s=NOW_S) for attempt in (1, 2, 3)]
    assert asked == [1.0, 1.0, None]
    assert pause_before_retry_s(503, {}, attempt=1, now_s=NOW_S) is None


def read(*lines: str) -> tuple[list[tuple[str, str]], EventReader[Thing]]:
    reader = EventReader(Thing, source="here")
    events = [event for line in lines if (event := reader.feed(line)) is not None]
    return [(event.event_id, event.value.name) for event in events], reader


def test_a_stream_is_read_line_by_line() -> None:
    events, reader = read(
        ": ",
        "",
        "event: message",
        "id: 1",
        'data: {"json":{"name":"a"}}',
        "",
        ": ",
        "",
        "event:message",
        'data:{"json":{"name":"b"}}',
        "",
        "event: later",
        "data: x",
        "",
        "event: done",
        "data: {}",
        "",
    )
    assert events == [("1", "a"), ("", "b")]
    reader.check_end()


def test_a_stream_that_does_not_say_that_it_is_over_broke_off() -> None:
    _, reader = read("event: message", 'data: {"json":{"name":"a"}}', "", "event: done")
    with pytest.raises(ServerNotRunningError, match="here: the stream broke off"):
        reader.check_end()


def test_the_error_of_a_stream_is_raised() -> None:
    error = '{"json":{"defined":false,"code":"SERVICE_UNAVAILABLE","status":503,"message":"m"}}'
    with pytest.raises(RemoteError) as raised:
        read("event: error", f"data: {error}", "")
    assert (raised.value.code, raised.value.status) == ("SERVICE_UNAVAILABLE", 503)


@pytest.mark.parametrize("data", ['{"json":{"other":1}}', '{"json":5}', "{}"])
def test_a_value_of_another_type_is_refused(data: str) -> None:
    with pytest.raises(ServerAnswerError):
        read("event: message", f"data: {data}", "")
