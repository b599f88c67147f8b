"""Desks and handoffs as a graph: order, reachability, cycles, and that size does not hurt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.coordination.graph import CycleError, Graph, graph, has_cycle, reachable_from, topological_order
from rawr.coordination.model import Desk, Handoff, MemoryScope
from rawr.ids import DeskId, HandoffId

Edges = Sequence[tuple[str, str]]


def desk(desk_id: str) -> Desk:
    return Desk(
        desk_id=DeskId(desk_id),
        kind="desk:analysis",
        name="n",
        responsibility="r",
        domain="d",
        input_schema={},
        output_schema={},
        memory_scope=MemoryScope(persist=False),
    )


def drawn(desk_ids: Sequence[str], edges: Edges) -> Graph:
    handoffs = [
        Handoff(handoff_id=HandoffId(f"h{number}"), from_desk_id=DeskId(a), to_desk_id=DeskId(b))
        for number, (a, b) in enumerate(edges)
    ]
    return graph([desk(desk_id) for desk_id in desk_ids], handoffs)


@pytest.mark.parametrize(
    ("desk_ids", "edges", "order"),
    [
        ("", [], ""),
        ("a", [], "a"),
        ("cba", [], "cba"),
        ("ba", [("a", "b")], "ab"),
        ("abcd", [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")], "abcd"),
        ("abcd", [("a", "c"), ("a", "b"), ("b", "d"), ("c", "d")], "acbd"),
        ("abcd", [("c", "b")], "acdb"),
        ("ab", [("a", "b"), ("a", "b")], "ab"),
    ],
)
def test_desks_come_after_their_upstream_as_declared(desk_ids: str, edges: Edges, order: str) -> None:
    assert "".join(topological_order(drawn(desk_ids, edges))) == order


@pytest.mark.parametrize("edges", [[("a", "a")], [("a", "b"), ("b", "a")], [("a", "b"), ("b", "c"), ("c", "b")]])
def test_a_cycle_has_no_order(edges: Edges) -> None:
    cyclic = drawn("abc", edges)
    assert has_cycle(cyclic)
    with pytest.raises(CycleError, match="desks lie on or behind a cycle"):
        topological_order(cyclic)


def test_reachability_follows_handoffs_forward_only() -> None:
    flow = drawn("abcde", [("a", "b"), ("b", "c"), ("d", "b")])
    assert reachable_from(flow, DeskId("a")) == {"a", "b", "c"}
    assert reachable_from(flow, DeskId("e")) == {"e"}
    assert reachable_from(flow, DeskId("nobody")) == frozenset()


def test_handoffs_of_unknown_desks_are_left_out_and_repeated_ones_kept_once() -> None:
    flow = drawn("ab", [("a", "b"), ("a", "b"), ("a", "zz"), ("zz", "b")])
    assert flow.downstream == {"a": ("b",), "b": ()}
    assert flow.upstream == {"a": (), "b": ("a",)}


def test_d11_a_chain_of_20000_desks_is_neither_recursed_into_nor_searched_again_and_again() -> None:
    names = [f"d{number}" for number in range(20_000)]
    chain = drawn(names, list(pairwise(names)))
    assert topological_order(chain) == tuple(names)
    assert reachable_from(chain, DeskId("d0")) == frozenset(names)
    assert has_cycle(drawn(names, [*pairwise(names), (names[-1], names[0])]))


DESKS = "abcdefgh"
edges_of_any_graph = st.lists(st.tuples(st.sampled_from(DESKS), st.sampled_from(DESKS)), max_size=20)


@given(st.permutations(DESKS), edges_of_any_graph)
def test_an_order_has_each_desk_once_after_all_its_upstream_or_there_is_a_cycle(names: list[str], edges: Edges) -> None:
    flow = drawn(names, edges)
    try:
        order = topological_order(flow)
    except CycleError:
        assert any(_reaches_itself(flow, desk_id) for desk_id in flow.desk_ids)
        return
    place = {desk_id: index for index, desk_id in enumerate(order)}
    assert sorted(order) == sorted(names)
    assert all(place[DeskId(a)] < place[DeskId(b)] for a, b in edges)
    assert not any(_reaches_itself(flow, desk_id) for desk_id in flow.desk_ids)


@given(st.permutations(DESKS), edges_of_any_graph)
def test_upstream_and_downstream_say_the_same(names: list[str], edges: Edges) -> None:
    flow = drawn(names, edges)
    down = {(a, b) for a, followers in flow.downstream.items() for b in followers}
    up = {(a, b) for b, sources in flow.upstream.items() for a in sources}
    assert down == up == set(edges)


def _reaches_itself(flow: Graph, desk_id: DeskId) -> bool:
    return any(desk_id in reachable_from(flow, follower) for follower in flow.downstream[desk_id])
