"""A change of the state that is cut short at any system call: by a death, or by what the disk refuses."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from tests.faults.calls import counted
from tests.faults.crew import Crew
from tests.faults.original import Original

from rawr.errors import RawrError, StorageError
from rawr.state import RepoState, RepoStateMutationOptions, RepoStateStore
from rawr.state.history import past_of
from rawr.storage.faults import DurabilityUnknownError

QUICK: Final = RepoStateMutationOptions(lock_timeout_ms=10_000)
OLD, NEW = ("old",), ("new", "old")
Change = Callable[[RepoStateStore], object]


def enabling(store: RepoStateStore) -> object:
    return store.enable("new")


def mutating(store: RepoStateStore) -> object:
    return store.mutate(with_new)


def with_new(state: RepoState) -> RepoState:
    plugins = msgspec.structs.replace(state.plugins, enabled=(*state.plugins.enabled, "new"))
    return msgspec.structs.replace(state, plugins=plugins)


CHANGES: Final[dict[str, Change]] = {"enable": enabling, "mutate": mutating}


def prepared(root: Path) -> RepoStateStore:
    root.mkdir(parents=True)
    RepoStateStore(root).enable("old")
    return RepoStateStore(root, options=QUICK)


def calls_of(root: Path, change: Change) -> list[str]:
    """The calls of a change that nothing disturbs."""
    store = prepared(root)
    with counted(lambda number, name, call: call()) as made:
        change(store)
    return made


def die_in_change(_: Connection, root: Path, change: str, at: int) -> None:
    """Die before call number `at`, or after the change if it makes fewer."""

    def deadly(number: int, _: str, call: Callable[[], Any]) -> Any:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call()

    store = RepoStateStore(root, options=QUICK)
    with counted(deadly):
        CHANGES[change](store)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_writer_that_is_killed_at_any_call_leaves_the_old_state_or_the_new_one_and_no_outage(
    tmp_path: Path, change: str
) -> None:
    calls = [*calls_of(tmp_path / "rehearsal", CHANGES[change]), "the end"]
    seen = set()
    with Crew() as crew:
        for at, name in enumerate(calls):
            root = tmp_path / str(at)
            prepared(root)
            assert crew.start(die_in_change, root, change, at).ended() == -signal.SIGKILL
            seen.add(check_survival(root, f"before call {at}, {name}"))
    assert seen == {OLD, NEW}


def test_the_first_writer_of_all_that_is_killed_at_any_call_is_no_outage_either(tmp_path: Path) -> None:
    root = tmp_path / "rehearsal"
    root.mkdir()
    with counted(lambda number, name, call: call()) as calls:
        enabling(RepoStateStore(root))
    seen = set()
    with Crew() as crew:
        for at, name in enumerate([*calls, "the end"]):
            root = tmp_path / str(at)
            root.mkdir()
            assert crew.start(die_in_change, root, "enable", at).ended() == -signal.SIGKILL
            store = RepoStateStore(root, options=QUICK)
            there = tuple(store.get().plugins.enabled)
            assert store.enable("next").plugins.enabled == (*there, "next"), f"before call {at}, {name}"
            assert leftovers(store) == []
            seen.add(there)
    assert seen == {(), ("new",)}


def check_survival(root: Path, where: str) -> tuple[str, ...]:
    """What holds after any death; gives what was there."""
    store = RepoStateStore(root, options=QUICK)
    snapshot = store.snapshot()
    there = tuple(snapshot.state.plugins.enabled)
    assert there in (OLD, NEW), where
    assert snapshot.revision == len(there), where
    assert store.mutate(lambda state: state).revision == snapshot.revision + 1, where
    store.enable("next")
    Original(root).enable("of the original")
    assert store.enable("last").plugins.enabled == (*sorted({*there, "next", "of the original", "last"}),), where
    revisions = [revision.revision for revision in past_of(store.files).revisions]
    assert revisions == list(range(len(there) + 4, 0, -1)), where
    assert leftovers(store) == [], where
    return there


def leftovers(store: RepoStateStore) -> list[str]:
    return [path.name for path in store.files.folder.iterdir() if path.suffix in (".tmp", ".lock")]


@pytest.mark.skipif(shutil.which("strace") is None, reason="no strace")
@pytest.mark.parametrize("call", ["write", "pwrite64", "fsync", "rename", "link", "unlink", "flock", "fsetxattr"])
def test_the_same_by_the_kernels_own_count_of_calls(tmp_path: Path, call: str) -> None:
    """The wrapper sees what Python calls; strace sees what is called."""
    program = "import sys\nfrom rawr.state import enable_plugin\nenable_plugin(sys.argv[1], 'new')\n"
    store = prepared(tmp_path / "hq")
    deaths = 0
    for number in range(1, 20):
        inject = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}"]
        command = ["strace", "-qq", "-o", "/dev/null", *inject, sys.executable, "-c", program, str(store.root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        if "ptrace" in done.stderr or "PTRACE" in done.stderr:
            pytest.skip("tracing is not allowed here")
        if done.returncode == 0:
            break
        assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), done.stderr
        deaths += 1
        assert tuple(store.get().plugins.enabled) in (OLD, NEW)
        store.disable("new")
        assert tuple(store.get().plugins.enabled) == OLD
        assert leftovers(store) == []
    assert tuple(store.get().plugins.enabled) == NEW
    assert deaths > 0


REFUSALS: Final[dict[str, tuple[int, ...]]] = {
    "open": (errno.EMFILE, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ESTALE),
    "read": (errno.EIO, errno.ESTALE),
    "write": (errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT),
    "pread": (errno.EIO,),
    "pwrite": (errno.EIO, errno.ENOSPC),
    "fsync": (errno.EIO, errno.ENOSPC),
    "replace": (errno.EIO, errno.ENOSPC, errno.EROFS, errno.EACCES),
    "unlink": (errno.EACCES, errno.EROFS),
    "link": (errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EMLINK),
    "fchmod": (errno.EPERM,),
    "listdir": (errno.EIO, errno.EACCES),
    "flock": (errno.ENOLCK, errno.ENOSYS),
    "setxattr": (errno.EOPNOTSUPP, errno.ENOSPC),
}
TELLS_NOBODY: Final = {"unlink", "setxattr", "pwrite"}
"""A refusal of these does not make the change fail: there is another way, or it comes after it."""


def cases() -> list[tuple[str, int]]:
    return [(name, number) for name, numbers in REFUSALS.items() for number in numbers]


@pytest.mark.parametrize("change", sorted(CHANGES))
@pytest.mark.parametrize(("refused", "number"), cases(), ids=lambda case: errno.errorcode.get(case, str(case)))
def test_what_the_disk_refuses_at_any_call_is_a_typed_error_and_changes_nothing(
    tmp_path: Path, change: str, refused: str, number: int
) -> None:
    calls = calls_of(tmp_path / "rehearsal", CHANGES[change])
    places = [at for at, name in enumerate(calls) if name == refused]
    assert places, f"a change makes no call of {refused}"
    renamed = calls.index("replace")
    for at in places:
        root = tmp_path / str(at)
        store = prepared(root)
        before = store.path.read_bytes()
        open_before = open_descriptors()

        def refusing(this: int, name: str, call: Callable[[], Any], at: int = at) -> Any:
            if this == at:
                raise OSError(number, os.strerror(number))
            return call()

        error = None
        with counted(refusing):
            try:
                CHANGES[change](store)
            except RawrError as raised:
                error = raised
        where = f"{refused} (call {at}) refused with {errno.errorcode[number]}"
        assert open_descriptors() == open_before, where
        if isinstance(error, DurabilityUnknownError):
            assert refused in ("fsync", "open"), where
            assert at > renamed, where
            assert tuple(store.get().plugins.enabled) == NEW, where
        elif error is None:
            assert refused in TELLS_NOBODY or at > renamed or is_only_looked_at(calls, at), where
            assert tuple(store.get().plugins.enabled) == NEW, where
        else:
            assert isinstance(error, StorageError), where
            assert str(root) in error.message, where
            assert store.path.read_bytes() == before, where
        store.enable("next")
        assert "next" in store.get().plugins.enabled, where
        assert leftovers(store) == [], where


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EACCES], ids=lambda number: errno.errorcode[number])
def test_what_the_disk_refuses_to_who_restores_a_corrupt_file_changes_nothing_and_is_said_so(
    tmp_path: Path, number: int
) -> None:
    store = with_corrupt_file(tmp_path / "rehearsal")
    with counted(lambda number, name, call: call()) as calls:
        enabling(store)
    replaced = calls.index("replace")
    assert calls.count("fsync") > 2, "the bytes that are put away are forced to disk, too"
    for at, name in enumerate(calls):
        if name == "close":
            continue
        store = with_corrupt_file(tmp_path / str(at))

        def refusing(this: int, _: str, call: Callable[[], Any], at: int = at) -> Any:
            if this == at:
                raise OSError(number, os.strerror(number))
            return call()

        error = None
        with counted(refusing):
            try:
                enabling(store)
            except StorageError as raised:
                error = raised
        where = f"{name} (call {at}) refused with {errno.errorcode[number]}"
        if error is None or isinstance(error, DurabilityUnknownError):
            assert error is None or at > replaced, where
            assert tuple(store.get().plugins.enabled) == NEW, where
        else:
            assert store.path.read_bytes() == b"{", where
            assert "new" not in str(past_of(store.files).revisions), where
        assert "next" in store.enable("next").plugins.enabled, where
        assert [path.read_bytes() for path in store.files.folder.glob("state.json.corrupt-*")] == [b"{"], where


def with_corrupt_file(root: Path) -> RepoStateStore:
    store = prepared(root)
    store.path.write_bytes(b"{")
    return RepoStateStore(root, options=QUICK, notify=lambda _: None)


def is_only_looked_at(calls: list[str], at: int) -> bool:
    """Before the lock is held, a file of others that cannot be opened only means to do without them."""
    return calls[at] in ("open", "pread") and "flock" not in calls[:at]


def open_descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()


def test_short_writes_are_finished(tmp_path: Path) -> None:
    store = prepared(tmp_path / "hq")
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, bytes(data)[: max(1, len(data) // 3)])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", short)
        store.enable("new")
    assert tuple(RepoStateStore(store.root).get().plugins.enabled) == NEW
    assert store.snapshot().revision == 2


def test_a_full_disk_loses_nothing_and_is_over_when_there_is_space(tmp_path: Path) -> None:
    """On a small file system of its own, in a private mount namespace."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    code = (
        "import sys\nfrom pathlib import Path\nfrom rawr.state import RepoStateStore\n"
        "from rawr.storage.faults import StorageFullError\n"
        "root = Path(sys.argv[1])\nstore = RepoStateStore(root)\nacknowledged = []\n"
        "try:\n"
        "    for number in range(5000):\n"
        "        store.enable(f'plugin-{number}-' + 'x' * 180)\n"
        "        acknowledged.append(number)\n"
        "except StorageFullError as error:\n"
        "    print(error.code)\n"
        "print(len(store.get().plugins.enabled) == len(acknowledged) > 0)\n"
        "print([p.name for p in store.files.folder.iterdir() if p.suffix in ('.tmp', '.lock')])\n"
        "(root / 'ballast').unlink()\n"
        "print('next' in store.enable('next').plugins.enabled)\n"
    )
    script = (
        'mount -t tmpfs -o size=600k tmpfs "$1" || exit 77\n'
        'head -c 200000 /dev/zero > "$1/ballast" && exec "$2" -c "$3" "$1"'
    )
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(tmp_path), sys.executable, code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system may be mounted here")
    assert (done.stderr, done.stdout) == ("", "STORAGE_FULL\nTrue\n[]\nTrue\n")
