"""What a process asks of the holder of the lock is done once or refused, wherever the holder or the asker stops."""

from __future__ import annotations

import os
import random
import re
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import pytest
from tests.faults.crew import PATIENT, Crew, Member, wait_until

from rawr.errors import RawrError
from rawr.state import RepoState, RepoStateMutationOptions, RepoStateStore
from rawr.state.journal import Journal
from rawr.storage.lock import FileLock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere processes do not ask each other")
TOGETHER = 6
OK, TIMEOUT, UNKNOWN = "OK", "STATE_LOCK_TIMEOUT", "STATE_OUTCOME_UNKNOWN"
OPERATIONS = frozenset(
    {"open", "os.rename", "os.link", "os.remove", "os.truncate", "os.chmod", "os.listdir", "fcntl.fcntl", "fcntl.flock"}
)
SET_LOCK = 37  # F_OFD_SETLK: the only use of it by a holder is to claim a request


class Step(msgspec.Struct, frozen=True):
    """One operation on the files of the state, as Python's audit hooks tell of it before it is done."""

    event: str
    subject: str


class Stepping:
    """An audit hook: pauses when the kernel lock is held, and suspends the process before one of the next steps."""

    def __init__(self, line: Connection, stop_before: int | None) -> None:
        self.steps: list[Step] = []
        self._line = line
        self._stop_before = stop_before
        self._has_begun = False

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        if event not in OPERATIONS:
            return
        subject = str(arguments[1] if event in ("os.rename", "fcntl.fcntl") else arguments[0])
        if not self._has_begun and subject.endswith("state.holder"):
            self._has_begun = True
            self._line.send("holding")
            self._line.recv()
        elif self._has_begun:
            if len(self.steps) == self._stop_before:
                os.kill(os.getpid(), 19)  # SIGSTOP
            self.steps.append(Step(event, subject))


def hold_and_commit(line: Connection, root: Path, stop_before: int | None) -> None:
    """Get the lock, say so, wait for a word, and commit, with a stop on the way."""
    stepping = Stepping(line, stop_before)
    sys.addaudithook(stepping)
    RepoStateStore(root, options=PATIENT).enable("of-the-holder")
    line.send(stepping.steps)


def ask(line: Connection, root: Path, plugin_id: str, timeout_ms: int) -> None:
    store = RepoStateStore(root, options=RepoStateMutationOptions(lock_timeout_ms=timeout_ms))
    try:
        state = store.enable(plugin_id)
    except RawrError as error:
        line.send((error.code, error.message, error.fix))
    else:
        line.send((OK, "", "" if plugin_id in state.plugins.enabled else "and yet it is not there"))


def hold_in_change(line: Connection, root: Path) -> None:
    """Be in the middle of a change until told to go on."""

    def slow(state: RepoState) -> RepoState:
        line.send("holding")
        line.recv()
        return state

    RepoStateStore(root, options=PATIENT).mutate(slow)


class Scene:
    """A holder that has the lock, and somebody who has asked it for a plugin."""

    def __init__(self, crew: Crew, root: Path, *, stop_before: int | None, timeout_ms: int) -> None:
        root.mkdir()
        self.store = RepoStateStore(root, options=PATIENT)
        self.holder = crew.start(hold_and_commit, root, stop_before)
        self._crew = crew
        self._timeout_ms = timeout_ms

    def play(self) -> None:
        """Let somebody ask the holder, and the holder go on."""
        assert self.holder.hear() == "holding"
        self.asker = self._crew.start(ask, self.store.root, "asked-for", self._timeout_ms)
        wait_for_requests(self.store, "asked-for")
        self.holder.tell("go on")

    @property
    def is_done(self) -> bool:
        return "asked-for" in self.store.get().plugins.enabled


def wait_for_requests(store: RepoStateStore, *plugin_ids: str) -> None:
    queue = store.files.requests

    def are_there() -> bool:
        text = queue.read_text(errors="replace") if queue.exists() else ""
        return all(f'"{plugin_id}"' in text for plugin_id in plugin_ids)

    wait_until(are_there, f"{plugin_ids} are not asked for")


@pytest.fixture
def steps(tmp_path: Path) -> list[Step]:
    """What a holder does, undisturbed, between having the kernel lock and the end of a commit that serves another."""
    with Crew() as crew:
        scene = Scene(crew, tmp_path / "rehearsal", stop_before=None, timeout_ms=60_000)
        scene.play()
        assert scene.asker.hear()[0] == OK
        steps: list[Step] = scene.holder.hear()
    return steps


def test_a_request_that_timed_out_is_never_carried_out_wherever_its_holder_was_suspended(
    tmp_path: Path, steps: list[Step]
) -> None:
    claim = next(n for n, step in enumerate(steps) if (step.event, step.subject) == ("fcntl.fcntl", str(SET_LOCK)))
    rename = next(n for n, step in enumerate(steps) if (step.event, step.subject[-10:]) == ("os.rename", "state.json"))
    assert 0 < claim < rename < len(steps) - 1
    answers = []
    for first in range(0, len(steps), TOGETHER):
        numbers = range(first, min(first + TOGETHER, len(steps)))
        with Crew() as crew:
            scenes = [Scene(crew, tmp_path / str(number), stop_before=number, timeout_ms=1000) for number in numbers]
            for scene in scenes:
                scene.play()
            for number, scene in zip(numbers, scenes, strict=True):
                answer = scene.asker.hear()[0]
                scene.holder.wait_until_suspended()
                was_done = scene.is_done
                scene.holder.go_on()
                assert scene.holder.ended() == 0
                answers.append(answer)
                where = f"before step {number}, {steps[number]}"
                assert answer == UNKNOWN or scene.is_done == (answer == OK), where
                assert answer != OK or was_done, where
                assert answer != UNKNOWN or claim < number <= rename, where
                assert "of-the-holder" in scene.store.get().plugins.enabled
    assert {TIMEOUT, OK} <= set(answers)


