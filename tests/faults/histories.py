"""Whether what several processes saw of one state could have happened one step after the other. Pure.

A history is linearizable when every call can be given one moment between its invocation and its return such that
the calls, in the order of their moments, are what a plain set of ids would have answered. Ids do not influence each
other, so each is judged alone, by the search of Wing and Gong: always try a call that no unplaced call precedes.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec


class Action(StrEnum):
    ENABLE = "enable"
    DISABLE = "disable"
    READ = "read"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call about one id. Times are of a clock that all processes share; the unit does not matter."""

    plugin_id: str
    action: Action
    invoked: int
    returned: int | None
    """None for a call that was never answered: it may have happened at any later moment, or not at all."""
    is_enabled: bool | None = None
    """What a reader saw."""


def contradictions(calls: Iterable[Call]) -> list[str]:
    """The ids whose calls, beginning with nothing enabled, cannot be put in any order. Refused calls are not given."""
    by_id: dict[str, list[Call]] = {}
    for call in calls:
        by_id.setdefault(call.plugin_id, []).append(call)
    return sorted(plugin_id for plugin_id, of_one in by_id.items() if not _can_be_ordered(of_one))


def _can_be_ordered(calls: list[Call]) -> bool:
    # A read that was never answered says nothing.
    calls = [call for call in calls if call.returned is not None or call.action != Action.READ]
    calls.sort(key=lambda call: call.invoked)
    answered = sum(1 << number for number, call in enumerate(calls) if call.returned is not None)
    to_try, known = [(0, False)], {(0, False)}
    while to_try:
        placed, is_enabled = to_try.pop()
        if placed & answered == answered:
            return True
        for number in _could_be_next(calls, placed):
            after = _after(calls[number], is_enabled)
            follower = (placed | 1 << number, after)
            if after is None or follower in known:
                continue
            known.add((follower[0], after))
            if calls[number].action == Action.READ:  # it changes nothing, so to place it at once is never wrong
                to_try.append((follower[0], after))
                break
            to_try.append((follower[0], after))
    return False


def _could_be_next(calls: list[Call], placed: int) -> list[int]:
    """Those that were invoked before every unplaced call had returned; reads first."""
    found: list[int] = []
    earliest_return: int | None = None
    start = (~placed & (placed + 1)).bit_length() - 1  # the first that is not placed
    for number in range(start, len(calls)):
        call = calls[number]
        if earliest_return is not None and call.invoked > earliest_return:
            break
        if placed >> number & 1:
            continue
        found.append(number)
        if call.returned is not None:
            earliest_return = call.returned if earliest_return is None else min(earliest_return, call.returned)
    return sorted(found, key=lambda number: calls[number].action != Action.READ)


def _after(call: Call, is_enabled: bool) -> bool | None:
    """Whether the id is enabled after `call`; None when the call cannot have happened here."""
    if call.action == Action.READ:
        return is_enabled if call.is_enabled == is_enabled else None
    return call.action == Action.ENABLE
