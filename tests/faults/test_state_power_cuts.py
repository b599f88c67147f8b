"""A power cut at any moment of any change: what was acknowledged is there, and no revision is given twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.faults.power import Acknowledged, Left, Recorder, materialised

from rawr.errors import RawrError
from rawr.state import RepoStateStore

pytestmark = pytest.mark.skipif(not hasattr(os, "setxattr"), reason="the recorder needs extended attributes")
NAMES = ("a", "b", "c")


def recorded(root: Path, *, overlooks: str | None = None) -> list[Left]:
    """What power cuts may leave during the first three changes of a state, its folder included."""
    root.mkdir()
    recorder = Recorder(root, overlooks=overlooks)
    with pytest.MonkeyPatch.context() as patch:
        recorder.watch(patch)
        store = RepoStateStore(root)
        for number, name in enumerate(NAMES, start=1):
            recorder.under_way = NAMES[:number]
            state = store.enable(name)
            recorder.promised = Acknowledged(number, tuple(state.plugins.enabled))
            recorder.under_way = None
    return recorder.left


def broken_promise(left: Left, root: Path) -> str | None:
    """What does not hold when the machine is up again; None when everything does."""
    materialised(left, root)
    promised = left.promised or Acknowledged(0, ())
    store = RepoStateStore(root)
    try:
        snapshot = store.snapshot()
    except RawrError as error:
        return error.message
    there = tuple(snapshot.state.plugins.enabled)
    if there not in (promised.enabled, left.under_way):
        return f"{there} is there, {promised.enabled} was promised"
    if there == promised.enabled and snapshot.revision != promised.revision:
        return f"it is revision {snapshot.revision}, {promised.revision} was promised"
    next_revision = store.mutate(lambda state: state).revision
    if next_revision <= promised.revision:
        return f"revision {next_revision} is given again"
    return None if tuple(store.get().plugins.enabled) == there else "the next change lost something"


def distinct(found: list[Left]) -> list[Left]:
    """One of each, as many cuts leave the same."""
    seen = {(repr(sorted(left.files.items())), left.promised, left.under_way): left for left in found}
    return list(seen.values())


def test_a_power_cut_at_any_moment_takes_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    found = distinct(recorded(tmp_path / "hq"))
    assert len(found) > 100
    for number, left in enumerate(found):
        root = tmp_path / str(number)
        assert broken_promise(left, root) is None, left.where
        shutil.rmtree(root)


@pytest.mark.parametrize("overlooked", ["file", "directory", "stamp"])
def test_the_simulation_notices_when_something_is_not_forced_to_disk(tmp_path: Path, overlooked: str) -> None:
    found = distinct(recorded(tmp_path / "hq", overlooks=overlooked))
    assert any(broken_promise(left, tmp_path / str(number)) is not None for number, left in enumerate(found))
