"""What one commit carries out: an answer that is read from it holds for every request in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rawr.state.changes import Change, Pending, QueuePosition, Request
from rawr.state.grouping import GROUP_MAX, group_of

BEFORE = QueuePosition(queue="q", offset=10)
AFTER = QueuePosition(queue="q", offset=1000)
OPS = st.sampled_from(["enable", "disable"])
IDS = st.sampled_from(["a", "b", "c"])


def pending(*wanted: tuple[str, str]) -> list[Pending]:
    return [
        Pending(request=Request(key=number, op=op, id=plugin), upto=QueuePosition(queue="q", offset=20 + number))
        for number, (op, plugin) in enumerate(wanted)
    ]


def direct(*wanted: tuple[str, str | None]) -> list[tuple[Change, int]]:
    return [(Change(op=op, id=plugin), number) for number, (op, plugin) in enumerate(wanted)]


def test_requests_that_agree_go_together() -> None:
    asked = pending(("enable", "a"), ("disable", "b"), ("enable", "a"))
    group = group_of(asked, direct(("enable", "c")), before=BEFORE, after=AFTER)
    assert (list(group.requests), group.direct, group.upto) == (asked, (0,), AFTER)


def test_a_request_that_undoes_another_waits_for_the_next_commit() -> None:
    asked = pending(("enable", "a"), ("enable", "b"), ("disable", "a"), ("enable", "c"))
    group = group_of(asked, direct(), before=BEFORE, after=AFTER)
    assert list(group.requests) == asked[:2]
    assert group.upto == asked[1].upto


def test_a_change_that_may_be_anything_does_not_go_with_requests() -> None:
    asked = pending(("enable", "a"))
    own = direct(("enable", "b"), ("mutate", None), ("enable", "c"))
    assert group_of(asked, own, before=BEFORE, after=AFTER).direct == (0,)
    assert group_of([], own, before=BEFORE, after=AFTER).direct == (0, 1, 2)


def test_without_requests_whatever_waits_here_goes_together() -> None:
    own = direct(("enable", "a"), ("disable", "a"), ("set", None))
    group = group_of([], own, before=BEFORE, after=BEFORE)
    assert (group.direct, group.upto) == ((0, 1, 2), BEFORE)


@given(asked=st.lists(st.tuples(OPS, IDS), max_size=12), own=st.lists(st.tuples(OPS, IDS), max_size=6))
def test_nothing_in_a_commit_with_requests_undoes_anything_else_in_it(
    asked: list[tuple[str, str]], own: list[tuple[str, str]]
) -> None:
    items = pending(*asked)
    group = group_of(items, direct(*own), before=BEFORE, after=AFTER)
    assert list(group.requests) == items[: len(group.requests)]
    assert group.direct == tuple(range(len(group.direct)))
    if group.requests:
        together = [(item.request.id, item.request.op) for item in group.requests]
        together += [(own[number][1], own[number][0]) for number in group.direct]
        assert len({plugin for plugin, _ in together}) == len(set(together))
    assert bool(items) == bool(group.requests)


def test_a_commit_has_a_limit() -> None:
    asked = pending(*[("enable", f"p{number}") for number in range(GROUP_MAX + 5)])
    group = group_of(asked, direct(("enable", "x")), before=BEFORE, after=AFTER)
    assert (len(group.requests), group.direct, group.upto) == (GROUP_MAX, (), asked[GROUP_MAX - 1].upto)
