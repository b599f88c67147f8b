"""The group writer: whoever waits while a group is being committed is in the next one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from rawr.storage.faults import OutcomeUnknownError
from rawr.storage.groupcommit import GROUP_MAX, Done, Failed, GroupWriter, Outcome, WriterClosedError


class Slow:
    """A committer that keeps its first group until it is let go, and remembers the groups that it was given."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.entered = threading.Event()
        self.let_go = threading.Event()

    def commit(self, units: Sequence[int]) -> Sequence[Outcome]:
        self.groups.append(list(units))
        self.entered.set()
        assert self.let_go.wait(30)
        return [Failed(ValueError(unit)) if unit < 0 else Done(unit * 10) for unit in units]


async def while_first_is_committed(writer: GroupWriter[int], slow: Slow, units: Sequence[int]) -> list[object]:
    first = asyncio.create_task(writer.submit(0))
    await asyncio.to_thread(slow.entered.wait, 30)
    others = [asyncio.create_task(writer.submit(unit)) for unit in units]
    await asyncio.sleep(0)  # all have been queued, none was answered
    assert not any(task.done() for task in (first, *others))
    slow.let_go.set()
    answers: list[object] = await asyncio.gather(first, *others, return_exceptions=True)
    return answers


def test_waiters_share_one_commit() -> None:
    slow = Slow()
    writer = GroupWriter("writer", slow.commit)
    answers = asyncio.run(while_first_is_committed(writer, slow, range(1, 41)))
    writer.close()
    assert answers == [unit * 10 for unit in range(41)]
    assert slow.groups == [[0], list(range(1, 41))]


def test_a_group_has_a_greatest_size() -> None:
    slow = Slow()
    writer = GroupWriter("writer", slow.commit)
    asyncio.run(while_first_is_committed(writer, slow, range(1, GROUP_MAX + 3)))
    writer.close()
    assert [len(group) for group in slow.groups] == [1, GROUP_MAX, 2]


def test_a_unit_that_fails_fails_alone() -> None:
    slow = Slow()
    writer = GroupWriter("writer", slow.commit)
    answers = asyncio.run(while_first_is_committed(writer, slow, [1, -1, 2]))
    writer.close()
    assert [repr(answer) for answer in answers] == ["0", "10", "ValueError(-1)", "20"]


def test_a_cancelled_waiter_does_not_disturb_the_others() -> None:
    slow = Slow()
    writer = GroupWriter("writer", slow.commit)

    async def main() -> tuple[object, object]:
        first = asyncio.create_task(writer.submit(1))
        await asyncio.to_thread(slow.entered.wait, 30)
        second = asyncio.create_task(writer.submit(2))
        await asyncio.sleep(0)
        first.cancel()
        slow.let_go.set()
        answers = await asyncio.gather(first, second, return_exceptions=True)
        return answers[0], answers[1]

    cancelled, answered = asyncio.run(main())
    writer.close()
    assert isinstance(cancelled, asyncio.CancelledError)
    assert answered == 20


def test_closing_commits_what_was_accepted_and_refuses_the_rest() -> None:
    slow = Slow()
    writer = GroupWriter("writer", slow.commit)
    answers: list[object] = []
    threads = [threading.Thread(target=lambda unit=unit: answers.append(writer.submit_sync(unit))) for unit in (1, 2)]
    for thread in threads:
        thread.start()
    assert slow.entered.wait(30)
    slow.let_go.set()
    for thread in threads:
        thread.join(30)
    writer.close()
    writer.close()
    assert sorted(map(repr, answers)) == ["10", "20"]
    with pytest.raises(WriterClosedError, match="writer is closed"):
        writer.submit_sync(3)


def test_a_loop_that_has_been_closed_does_not_stop_the_writer() -> None:
    slow = Slow()
    writer = GroupWriter("writer", slow.commit)

    async def leave() -> None:
        asyncio.create_task(writer.submit(1)).add_done_callback(lambda _: None)
        await asyncio.to_thread(slow.entered.wait, 30)

    asyncio.run(leave())
    slow.let_go.set()
    assert writer.submit_sync(2) == 20
    writer.close()


def test_who_has_no_answer_in_time_does_not_know_whether_it_was_committed() -> None:
    slow = Slow()
    writer = GroupWriter("the writer", slow.commit, answer_s=0.05)
    with pytest.raises(OutcomeUnknownError, match=r"the writer gave no answer within 0.05 s"):
        asyncio.run(writer.submit(1))
    with pytest.raises(OutcomeUnknownError):
        writer.submit_sync(2)
    slow.let_go.set()
    writer.close()
    assert slow.groups == [[1], [2]]
