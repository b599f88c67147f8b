"""The repo state is one set that many processes change one after the other, whatever is killed or gives up."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.faults.crew import Crew, wait_until
from tests.faults.histories import Action, Call, contradictions

from rawr.state import RepoState, RepoStateMutationOptions, RepoStateStore
from rawr.state.faults import StateLockTimeoutError

ROUNDS = int(os.environ.get("RAWR_FAULT_ROUNDS", "2"))
CALLS = 40
IDS = ("a", "b", "c")
ENABLE, DISABLE, READ = Action.ENABLE, Action.DISABLE, Action.READ


class Noted(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a process's own account: a call that begins, or how the one before ended."""

    at: int
    began: Action | None = None
    plugin_id: str = ""
    was_refused: bool = False
    enabled: tuple[str, ...] | None = None
    """All that was enabled at the moment of the call, by its answer."""


def wander(_: Connection, root: Path, account: Path, seed: int, timeout_ms: int, shares: bool) -> None:
    """Enable, disable and read at random, and write down when each call began and ended, and its answer."""
    dice = random.Random(seed)
    options = RepoStateMutationOptions(lock_timeout_ms=timeout_ms)
    store = RepoStateStore(root, options=options, shares=shares)
    calls: dict[Action, Callable[[str], RepoState]] = {
        ENABLE: store.enable,
        DISABLE: store.disable,
        READ: lambda _: store.get(),
    }
    descriptor = os.open(account, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _number in range(CALLS):
        action, plugin_id = dice.choice((ENABLE, DISABLE, READ)), dice.choice(IDS)
        note(descriptor, Noted(at=time.monotonic_ns(), began=action, plugin_id=plugin_id))
        try:
            state = calls[action](plugin_id)
        except StateLockTimeoutError:
            note(descriptor, Noted(at=time.monotonic_ns(), was_refused=True))
        else:
            note(descriptor, Noted(at=time.monotonic_ns(), enabled=state.plugins.enabled))


def note(descriptor: int, noted: Noted) -> None:
    os.write(descriptor, msgspec.json.encode(noted) + b"\n")


def lines_in(account: Path) -> list[bytes]:
    return account.read_bytes().splitlines() if account.exists() else []


def wait_for_lines(account: Path, count: int) -> None:
    wait_until(lambda: len(lines_in(account)) >= count, f"{account.name} has no {count} lines")


def calls_in(account: Path) -> list[Call]:
    """What the account tells about each id; an answer tells about those too that the call was not about."""
    noted = [msgspec.json.decode(line, type=Noted) for line in lines_in(account)]
    calls = []
    for number in range(0, len(noted), 2):
        began, end = noted[number], noted[number + 1] if number + 1 < len(noted) else None
        assert began.began is not None
        if end is not None and end.was_refused:
            continue  # it did not happen, and whoever saw it happen contradicts that
        at = None if end is None else end.at
        if began.began != READ:
            calls.append(Call(plugin_id=began.plugin_id, action=began.began, invoked=began.at, returned=at))
        if end is not None and end.enabled is not None:
            calls += [
                Call(plugin_id=seen, action=READ, invoked=began.at, returned=at, is_enabled=seen in end.enabled)
                for seen in IDS
                if began.began == READ or seen != began.plugin_id
            ]
    return calls


@pytest.mark.parametrize("number", range(ROUNDS))
def test_what_processes_see_could_have_happened_in_one_order_whatever_is_killed_or_gives_up(
    tmp_path: Path, number: int
) -> None:
    dice = random.Random(number)
    accounts = [tmp_path / f"account-{who}" for who in range(7)]
    with Crew() as crew:
        members = [
            # The first ones are killed; the last ones lose patience now and then.
            crew.start(wander, tmp_path, account, dice.random(), 60_000 if who < 5 else 2, who % 3 != 0)
            for who, account in enumerate(accounts)
        ]
        for member, account in zip(members[:2], accounts[:2], strict=True):
            wait_for_lines(account, dice.randrange(10, CALLS))
            member.kill()
        assert [member.ended() for member in members[2:]] == [0] * 5
    calls = [call for account in accounts for call in calls_in(account)]
    now, state = time.monotonic_ns(), RepoStateStore(tmp_path).get()
    calls += [
        Call(plugin_id=seen, action=READ, invoked=now, returned=now, is_enabled=seen in state.plugins.enabled)
        for seen in IDS
    ]
    assert len(calls) > 5 * CALLS
    assert contradictions(calls) == []


def history(*steps: tuple[Action, int, int | None, bool | None]) -> list[Call]:
    return [
        Call(plugin_id="a", action=action, invoked=invoked, returned=returned, is_enabled=seen)
        for action, invoked, returned, seen in steps
    ]


@pytest.mark.parametrize(
    "calls",
    [
        history((ENABLE, 1, 2, None), (READ, 3, 4, False)),  # a lost update
        history((READ, 1, 2, True)),  # seen, and nobody did it (or it was refused)
        history((READ, 1, 2, True), (ENABLE, 3, 4, None)),  # seen before it was asked for
        history((READ, 1, 2, True), (ENABLE, 3, None, None)),  # the same, by one that was killed
        history((ENABLE, 1, 9, None), (READ, 2, 3, True), (READ, 4, 5, False)),  # seen, and gone again
        history((ENABLE, 1, 2, None), (DISABLE, 3, 4, None), (READ, 5, 6, True)),  # done in the wrong order
        history((ENABLE, 1, None, None), (READ, 2, 3, True), (READ, 4, 5, False), (READ, 6, 7, True)),  # done twice
        history((DISABLE, 1, 2, None), (ENABLE, 1, 2, None), (READ, 3, 4, False), (READ, 5, 6, True)),
    ],
)
def test_a_history_that_could_not_have_happened_is_recognised(calls: list[Call]) -> None:
    other = Call(plugin_id="b", action=ENABLE, invoked=1, returned=2)
    assert contradictions([*calls, other]) == ["a"]


@pytest.mark.parametrize(
    "calls",
    [
        history((READ, 1, 2, False), (ENABLE, 3, 4, None), (READ, 5, 6, True)),
        history((ENABLE, 1, 4, None), (READ, 2, 3, True), (READ, 2, 3, False)),
        history((ENABLE, 1, 2, None), (DISABLE, 1, 2, None), (READ, 3, 4, True)),
        history((ENABLE, 1, 2, None), (DISABLE, 1, 2, None), (READ, 3, 4, False)),
        history((ENABLE, 1, None, None), (READ, 2, 3, False), (READ, 8, 9, True)),  # killed: it may have happened
        history((ENABLE, 1, None, None), (READ, 2, 3, False), (READ, 8, 9, False)),  # or not
    ],
)
def test_a_history_that_could_have_happened_is_accepted(calls: list[Call]) -> None:
    assert contradictions(calls) == []


@given(st.lists(st.tuples(st.sampled_from(Action), st.integers(0, 6), st.integers(0, 6), st.booleans()), max_size=30))
def test_whatever_did_happen_in_one_order_is_accepted(steps: list[tuple[Action, int, int, bool]]) -> None:
    calls, is_enabled = [], False
    for moment, (action, before, after, is_answered) in enumerate(steps):
        is_enabled = is_enabled if action == READ else action == ENABLE
        invoked, returned = 10 * moment - 5 * before, 10 * moment + 5 * after if is_answered else None
        seen = is_enabled if action == READ else None
        calls += [Call(plugin_id="a", action=action, invoked=invoked, returned=returned, is_enabled=seen)]
    assert contradictions(reversed(calls)) == []
