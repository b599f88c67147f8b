"""What expressions over events answer, and which are refused."""

from __future__ import annotations

from typing import Any

import pytest

from rawr.execution.expressions import ExpressionInvalidError, Expressions, Scope, Wanted, check

EVENT = {"name": "go", "data": {"x": 1, "y": 1.0, "text": "é", "none": None, "list": [1, 2], "big": 2**63}}


def scope(**data: Any) -> Scope:
    return Scope({"name": "go", "data": {**EVENT["data"], **data}}, {"name": "other", "data": {"x": 1}})  # type: ignore[dict-item]  # the test's own constant


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("event.data.x == 1", True),
        ("event.data.x == async.data.x", True),
        ("event.data.y == async.data.x", True),
        ("event.data.text == 'é' && event.name == 'go'", True),
        ("event.data.none == null", True),
        ("has(event.data.missing)", False),
        ("event.data.missing == 1", False),
        ("event.data.missing != 1", False),
        ("event.data.text > 1", False),
        ("1 / (event.data.x - 1) == 1", False),
        ("event.data.x", False),
        ("event.data.list.exists(n, n == 2)", True),
    ],
)
def test_a_condition_holds_only_when_it_can_be_answered(text: str, holds: bool) -> None:
    check(text, Wanted.CONDITION, "event", "async")
    assert Expressions().is_true(text, scope()) is holds


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("event.data.x", "1"),
        ("event.data.text + '-' + string(event.data.x)", '"é-1"'),
        ("[event.data.x, event.data.none]", "[1,null]"),
        ("event.data.none", "null"),
        ("event.data.missing", None),
        ("event.data.big", str(2**63)),
    ],
)
def test_a_key_is_the_json_text_of_its_value(text: str, key: str | None) -> None:
    check(text, Wanted.KEY, "event")
    assert Expressions().key(text, scope()) == key


@pytest.mark.parametrize(
    ("text", "number"), [("event.data.x > 0 ? 120 : 0", 120), ("event.data.y", 1.0), ("event.data.missing", None)]
)
def test_a_number_is_a_number_or_nothing(text: str, number: float | None) -> None:
    check(text, Wanted.NUMBER, "event")
    assert Expressions().number(text, scope()) == number


@pytest.mark.parametrize(
    ("text", "wanted", "reason"),
    [
        ("evnt.data.x == 1", Wanted.CONDITION, "1:10: undeclared reference to 'evnt.data.x'"),
        ("async.data.x == 1", Wanted.CONDITION, "undeclared reference to 'async.data.x'"),
        ("event.data.x ==", Wanted.CONDITION, "1:16"),
        ("1 + 'a' == 2", Wanted.CONDITION, "no matching overload"),
        ("'a'", Wanted.CONDITION, "a condition is needed"),
        ("'a'", Wanted.NUMBER, "a number is needed"),
        ("", Wanted.KEY, "cannot be compiled"),
        ("1" * 4001, Wanted.KEY, "4001 characters"),
        ("(" * 100 + "1" + ")" * 100, Wanted.KEY, "recursion"),
        ("event.data.x.replace('a', 'b')", Wanted.KEY, "replace"),
    ],
)
def test_what_can_never_be_answered_is_refused_with_its_place(text: str, wanted: Wanted, reason: str) -> None:
    with pytest.raises(ExpressionInvalidError, match=reason):
        check(text, wanted, "event")


def test_an_expression_that_would_run_for_long_gives_no_answer() -> None:
    text = "event.data.list.exists(a, event.data.list.exists(b, event.data.list.exists(c, a + b + c == -1)))"
    assert Expressions().is_true(text, scope(list=list(range(1000)))) is False


def test_numbers_beyond_64_bits_give_no_answer() -> None:
    assert Expressions().key("event.data.big", scope(big=2**70)) is None
