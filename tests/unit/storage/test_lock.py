"""Kernel locks between threads and processes."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rawr.errors import StorageError
from rawr.storage.lock import FileLock, LocksUnsupportedError, LockTimeoutError, free, is_held, pids_holding

HOLDER = """
import sys
from pathlib import Path
from rawr.storage.lock import FileLock
with FileLock(Path(sys.argv[1])).acquire(5):
    print("held", flush=True)
    sys.stdin.read()
"""

COUNTER = """
import sys
from pathlib import Path
from rawr.storage.lock import FileLock
lock, counter = FileLock(Path(sys.argv[1])), Path(sys.argv[2])
for _ in range(50):
    with lock.acquire(30):
        counter.write_text(str(int(counter.read_text()) + 1))
"""


def holder(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_that_another_process_holds_times_out_and_names_its_path(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = holder(path)
    try:
        with (
            pytest.raises(LockTimeoutError, match=r"lock busy for \d+ ms: .*x\.lock") as caught,
            FileLock(path).acquire(0.05),
        ):
            pass
        assert caught.value.code == "LOCK_TIMEOUT"
        assert is_held(path)
        assert FileLock(path).try_hold() is None
    finally:
        process.communicate(timeout=10)
    assert not is_held(path)


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    process = holder(path)
    process.kill()
    process.communicate(timeout=10)
    with FileLock(path).acquire(0):
        assert is_held(path)


def test_threads_of_one_process_exclude_each_other(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    inside: list[str] = []

    def work() -> None:
        for _ in range(20):
            with lock.acquire(30):
                inside.append("in")
                inside.append("out")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert inside == ["in", "out"] * 80


def test_processes_exclude_each_other(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    command = [sys.executable, "-c", COUNTER, str(tmp_path / "x.lock"), str(counter)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert counter.read_text() == "200"


def test_a_lock_is_released_when_its_block_fails(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    with pytest.raises(ZeroDivisionError), lock.acquire(0):
        raise ZeroDivisionError
    assert not lock.is_held()


def test_a_held_descriptor_holds_the_lock_until_it_is_freed(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "x.lock")
    descriptor = lock.try_hold()
    assert descriptor is not None
    assert lock.is_held()
    with lock.try_acquire() as is_free:
        assert not is_free
    free(descriptor)
    with lock.try_acquire() as is_free:
        assert is_free
        assert lock.is_held()
    assert not lock.is_held()


def test_asking_does_not_make_the_file_and_locking_does(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x.lock"
    assert not is_held(path)
    assert not path.parent.exists()
    with FileLock(path).acquire(0):
        pass
    assert path.exists()


def test_a_child_that_was_forked_while_the_lock_was_held_does_not_keep_it(tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom rawr.storage.lock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]))\n"
        "reading, writing = os.pipe()\n"
        "with lock.acquire(0):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        os.close(writing)\n"
        "        os.read(reading, 1)\n"  # lives until the parent has looked
        "        os._exit(0)\n"
        "print(lock.is_held())\n"
        "os.close(writing)\nos.waitpid(child, 0)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "x.lock")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_a_directory_in_place_of_the_lock_file_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open the lock"), FileLock(tmp_path).acquire(0):
        pass


def test_a_forked_child_that_outlives_a_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\nfrom pathlib import Path\nfrom rawr.storage.lock import FileLock\n"
        "with FileLock(Path(sys.argv[1])).acquire(0):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        print(os.getpid(), flush=True)\n"  # by now its copies are closed
        "    time.sleep(60)\n"
    )
    path = tmp_path / "x.lock"
    holding = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert holding.stdout is not None
    child = int(holding.stdout.readline())
    try:
        holding.kill()
        holding.wait(30)
        os.kill(child, 0)
        assert not is_held(path)
    finally:
        os.kill(child, signal.SIGKILL)
        holding.stdout.close()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(LocksUnsupportedError, match=r"the file system of .*x\.lock has no locks") as caught:
        FileLock(tmp_path / "x.lock").try_hold()
    assert caught.value.code == "STORAGE_NO_LOCKS"


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system does not tell")
def test_the_process_that_holds_a_lock_can_be_found(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    assert pids_holding(path) is None
    with FileLock(path).acquire(0):
        assert pids_holding(path) == frozenset({os.getpid()})
    assert pids_holding(path) == frozenset()
