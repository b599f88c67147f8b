"""The id of an instance: made once, kept by a move, made anew for a copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rawr.clock import UlidSource
from rawr.errors import CorruptFileError, StorageError
from rawr.instance.identity import Identity, identify, read_identity
from rawr.instance.layout import InstanceLayout
from rawr.storage.jsonfile import read_json
from rawr.testing.clock import FakeClock
from rawr.testing.workspace import make_instance


def identified(root: Path) -> Identity:
    return identify(InstanceLayout(root.resolve()), UlidSource(FakeClock()))


def test_an_instance_gets_an_id_once_and_keeps_it(tmp_path: Path) -> None:
    root = make_instance(tmp_path)
    assert read_identity(InstanceLayout(root)) is None
    first = identified(root)
    assert identified(root) == first
    assert read_json(root / ".rawr" / "instance.json") == {"schema": 1, "id": first.id, "root": str(root)}


def test_two_instances_have_two_ids(tmp_path: Path) -> None:
    assert identified(make_instance(tmp_path / "a")).id != identified(make_instance(tmp_path / "b")).id


def test_24_first_commands_at_once_agree_on_one_id(tmp_path: Path) -> None:
    root = make_instance(tmp_path)
    with ThreadPoolExecutor(24) as pool:
        assert len({identity.id for identity in pool.map(lambda _: identified(root), range(24))}) == 1


def test_first_commands_of_several_processes_agree_on_one_id(tmp_path: Path) -> None:
    root = make_instance(tmp_path)
    program = (
        "import sys; from pathlib import Path; from rawr.clock import SystemClock, UlidSource;"
        "from rawr.instance.identity import identify; from rawr.instance.layout import InstanceLayout;"
        "print(identify(InstanceLayout(Path(sys.argv[1])), UlidSource(SystemClock())).id)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert len({process.communicate(timeout=60)[0] for process in started}) == 1


def test_a_moved_instance_keeps_its_id_and_says_where_it_was(tmp_path: Path) -> None:
    old = make_instance(tmp_path / "old")
    before = identified(old)
    new = tmp_path / "new"
    old.rename(new)
    after = identified(new)
    assert (after.id, after.root, after.moved_from) == (before.id, str(new), str(old))
    assert identified(new) == after


def test_a_moved_instance_whose_old_path_leads_to_the_new_one_is_no_copy(tmp_path: Path) -> None:
    old = make_instance(tmp_path / "old")
    before = identified(old)
    new = tmp_path / "new"
    old.rename(new)
    old.symlink_to(new)
    assert identified(new).id == before.id


def test_a_copied_instance_gets_an_id_of_its_own_and_the_original_keeps_its(tmp_path: Path) -> None:
    original = make_instance(tmp_path / "original")
    before = identified(original)
    shutil.copytree(original, tmp_path / "copy")
    copy = identified(tmp_path / "copy")
    assert copy.id != before.id
    assert copy.copied_from == str(original)
    assert identified(original) == before
    assert identified(tmp_path / "copy") == copy


def test_a_copy_whose_original_was_replaced_by_something_else_is_a_move(tmp_path: Path) -> None:
    old = make_instance(tmp_path / "old")
    before = identified(old)
    old.rename(tmp_path / "new")
    identified(make_instance(tmp_path / "old"))
    assert identified(tmp_path / "new").id == before.id


@pytest.mark.parametrize("obstacle", ["file", "damaged"])
def test_an_old_place_that_cannot_be_the_instance_is_no_obstacle(tmp_path: Path, obstacle: str) -> None:
    old = make_instance(tmp_path / "old")
    before = identified(old)
    old.rename(tmp_path / "new")
    if obstacle == "file":
        (tmp_path / "old").write_text("in the way")
    else:
        (tmp_path / "old" / ".rawr").mkdir(parents=True)
        (tmp_path / "old" / ".rawr" / "instance.json").write_text("{")
    assert identified(tmp_path / "new").id == before.id


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"schema":1}', b'{"schema":2,"id":"x","root":"/"}', b"\xff"]
)
def test_a_damaged_identity_is_an_error_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    root = make_instance(tmp_path)
    path = root / ".rawr" / "instance.json"
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(CorruptFileError) as raised:
        identified(root)
    assert str(path) in raised.value.message
    assert raised.value.fix is not None
    assert path.read_bytes() == content


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_instance_without_an_id_is_a_storage_error(tmp_path: Path) -> None:
    root = make_instance(tmp_path / "closed")
    root.chmod(0o555)
    try:
        with pytest.raises(StorageError):
            identified(root)
    finally:
        root.chmod(0o755)


def test_a_file_where_the_data_folder_belongs_is_a_storage_error(tmp_path: Path) -> None:
    root = make_instance(tmp_path)
    (root / ".rawr").write_text("in the way")
    with pytest.raises(StorageError):
        identified(root)
