"""Never two in the middle of a change of one state; and what a change may do that would break a lock."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest
from tests.faults.crew import PATIENT, Crew, wait_until

from rawr import state as public
from rawr.errors import RawrError
from rawr.ids import PluginId
from rawr.state import RepoState, RepoStateStore
from rawr.state.aio import AsyncRepoState
from rawr.state.faults import ReentrantMutationError
from rawr.storage.lock import FileLock

PROCESSES, CHANGES = 4, 6


def with_enabled(state: RepoState, plugin_id: str) -> RepoState:
    plugins = msgspec.structs.replace(state.plugins, enabled=(*state.plugins.enabled, PluginId(plugin_id)))
    return msgspec.structs.replace(state, plugins=plugins)


# Never two at once.


def noting(log: int, plugin_id: str) -> public.Mutator:
    """A change that writes down when it enters and when it leaves; one line reaches the log whole."""

    def change(state: RepoState) -> RepoState:
        os.write(log, f"enter {plugin_id}\n".encode())
        after = with_enabled(state, plugin_id)
        os.sched_yield()
        os.write(log, f"leave {plugin_id}\n".encode())
        return after

    return change


def change_in_every_way(_: Connection, root: Path, log_path: Path, who: int) -> None:
    """From two threads of one store, and from two tasks of another one."""
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    by_threads, by_tasks = RepoStateStore(root, options=PATIENT), RepoStateStore(root, options=PATIENT)

    def change_by(thread: int) -> None:
        for number in range(CHANGES):
            by_threads.mutate(noting(log, f"{who}-thread{thread}-{number}"))

    async def change_by_task(facade: AsyncRepoState, task: int) -> None:
        for number in range(CHANGES):
            await facade.mutate(noting(log, f"{who}-task{task}-{number}"))

    async def change_by_tasks() -> None:
        facade = AsyncRepoState(by_tasks)
        await asyncio.gather(*(change_by_task(facade, task) for task in range(2)))

    threads = [threading.Thread(target=change_by, args=(thread,)) for thread in range(2)]
    for thread in threads:
        thread.start()
    asyncio.run(change_by_tasks())
    for thread in threads:
        thread.join()


def test_never_two_change_the_state_at_once_by_threads_tasks_and_processes(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Crew() as crew:
        members = [crew.start(change_in_every_way, tmp_path, log, who) for who in range(PROCESSES)]
        assert [member.ended() for member in members] == [0] * PROCESSES
    lines = log.read_text().splitlines()
    names = {name for _, name in (line.split() for line in lines)}
    assert len(names) == PROCESSES * 4 * CHANGES
    for enter, leave in zip(lines[::2], lines[1::2], strict=True):
        assert (enter[:5], leave) == ("enter", f"leave {enter[6:]}")
    assert set(RepoStateStore(tmp_path).get().plugins.enabled) == names


# A change that starts processes.


def fork_in_change(line: Connection, root: Path) -> None:
    def change(state: RepoState) -> RepoState:
        child = os.fork()
        if not child:
            threading.Event().wait()
        line.send(child)
        threading.Event().wait()
        return state

    RepoStateStore(root).mutate(change)


def start_program_in_change(line: Connection, root: Path) -> None:
    def change(state: RepoState) -> RepoState:
        program = [sys.executable, "-c", "import threading; threading.Event().wait()"]
        line.send(subprocess.Popen(program, close_fds=False).pid)
        threading.Event().wait()
        return state

    RepoStateStore(root).mutate(change)


@pytest.mark.parametrize("work", [fork_in_change, start_program_in_change])
def test_a_child_that_outlives_its_killed_parent_does_not_keep_the_lock(
    tmp_path: Path, work: Callable[..., None]
) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        parent = crew.start(work, tmp_path)
        child = parent.hear()
        try:
            parent.kill()
            os.kill(child, 0)  # it is there
            assert store.enable("a").plugins.enabled == ("a",)
            assert not store.files.lock_file.exists()
        finally:
            os.kill(child, 9)


def leave_change_twice(line: Connection, root: Path) -> None:
    """Fork in a change, and let the child return from it, too, and then try something of its own."""
    store, parent = RepoStateStore(root), os.getpid()

    def change(state: RepoState) -> RepoState:
        child = os.fork()
        if child:
            os.waitpid(child, 0)
        return with_enabled(state, "of-the-parent" if child else "of-the-child")

    try:
        store.mutate(change)
    except RawrError as error:
        line.send(error.code)
    else:
        line.send("made")
    if os.getpid() != parent:
        os._exit(0)


def test_a_child_that_returns_from_a_change_holds_no_lock_and_changes_nothing(tmp_path: Path) -> None:
    with Crew() as crew:
        member = crew.start(leave_change_twice, tmp_path)
        assert [member.hear(), member.hear()] == ["STATE_FORKED", "made"]
        assert member.ended() == 0
    store = RepoStateStore(tmp_path, options=PATIENT)
    assert store.get().plugins.enabled == ("of-the-parent",)
    assert store.snapshot().revision == 1


# A change within a change.


async def enabled_by_task(store: RepoStateStore) -> RepoState:
    return await AsyncRepoState(store).enable("b")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda store, _: store.enable("b"),
        lambda store, _: store.mutate(lambda state: state),
        lambda store, _: store.set(store.get()),
        lambda _, alias: RepoStateStore(alias).disable("b"),
        lambda _, alias: public.enable_plugin(alias, "b"),
        lambda _, alias: public.mutate_repo_state_atomically(alias, lambda state: state),
        lambda store, _: asyncio.run(enabled_by_task(store)),
    ],
    ids=["enable", "mutate", "set", "another store by an alias", "function by an alias", "mutate by an alias", "task"],
)
@pytest.mark.parametrize("is_task", [False, True])
def test_a_change_within_a_change_of_one_state_is_an_error_however_it_is_made(
    tmp_path: Path, attempt: Callable[[RepoStateStore, Path], object], is_task: bool
) -> None:
    root, alias = tmp_path / "root", tmp_path / "alias"
    root.mkdir()
    alias.symlink_to(root)
    store = RepoStateStore(root)

    def change(state: RepoState) -> RepoState:
        with pytest.raises(ReentrantMutationError):
            attempt(store, alias)
        return with_enabled(state, "a")

    if is_task:
        asyncio.run(AsyncRepoState(store).mutate(change))
    else:
        store.mutate(change)
    assert store.enable("c").plugins.enabled == ("a", "c")


# A change that does not end as it should.


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, asyncio.CancelledError])
def test_what_a_change_raises_is_raised_and_leaves_no_lock_and_no_trace(
    tmp_path: Path, error: type[BaseException]
) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    before = store.set(store.get()).state

    def change(_: RepoState) -> RepoState:
        raise error

    with pytest.raises(error):
        store.mutate(change)
    assert store.get() == before
    assert not store.files.lock_file.exists()
    assert store.mutate(partial(with_enabled, plugin_id="a")).revision == 2


# Coroutines that do not wait to the end.


def test_a_cancelled_coroutine_that_still_waits_takes_its_change_back(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    facade = AsyncRepoState(store)

    async def main() -> None:
        with FileLock(store.files.kernel_lock).acquire(0):
            leaving = [
                asyncio.create_task(facade.enable("left")),
                asyncio.create_task(facade.mutate(partial(with_enabled, plugin_id="left-too"))),
            ]
            staying = asyncio.create_task(facade.enable("stayed"))
            await asyncio.to_thread(wait_until, lambda: len(store._line.waiting()) == 3, "they do not wait")
            for task in leaving:
                task.cancel()
            assert all(
                isinstance(end, asyncio.CancelledError)
                for end in await asyncio.gather(*leaving, return_exceptions=True)
            )
        await staying

    asyncio.run(main())
    assert store.enable("next").plugins.enabled == ("next", "stayed")


def test_a_coroutine_that_is_cancelled_while_its_change_is_committed_leaves_it_whole(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    facade = AsyncRepoState(store)
    entered, go_on = threading.Event(), threading.Event()

    def change(state: RepoState) -> RepoState:
        entered.set()
        assert go_on.wait(60)
        return with_enabled(state, "made")

    async def main() -> None:
        changing = asyncio.create_task(facade.mutate(change))
        await asyncio.to_thread(entered.wait, 60)
        changing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await changing
        go_on.set()
        assert (await facade.enable("next")).plugins.enabled == ("made", "next")

    asyncio.run(main())
