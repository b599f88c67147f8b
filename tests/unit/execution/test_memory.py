"""What a run remembers is the same, however often and from where on it was read."""

from __future__ import annotations

from itertools import pairwise

import hypothesis.strategies as st
import msgspec
from hypothesis import given

from rawr.execution import signing
from rawr.execution.embedded.fragment import fragment
from rawr.execution.embedded.memory import NOTHING, FinishedStep
from rawr.wire import JsonValue, encode

memos: st.SearchStrategy[JsonValue] = st.none() | st.integers(-(2**70), 2**70) | st.floats(-1e9, 1e9) | st.text("aé\n€")
step_ids = st.text('ab0"\\é', min_size=1, max_size=4)
steps = st.lists(st.tuples(step_ids, memos), max_size=12, unique_by=lambda step: step[0])


def finished(step_id: str, memo: JsonValue) -> FinishedStep:
    made = fragment({"data": memo})
    canonical = None if made.canonical is None else made.canonical.decode()
    return FinishedStep(step_id, encode(step_id).decode(), made.text.decode(), canonical)


@given(steps, st.lists(st.integers(0, 12), max_size=4), st.integers(0, 12))
def test_reading_on_gives_what_reading_all_gives(
    found: list[tuple[str, JsonValue]], read_at: list[int], dropped_at: int
) -> None:
    rows = [finished(*step) for step in found]
    whole = NOTHING.with_steps(rows)
    places = [0, *sorted(min(place, len(rows)) for place in read_at), len(rows)]
    read_on, order = NOTHING, NOTHING
    for begin, end in pairwise(places):
        read_on = read_on.with_steps(rows[begin:end])
        order = (order.without_memos() if begin >= dropped_at else order).with_steps(rows[begin:end])
    assert read_on == whole
    assert order.stack() == whole.stack()
    assert whole.steps == len(rows)
    assert msgspec.json.decode(whole.stack().text) == [step_id for step_id, _ in found]
    assert whole.memos().value() == {step_id: {"data": memo} for step_id, memo in found}
    assert whole.memos().signed == signing.canonical(msgspec.json.decode(whole.memos().text))
    assert whole.stack().signed == signing.canonical(whole.stack().value())
