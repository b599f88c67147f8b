"""Who gets the kernel lock: whoever comes when it is free, unless somebody has waited too long."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawr.state.entrance import LOOK_AGAIN_S, PATIENCE_S, RESPECT_S, Entrance
from rawr.state.files import StateFiles, files_of
from rawr.storage.lock import FileLock, free


class Time:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Door:
    """The lock of one state, held by somebody until `open`."""

    def __init__(self, files: StateFiles) -> None:
        self.files = files
        self.time = Time()
        self.entrances: list[Entrance] = []
        self._holder = FileLock(files.kernel_lock).try_hold()
        assert self._holder is not None

    def comer(self) -> Entrance:
        self.entrances.append(Entrance(self.files, steady_s=self.time))
        return self.entrances[-1]

    def open(self) -> None:
        if self._holder is not None:
            free(self._holder)
        self._holder = None


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    files = files_of(tmp_path)
    files.folder.mkdir(parents=True)
    door = Door(files)
    yield door
    door.open()
    for entrance in door.entrances:
        entrance.close()


def passed(entrance: Entrance) -> bool:
    descriptor = entrance.try_pass()
    if descriptor is not None:
        free(descriptor)
    return descriptor is not None


def test_nobody_passes_a_held_lock_and_the_first_who_comes_passes_a_free_one(door: Door) -> None:
    early, late = door.comer(), door.comer()
    assert not passed(early)
    door.open()
    assert passed(late)
    assert passed(early)


def test_newcomers_stay_behind_who_has_waited_too_long(door: Door) -> None:
    patient = door.comer()
    assert not passed(patient)
    door.time.now_s += PATIENCE_S
    assert not passed(patient)  # and stands in the turnstile now
    newcomer = door.comer()
    door.open()
    assert not passed(newcomer)
    assert passed(patient)
    patient.close()
    door.time.now_s += LOOK_AGAIN_S
    assert passed(newcomer)


def test_of_two_who_have_waited_too_long_the_first_goes_first(door: Door) -> None:
    first, second = door.comer(), door.comer()
    door.time.now_s += PATIENCE_S
    assert not passed(first)
    assert not passed(second)
    door.open()
    assert not passed(second)
    assert passed(first)
    first.close()
    assert passed(second)


def test_who_was_stopped_in_the_turnstile_does_not_keep_the_others_out_for_ever(door: Door) -> None:
    stopped, other = door.comer(), door.comer()
    door.time.now_s += PATIENCE_S
    assert not passed(stopped)
    door.open()
    door.time.now_s += RESPECT_S - PATIENCE_S - 0.001
    assert not passed(other)
    door.time.now_s += 0.001
    assert passed(other)


def test_a_lock_whose_folder_was_replaced_while_it_was_waited_for_is_not_the_lock(door: Door) -> None:
    waiting = door.comer()
    assert not passed(waiting)
    os.rename(door.files.folder, door.files.folder.with_name("moved"))
    door.files.folder.mkdir()
    door.open()
    assert not passed(waiting), "nobody else would know that this lock is held"
    assert passed(waiting)
    assert door.files.kernel_lock.exists()
