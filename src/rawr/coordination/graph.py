"""Desks and handoffs as a directed graph. Pure; linear in desks plus handoffs; never recursive."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from rawr.coordination.model import Desk, Handoff, Workflow
from rawr.ids import DeskId


class Graph(msgspec.Struct, frozen=True, kw_only=True):
    """Adjacency in declaration order. Handoffs from or to unknown desks are left out, repeated ones are kept once."""

    desk_ids: tuple[DeskId, ...]
    downstream: dict[DeskId, tuple[DeskId, ...]]
    upstream: dict[DeskId, tuple[DeskId, ...]]


class CycleError(Exception):
    """The graph has a cycle, so there is no topological order."""


def graph_of(workflow: Workflow) -> Graph:
    return graph(workflow.desks, workflow.handoffs)


def graph(desks: Sequence[Desk], handoffs: Sequence[Handoff]) -> Graph:
    desk_ids = tuple(dict.fromkeys(desk.desk_id for desk in desks))
    downstream: dict[DeskId, dict[DeskId, None]] = {desk_id: {} for desk_id in desk_ids}
    upstream: dict[DeskId, dict[DeskId, None]] = {desk_id: {} for desk_id in desk_ids}
    for handoff in handoffs:
        if handoff.from_desk_id in downstream and handoff.to_desk_id in upstream:
            downstream[handoff.from_desk_id][handoff.to_desk_id] = None
            upstream[handoff.to_desk_id][handoff.from_desk_id] = None
    return Graph(
        desk_ids=desk_ids,
        downstream={desk_id: tuple(found) for desk_id, found in downstream.items()},
        upstream={desk_id: tuple(found) for desk_id, found in upstream.items()},
    )


def reachable_from(graph: Graph, start: DeskId) -> frozenset[DeskId]:
    """`start` and every desk that a path of handoffs leads to; empty when there is no such desk."""
    if start not in graph.downstream:
        return frozenset()
    seen = {start}
    waiting = deque([start])
    while waiting:
        for follower in graph.downstream[waiting.popleft()]:
            if follower not in seen:
                seen.add(follower)
                waiting.append(follower)
    return frozenset(seen)


def topological_order(graph: Graph) -> tuple[DeskId, ...]:
    """Every desk after all its upstream desks: as declared, then in the order in which the last upstream is reached.

    Raises:
        CycleError: some desks wait for each other.
    """
    missing = {desk_id: len(graph.upstream[desk_id]) for desk_id in graph.desk_ids}
    ready = deque(desk_id for desk_id in graph.desk_ids if missing[desk_id] == 0)
    order: list[DeskId] = []
    while ready:
        desk_id = ready.popleft()
        order.append(desk_id)
        for follower in graph.downstream[desk_id]:
            missing[follower] -= 1
            if missing[follower] == 0:
                ready.append(follower)
    if len(order) < len(graph.desk_ids):
        raise CycleError(f"{len(graph.desk_ids) - len(order)} desks lie on or behind a cycle")
    return tuple(order)


def has_cycle(graph: Graph) -> bool:
    try:
        topological_order(graph)
    except CycleError:
        return True
    return False
