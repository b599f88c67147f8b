"""Which ticks a cron expression names, and which texts are none."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.execution.embedded.clockwatch import ClockWatch
from rawr.execution.embedded.cron import CronInvalidError, check_cron, jitter_ms, next_tick_ms, tick_after_ms

MINUTE_MS = 60_000


def ms(text: str) -> int:
    return int(datetime.datetime.fromisoformat(text).timestamp() * 1000)


@pytest.mark.parametrize(
    ("text", "after", "tick"),
    [
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        ("*/15 * * * *", "2026-01-01T00:14:59Z", "2026-01-01T00:15:00Z"),
        ("0 9 * * 1-5", "2026-01-02T09:00:00Z", "2026-01-05T09:00:00Z"),
        ("@hourly", "2026-01-01T00:00:01Z", "2026-01-01T01:00:00Z"),
        ("TZ=Europe/Paris 0 9 * * *", "2026-01-01T00:00:00Z", "2026-01-01T08:00:00Z"),
        ("CRON_TZ=Europe/Paris 0 9 * * *", "2026-07-01T00:00:00Z", "2026-07-01T07:00:00Z"),
        ("TZ=Europe/Paris 30 2 * * *", "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z"),  # 02:30 is left out
    ],
)
def test_the_next_tick_is_the_first_after_a_time(text: str, after: str, tick: str) -> None:
    assert next_tick_ms(text, ms(after)) == ms(tick)


def test_a_local_time_that_comes_twice_is_one_tick() -> None:
    first = next_tick_ms("TZ=Europe/Paris 30 2 * * *", ms("2026-10-25T00:00:00Z"))
    assert first == ms("2026-10-25T00:30:00Z")
    assert next_tick_ms("TZ=Europe/Paris 30 2 * * *", first) == ms("2026-10-26T01:30:00Z")


@pytest.mark.parametrize(
    "text",
    ["", "x", "* * * *", "* * * * * *", "60 * * * *", "0 0 30 2 *", "@every 5m", "TZ=Nowhere/X * * * * *", "1" * 201],
)
def test_what_is_no_cron_is_refused(text: str) -> None:
    with pytest.raises(CronInvalidError):
        check_cron(text)


@given(st.integers(0, 2**45), st.integers(0, 3_600_000))
def test_jitter_is_the_same_for_the_same_tick_and_never_more_than_asked(tick_ms: int, most_ms: int) -> None:
    late_ms = jitter_ms("cron", tick_ms, most_ms)
    assert 0 <= late_ms <= most_ms
    assert late_ms == jitter_ms("cron", tick_ms, most_ms)


@given(st.integers(0, 100 * MINUTE_MS), st.integers(0, 3 * MINUTE_MS))
def test_after_a_tick_comes_a_later_one_that_is_not_over(late_ms: int, jitter: int) -> None:
    tick_ms = ms("2026-01-01T00:00:00Z")
    now_ms = tick_ms + late_ms
    following_ms = tick_after_ms("* * * * *", "cron", tick_ms, jitter, now_ms)
    assert following_ms > tick_ms
    assert following_ms + jitter_ms("cron", following_ms, jitter) > now_ms


def test_a_clock_that_is_set_is_noticed_once() -> None:
    watch = ClockWatch(wall_ms=1_000_000, steady_ms=0)
    assert watch.jump_ms(wall_ms=1_005_000, steady_ms=5_000) == 0
    assert watch.jump_ms(wall_ms=1_006_900, steady_ms=6_000) == 0  # within what clocks differ
    assert watch.jump_ms(wall_ms=407_000, steady_ms=7_000) == -600_000
    assert watch.jump_ms(wall_ms=408_000, steady_ms=8_000) == 0