def test_a_request_is_carried_out_once_wherever_its_holder_dies(tmp_path: Path, steps: list[Step]) -> None:
    with Crew() as crew:
        scenes = [
            Scene(crew, tmp_path / str(number), stop_before=number, timeout_ms=60_000) for number in range(len(steps))
        ]
        for scene in scenes:
            scene.play()
        for number, scene in enumerate(scenes):
            scene.holder.wait_until_suspended()
            scene.holder.kill()
            assert scene.asker.hear() == (OK, "", ""), f"before step {number}, {steps[number]}"
            assert scene.is_done
            commits = list(Journal(scene.store.files.journal).entries())
            assert [change.id for entry in commits for change in entry.ops].count("asked-for") == 1
            assert "the-next" in scene.store.enable("the-next").plugins.enabled
            assert not scene.store.files.lock_file.exists()


def test_a_request_of_a_process_that_was_killed_is_not_carried_out(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        with FileLock(store.files.kernel_lock).acquire(0):
            killed, living = (crew.start(ask, tmp_path, name, 60_000) for name in ("of-the-dead", "of-the-living"))
            wait_for_requests(store, "of-the-dead", "of-the-living")
            killed.kill()
            living.suspend()  # so that it is served by us
        store.enable("another")
        assert store.get().plugins.enabled == ("another", "of-the-living")


def asking_in_order(crew: Crew, store: RepoStateStore, count: int) -> list[Member]:
    """Processes that ask one after the other, while somebody holds the lock; in that order."""
    members = []
    for number in range(count):
        members.append(crew.start(ask, store.root, f"p{number}", 60_000))
        wait_for_requests(store, f"p{number}")
    return members


def test_requests_are_carried_out_in_the_order_in_which_they_were_made(tmp_path: Path) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        with FileLock(store.files.kernel_lock).acquire(0):
            members = asking_in_order(crew, store, 5)
        assert [member.hear()[0] for member in members] == [OK] * 5
    entries = reversed(list(Journal(store.files.journal).entries()))
    assert [change.id for entry in entries for change in entry.ops] == [f"p{number}" for number in range(5)]


def torn(queue: Path) -> None:
    with queue.open("ab") as file:
        file.write(b'{"key":17,"op":"enab')


def zeroed(queue: Path) -> None:
    queue.write_bytes(bytes(queue.stat().st_size))


def cut(queue: Path) -> None:
    os.truncate(queue, 40)


def replaced_by_noise(queue: Path) -> None:
    queue.write_bytes(random.Random(5).randbytes(4000))


def made_by_a_stranger(queue: Path) -> None:
    queue.with_name("x").write_bytes(b'{"queue":"another"}\n{"key":1,"op":"enable","id":"smuggled"}\n')
    queue.with_name("x").replace(queue)


@pytest.mark.parametrize("damage", [torn, zeroed, cut, replaced_by_noise, made_by_a_stranger, Path.unlink])
def test_damage_to_the_file_of_requests_costs_nobody_a_change(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    store = RepoStateStore(tmp_path, options=PATIENT)
    with Crew() as crew:
        with FileLock(store.files.kernel_lock).acquire(0):
            members = asking_in_order(crew, store, 3)
            damage(store.files.requests)
            members.append(crew.start(ask, tmp_path, "p3", 60_000))
        assert [member.hear() for member in members] == [(OK, "", "")] * 4
        assert store.enable("p4").plugins.enabled == ("p0", "p1", "p2", "p3", "p4")


@pytest.mark.parametrize("is_suspended", [False, True])
def test_a_timeout_names_the_holder_its_age_and_the_way_out(tmp_path: Path, is_suspended: bool) -> None:
    with Crew() as crew:
        holder = crew.start(hold_in_change, tmp_path)
        assert holder.hear() == "holding"
        if is_suspended:
            holder.suspend()
        code, message, fix = crew.start(ask, tmp_path, "late", 50).hear()
        assert code == TIMEOUT
        found = re.search(r"state\.lock: held by pid (\d+) \(alive, (.+)\), for \d+\.\d s; waited \d+ ms$", message)
        assert found is not None, message
        assert int(found[1]) == holder.pid
        assert "python" in found[2]
        assert re.fullmatch(rf"wait for that process, or end it and try again \(holder id {holder.pid}@.+Z\)", fix)
        holder.go_on()
        holder.tell("go on")
        assert holder.ended() == 0
    assert RepoStateStore(tmp_path).get().plugins.enabled == ()


def test_a_timeout_says_that_the_holder_is_dead_and_when_it_stops_mattering(tmp_path: Path) -> None:
    with Crew() as crew:
        dead = crew.start(hold_in_change, tmp_path)
        assert dead.hear() == "holding"
        dead.kill()
        lock = RepoStateStore(tmp_path).files.lock_file
        lock.unlink()
        lock.write_text(
            f'{{"pid":{dead.pid},"acquiredAt":"2026-01-01T00:00:00.000Z"}}'
        )  # as the TypeScript rawr has it
        pid = dead.pid
        code, message, fix = crew.start(ask, tmp_path, "late", 50).hear()
    assert code == TIMEOUT
    assert f"held by pid {pid} (dead), for " in message
    assert re.fullmatch(
        r"try again in (60|5\d) s, when the lock of the dead process is taken over; or: rawr state unlock", fix
    )
