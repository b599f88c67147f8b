"""How waits are found by the value they look for: never one less than the condition itself would find."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.execution.embedded.matching import NEVER, Equality, equality_of, key_at
from rawr.execution.expressions import Expressions, Scope
from rawr.wire import JsonValue

VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([1.0, 2.5, -0.0, 0.0, 1e300, 2**53, 2**53 + 1, float(2**53), "", "1", "true", "null", "é"])
    | st.just([1])
    | st.just({"x": 1})
)
CONDITIONS = (
    "event.data.a == async.data.b",
    "async.data.b == event.data.a",
    "event.data.a == async.data.b && async.data.s != 'x || y'",
    "event.data.a == async.data.b && event.data.a == async.data.c",
)


@pytest.mark.parametrize(
    "condition",
    [
        "event.data.a == 1",
        "event.data.a == async.data.b || true",
        "event.data.a != async.data.b",
        "!(event.data.a == async.data.b)",
        "event.data.a == async.data.b ? false : true",
        "[1].exists(x, x == 1 && event.data.a == async.data.b && true)",
        "event.data.a == async.data.b + 1",
        "event.data.a == async.data.b == true",
        "'&& event.data.a == async.data.b &&' == 'it\\'s'",
        "event.data['a'] == async.data.b",
    ],
)
def test_an_equality_that_is_not_plainly_demanded_is_not_used(condition: str) -> None:
    assert equality_of(condition) is None


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_equality_that_is_demanded_is_used(condition: str) -> None:
    assert equality_of(condition) == Equality(event_path="data.a", async_path="data.b")


@given(st.sampled_from(CONDITIONS), VALUES, VALUES, VALUES)
def test_where_the_condition_holds_the_keys_are_equal(condition: str, a: JsonValue, b: JsonValue, c: JsonValue) -> None:
    trigger, candidate = {"data": {"a": a}}, {"data": {"b": b, "c": c, "s": "y"}}
    key = key_at(trigger, "data.a")
    if key is not None and Expressions().is_true(condition, Scope(trigger, candidate)):
        assert key_at(candidate, "data.b") == key


def test_what_is_not_there_has_a_key_that_no_value_has() -> None:
    assert key_at({"data": {}}, "data.a") == NEVER
    assert key_at({"data": 1}, "data.a.b") == NEVER
    assert key_at({"data": {"a": ""}}, "data.a") != NEVER
