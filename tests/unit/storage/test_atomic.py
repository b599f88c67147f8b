"""Whole files: old or new and nothing else, whatever the disk does."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rawr.errors import StorageError
from rawr.storage.atomic import create_exclusive, leftovers_of, make_dir, make_private_dir, remove, write_durable
from rawr.storage.faults import (
    StorageFullError,
    StorageIsDirectoryError,
    StorageNotDirectoryError,
    StorageReadOnlyError,
    storage_fault,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def in_a_process(code: str, *args: str, cwd: Path | None = None) -> str:
    """What `code` prints in a process of its own."""
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that everybody can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as made:
        Path(made).chmod(0o777)
        yield Path(made)
        Path(made).chmod(0o777)


def without_privileges(folder: Path, statement: str) -> str:
    """The error that `statement` gives in `folder` to somebody who is not root and owns nothing there."""
    code = (
        "import os\nfrom pathlib import Path\nfrom rawr.errors import StorageError\n"
        "from rawr.storage.atomic import write_durable\n"
        "os.geteuid() or os.setuid(65534)\n"
        f"try:\n    {statement}\n"
        "except StorageError as error:\n    print(f'{type(error).__name__}: {error}', end='')\n"
    )
    return in_a_process(code, cwd=folder)


def test_a_written_file_has_exactly_the_bytes_and_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durable(path, b"old", mode=0o600)
    assert (path.read_bytes(), mode_of(path)) == (b"old", 0o600)
    write_durable(path, b"\x00" * 3_000_000, mode=0o664)
    assert (path.stat().st_size, mode_of(path)) == (3_000_000, 0o664)
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write_durable(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "file") == 0o644


def test_a_symbolic_link_stays_a_link_and_its_target_changes(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link, outer = tmp_path / "elsewhere" / "real", tmp_path / "link", tmp_path / "outer"
    target.write_bytes(b"old")
    link.symlink_to(Path("elsewhere") / "real")
    outer.symlink_to("link")
    write_durable(outer, b"new")
    assert (outer.is_symlink(), link.is_symlink(), target.read_bytes()) == (True, True, b"new")


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(StorageError, match="cannot write"):
        write_durable(tmp_path / "a", b"")


def test_a_directory_in_place_of_the_file_is_named_as_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageIsDirectoryError, match="file: is a directory"):
        write_durable(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_a_file_in_place_of_the_directory_is_named_as_the_cause(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageNotDirectoryError, match="not a directory"):
        write_durable(tmp_path / "file" / "inner", b"new")
    with pytest.raises(StorageError, match="cannot create the directory"):
        make_dir(tmp_path / "file" / "inner")


def test_a_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        write_durable(tmp_path / "none" / "file", b"new")


def test_a_full_disk_changes_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    printed = in_a_process(
        "import resource, sys\nfrom pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))\n"
        "from rawr.storage.atomic import write_durable\n"
        "from rawr.storage.faults import StorageFullError\n"
        "path = Path(sys.argv[1])\n"
        "try:\n"
        "    write_durable(path, b'n' * 100_000)\n"
        "except StorageFullError as error:\n"
        "    print(error.code, sorted(entry.name for entry in path.parent.iterdir()), path.read_bytes())\n"
        "write_durable(path, b'next')\n",
        str(path),
    )
    assert printed == "STORAGE_FULL ['file'] b'old'\n"
    assert path.read_bytes() == b"next"


def test_a_directory_without_permission_is_named_as_the_cause(folder: Path) -> None:
    folder.chmod(0o555)
    assert without_privileges(folder, "write_durable(Path('file'), b'new')") == (
        "StorageReadOnlyError: cannot write file: permission denied"
    )
    assert list(folder.iterdir()) == []


def test_a_directory_that_cannot_be_flushed_is_a_distinct_error_after_the_change(folder: Path) -> None:
    (folder / "file").write_bytes(b"old")
    folder.chmod(0o333)  # files may be made, but the directory itself cannot be opened
    answer = without_privileges(folder, "write_durable(Path('file'), b'new')")
    assert answer.startswith("DurabilityUnknownError: file is written and visible")
    assert (folder / "file").read_bytes() == b"new"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a file system that refuses writes to everybody")
def test_a_file_system_that_refuses_is_a_storage_error() -> None:
    with pytest.raises(StorageError, match="cannot write /proc/rawr"):
        write_durable(Path("/proc/rawr"), b"new")


@pytest.mark.parametrize(
    ("number", "kind", "cause"),
    [
        (28, StorageFullError, "disk full"),
        (30, StorageReadOnlyError, "read-only file system"),
        (13, StorageReadOnlyError, "permission denied"),
        (5, StorageError, "Input/output error"),
    ],
)
def test_faults_name_the_path_and_the_cause(number: int, kind: type[StorageError], cause: str) -> None:
    fault = storage_fault(Path("/some/file"), "write", OSError(number, os.strerror(number)))
    assert type(fault) is kind
    assert fault.message == f"cannot write /some/file: {cause}"


def test_readers_see_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    contents = {bytes([byte]) * 200_000 for byte in range(4)}
    write_durable(path, b"\x00" * 200_000)
    torn: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            if path.read_bytes() not in contents:
                torn.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        write_durable(path, bytes([number % 4]) * 200_000)
    done.set()
    reader.join(30)
    assert torn == []


def test_a_killed_writer_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durable(path, b"0" * 50_000)
    code = (
        "import itertools, sys\nfrom pathlib import Path\nfrom rawr.storage.atomic import write_durable\n"
        "for number in itertools.count():\n"
        "    write_durable(Path(sys.argv[1]), str(number % 10).encode() * 50_000)\n"
        "    print(number, flush=True)\n"
    )
    for attempt in range(6):
        writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(1 + 3 * attempt):
            writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read()  # communicate() would skip what readline() has read ahead
        writer.communicate()
        acknowledged = 3 * attempt + rest.count("\n")
        content = path.read_bytes()
        assert len(content) == 50_000
        assert len(set(content)) == 1
        assert int(content[:1]) in {acknowledged % 10, (acknowledged + 1) % 10}


def test_of_many_who_create_a_file_exactly_one_does(tmp_path: Path) -> None:
    path = tmp_path / "file"
    created: list[bool] = []
    barrier = threading.Barrier(8)

    def create(number: int) -> None:
        barrier.wait(10)
        created.append(create_exclusive(path, str(number).encode() * 10_000, mode=0o600))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    content = path.read_bytes()
    assert sorted(created) == [False] * 7 + [True]
    assert (len(content), len(set(content)), mode_of(path)) == (10_000, 1, 0o600)
    assert list(tmp_path.iterdir()) == [path]


def test_exclusive_creation_leaves_alone_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"theirs")
    for name in ("dangling", "folder", "file"):
        assert create_exclusive(tmp_path / name, b"ours") is False
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert not (tmp_path / "nowhere").exists()


def test_a_private_directory_is_closed_to_others_also_when_it_was_open(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_private_dir(path)
    assert mode_of(path) == 0o700
    path.chmod(0o755)
    make_private_dir(path)
    assert mode_of(path) == 0o700
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot create the private directory"):
        make_private_dir(tmp_path / "file")


def test_removing_a_missing_file_is_fine_and_a_directory_is_not(tmp_path: Path) -> None:
    remove(tmp_path / "none")
    with pytest.raises(StorageError, match="cannot remove"):
        remove(tmp_path)


def test_leftovers_of_killed_writers_are_found_and_nothing_else(tmp_path: Path) -> None:
    for name in (".state.json.12.ab.tmp", ".other.json.12.ab.tmp", "state.json.tmp"):
        (tmp_path / name).write_bytes(b"")
    assert leftovers_of(tmp_path / "state.json") == [tmp_path / ".state.json.12.ab.tmp"]


@pytest.mark.parametrize("make", [make_dir, make_private_dir])
def test_each_new_directory_is_forced_to_disk_in_its_parent_and_an_old_one_costs_nothing(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def recorded(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    make(tmp_path / "a" / "b" / "c")
    assert flushed == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    flushed.clear()
    make(tmp_path / "a" / "b" / "c")
    assert flushed == []
