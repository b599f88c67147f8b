"""Token buckets: what they let through, what they make wait, and how many there can be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.security.rates import BURST_S, Bucket, Buckets, Rate, address_name, taken

RATES = st.integers(1, 100_000).map(lambda number: Rate(per_minute=number))
STEPS = st.lists(st.integers(-5_000, 20_000), max_size=120)


@pytest.mark.parametrize(
    ("bucket", "now_ms", "held", "wait_ms"),
    [
        (None, 0, 9, 0),
        (Bucket(9, 0), 0, 8, 0),
        (Bucket(0, 0), 0, 0, 1000),
        (Bucket(0, 0), 400, 0.4, 600),
        (Bucket(0, 0), 1000, 0, 0),
        (Bucket(0, 0), 3_600_000, 9, 0),
        # A clock that was set back.
        (Bucket(0, 5000), 1000, 0, 1000),
        (Bucket(3, 5000), 1000, 2, 0),
    ],
)
def test_sixty_a_minute_are_ten_at_once_and_then_one_a_second(
    bucket: Bucket | None, now_ms: int, held: float, wait_ms: int
) -> None:
    after, waits = taken(bucket, Rate(per_minute=60), now_ms=now_ms)
    assert after.calls == pytest.approx(held)
    assert (after.at_ms, waits) == (now_ms, wait_ms)


@given(RATES, STEPS)
def test_nobody_gets_more_than_a_burst_and_what_the_time_is_worth(rate: Rate, steps: list[int]) -> None:
    bucket, now_ms, forward_ms, granted = None, 0, 0, 0
    for step_ms in steps:
        now_ms += step_ms
        forward_ms += max(0, step_ms)
        bucket, wait_ms = taken(bucket, rate, now_ms=now_ms)
        granted += wait_ms == 0
    assert granted <= rate.burst + forward_ms * rate.per_minute / 60_000 + 1e-6


@given(RATES, STEPS)
def test_whoever_waits_as_told_is_let_in(rate: Rate, steps: list[int]) -> None:
    bucket, now_ms = None, 0
    for step_ms in steps:
        now_ms += step_ms
        bucket, wait_ms = taken(bucket, rate, now_ms=now_ms)
        if wait_ms:
            now_ms += wait_ms
            bucket, wait_ms = taken(bucket, rate, now_ms=now_ms)
            assert wait_ms == 0


@given(RATES)
def test_a_bucket_is_full_after_its_burst_time(rate: Rate) -> None:
    empty = Bucket(0, 0)
    full_ms = max(BURST_S * 1000, 60_000 // rate.per_minute + 1)
    assert taken(empty, rate, now_ms=full_ms)[0].calls == pytest.approx(taken(None, rate, now_ms=0)[0].calls)


def test_the_bucket_that_was_not_used_for_the_longest_gives_way() -> None:
    buckets, rate = Buckets(most=3), Rate(per_minute=6)  # one call, then ten seconds
    for name in ("a", "b", "c"):
        assert buckets.take(name, rate, now_ms=0) == 0
    assert buckets.take("a", rate, now_ms=0) == 10_000  # used again, though in vain
    assert buckets.take("d", rate, now_ms=0) == 0
    assert len(buckets) == 3
    assert buckets.take("a", rate, now_ms=0) == 10_000
    assert buckets.take("b", rate, now_ms=0) == 0  # forgotten


def test_ten_thousand_names_cost_the_memory_of_a_hundred() -> None:
    buckets = Buckets(most=100)
    for number in range(10_000):
        buckets.take(str(number), Rate(per_minute=1), now_ms=number)
        assert len(buckets) <= 100


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("testclient", "testclient"),
    ],
)
def test_an_address_within_ones_own_network_is_no_other_caller(address: str, name: str) -> None:
    assert address_name(address) == name
