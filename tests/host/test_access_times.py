"""The times of the access log are those of everything else, whatever order they come in."""

from __future__ import annotations

import datetime

from hypothesis import given
from hypothesis import strategies as st

from rawr.host.access import Times
from rawr.wire import iso_from_ms

MOMENTS = st.integers(0, 253_402_300_799_999)


@given(st.lists(st.one_of(MOMENTS, st.integers(1_700_000_000_000, 1_700_000_003_000))))
def test_a_time_has_the_text_that_it_has_alone(moments: list[int]) -> None:
    times = Times()
    assert [times.text(at_ms) for at_ms in moments] == [iso_from_ms(at_ms) for at_ms in moments]


@given(MOMENTS)
def test_the_text_of_a_moment_is_its_time_in_utc(at_ms: int) -> None:
    read = datetime.datetime.fromisoformat(iso_from_ms(at_ms))
    assert read == datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(milliseconds=at_ms)
    assert len(iso_from_ms(at_ms)) == 24
