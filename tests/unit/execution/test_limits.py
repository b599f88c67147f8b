"""Decisions about limits: what the throttle lets start, and when gathered events start their run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.execution.embedded.functions import Concurrency, ConcurrencyScope, Debounce, RegisteredFunction, Throttle
from rawr.execution.embedded.limits import (
    MayStart,
    concurrency_key,
    concurrency_limit,
    debounce_until_ms,
    key_of,
    priority_ms,
    start_interval_ms,
    throttled,
)

THROTTLES = st.builds(
    Throttle, limit=st.integers(1, 20), period_ms=st.integers(1_000, 600_000), burst=st.integers(1, 10)
)


@given(THROTTLES, st.lists(st.integers(0, 100_000), max_size=60))
def test_no_time_has_more_throttled_starts_than_the_limit_and_the_burst_allow(
    throttle: Throttle, gaps_ms: list[int]
) -> None:
    now_ms, full_at_ms, starts = 1_000_000, None, []
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        decision = throttled(throttle, full_at_ms, now_ms)
        if isinstance(decision, MayStart):
            full_at_ms = decision.full_at_ms
            starts.append(now_ms)
    for first, begin_ms in enumerate(starts):
        for count, end_ms in enumerate(starts[first:], start=1):
            assert count <= throttle.burst + (end_ms - begin_ms) // start_interval_ms(throttle)


@given(THROTTLES, st.lists(st.integers(0, 100_000), max_size=30))
def test_who_is_told_to_start_later_may_start_then_and_not_before(throttle: Throttle, gaps_ms: list[int]) -> None:
    now_ms, full_at_ms = 1_000_000, None
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        decision = throttled(throttle, full_at_ms, now_ms)
        if isinstance(decision, MayStart):
            full_at_ms = decision.full_at_ms
        else:
            assert not isinstance(throttled(throttle, full_at_ms, decision.at_ms - 1), MayStart)
            assert isinstance(throttled(throttle, full_at_ms, decision.at_ms), MayStart)


def test_a_throttle_whose_clock_was_set_back_begins_anew() -> None:
    throttle = Throttle(limit=1, period_ms=60_000)
    later = throttled(throttle, None, 10**12)
    assert isinstance(later, MayStart)
    assert isinstance(throttled(throttle, later.full_at_ms, 10**11), MayStart)


@pytest.mark.parametrize(
    ("timeout_ms", "first_at_ms", "now_ms", "until_ms"),
    [(None, 0, 0, 10), (None, 0, 100, 110), (25, 0, 10, 20), (25, 0, 20, 25), (25, 0, 24, 25)],
)
def test_a_debounce_ends_after_a_quiet_time_or_its_timeout(
    timeout_ms: int | None, first_at_ms: int, now_ms: int, until_ms: int
) -> None:
    assert debounce_until_ms(Debounce(period_ms=10, timeout_ms=timeout_ms), first_at_ms, now_ms) == until_ms


@pytest.mark.parametrize(("seconds", "ms"), [(None, 0), (1.5, 1500), (601, 600_000), (-10_000, -600_000)])
def test_a_priority_is_worth_at_most_ten_minutes(seconds: float | None, ms: int) -> None:
    assert priority_ms(seconds) == ms


@given(st.lists(st.text() | st.none(), max_size=3), st.lists(st.text() | st.none(), max_size=3))
def test_keys_of_different_parts_differ(one: list[str | None], other: list[str | None]) -> None:
    assert (key_of(*one) == key_of(*other)) == (one == other)


def test_a_run_keeps_its_key_and_gets_the_limit_of_today() -> None:
    was = Concurrency(limit=1, key="event.data.user")
    key = concurrency_key("fn", was, '"a"')
    shared = Concurrency(limit=7, key="event.data.user", scope=ConcurrencyScope.ENVIRONMENT)
    assert concurrency_limit(function(was), key) == 1
    assert concurrency_limit(function(Concurrency(limit=5, key="event.data.user")), key) == 5
    assert concurrency_limit(function(Concurrency(limit=5), shared), key) is None
    assert concurrency_key("fn", shared, "1") == concurrency_key("other", shared, "1")
    assert concurrency_key("fn", was, "1") != concurrency_key("other", was, "1")


def function(*limits: Concurrency) -> RegisteredFunction:
    return RegisteredFunction(fn_id="fn", name="fn", max_attempts=1, triggers=(), concurrency=limits)
