"""What the file of the global owner says, in each state that it can be in."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from rawr.instance.doctor import Finding, diagnose
from rawr.instance.layout import InstanceLayout
from rawr.instance.owner import (
    OWNER_FILE_BYTES_MAX,
    GlobalOwnerError,
    OwnerState,
    Seam,
    global_owner_root,
    read_global_owner,
)
from rawr.instance.owner_check import owner_check
from rawr.testing.workspace import make_instance


class Home:
    """A home folder, and two instances elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "home"
        self.file = self.folder / ".rawr" / "global-rawr-owner-path"
        self.file.parent.mkdir(parents=True)
        self.here = make_instance(folder / "here")
        self.there = make_instance(folder / "there")

    def write(self, content: str | bytes) -> None:
        self.file.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.file.chmod(0o644)

    def findings(self) -> dict[str, Finding]:
        """What the doctor of `here` says about the owner, by id."""
        diagnosis = diagnose(InstanceLayout(self.here), checks={"owner": owner_check(self.folder)})
        return {finding.id: finding for finding in diagnosis.findings}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path.resolve())


@pytest.mark.parametrize("written", ["{root}\n", "{root}", "  {root} \r\n\n"])
def test_the_file_names_its_instance_by_path(home: Home, written: str) -> None:
    home.write(written.format(root=home.there))
    owner = read_global_owner(home.folder)
    assert (owner.state, owner.root, owner.given) == (OwnerState.INSTANCE, home.there, str(home.there))
    assert owner.problem is None
    assert global_owner_root(home.folder) == home.there


def test_it_is_read_anew_each_time(home: Home) -> None:
    home.write(str(home.here))
    assert global_owner_root(home.folder) == home.here
    home.write(str(home.there))
    assert global_owner_root(home.folder) == home.there


def test_another_instance_is_information(home: Home) -> None:
    home.write(f"{home.there}\n")
    assert read_global_owner(home.folder).seam(home.here) is Seam.OTHER_INSTANCE
    ((finding_id, finding),) = home.findings().items()
    assert (finding_id, finding.severity) == ("owner.other_instance", "info")
    assert finding.evidence == {
        "path": str(home.file),
        "target": str(home.there),
        "realpath": str(home.there),
        "current": str(home.here),
    }


def test_the_current_instance_is_nothing_to_report(home: Home) -> None:
    home.write(f"{home.here}\n")
    assert read_global_owner(home.folder).seam(home.here) is Seam.CURRENT_INSTANCE
    assert home.findings() == {}


@pytest.mark.parametrize("spelling", ["link", "here/../here", "here/"])
def test_an_alias_of_the_current_instance_is_the_current_instance_and_a_warning(home: Home, spelling: str) -> None:
    (home.here.parent / "link").symlink_to(home.here)
    alias = f"{home.here.parent}/{spelling}"
    home.write(alias)
    owner = read_global_owner(home.folder)
    assert (owner.root, owner.given) == (home.here, alias)
    assert owner.seam(home.here) is Seam.CURRENT_INSTANCE
    assert global_owner_root(home.folder) == home.here
    ((finding_id, finding),) = home.findings().items()
    assert (finding_id, finding.severity) == ("owner.not_realpath", "warning")
    assert finding.fix == f"write {home.here} into {home.file}"


def test_no_file_is_information(home: Home) -> None:
    owner = read_global_owner(home.folder)
    assert (owner.state, owner.seam(home.here)) == (OwnerState.MISSING, Seam.FILE_MISSING)
    assert owner.problem == f"there is no {home.file}"
    assert [(found.id, found.severity) for found in home.findings().values()] == [("owner.file_missing", "info")]


@pytest.mark.parametrize("content", ["", "\n", " \t\r\n"])
def test_an_empty_file_is_not_a_missing_one(home: Home, content: str) -> None:
    home.write(content)
    owner = read_global_owner(home.folder)
    assert (owner.state, owner.seam(home.here), owner.given) == (OwnerState.EMPTY, Seam.FILE_EMPTY, None)
    assert [(found.id, found.severity) for found in home.findings().values()] == [("owner.file_empty", "warning")]


def test_a_target_that_is_gone_is_said_to_be_gone(home: Home) -> None:
    (home.there / "rawr_hq.py").unlink()
    for written in (home.there.parent / "nowhere", home.there / "rawr_hq.py" / "x"):
        home.write(str(written))
        owner = read_global_owner(home.folder)
        assert (owner.state, owner.problem) == (OwnerState.TARGET_GONE, f"{home.file} names {written}, which is gone")
        assert owner.seam(home.here) is Seam.OTHER_INSTANCE
        assert [(found.id, found.severity) for found in home.findings().values()] == [("owner.target_gone", "warning")]


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("{there}/plugins", "is no instance: it has no rawr_hq.py"),
        ("{there}/rawr.toml", "is no folder"),
        ("there", "is no absolute path"),
        ("~/there", "is no absolute path"),
    ],
)
def test_a_target_that_is_no_instance_is_refused_with_the_reason(
    home: Home, written: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home.there.parent)  # a relative path would lead to an instance from here
    given = written.format(there=home.there)
    home.write(given)
    owner = read_global_owner(home.folder)
    assert owner.state is OwnerState.TARGET_NOT_INSTANCE
    assert owner.problem == f"{home.file} names {given}, which {why}"
    assert owner.seam(home.here) is Seam.OTHER_INSTANCE
    assert [(found.id, found.severity) for found in home.findings().values()] == [
        ("owner.target_not_instance", "warning")
    ]


def directory(file: Path) -> None:
    file.mkdir()


def pipe(file: Path) -> None:
    os.mkfifo(file)


def endless(file: Path) -> None:
    file.write_bytes(b"/" * (OWNER_FILE_BYTES_MAX + 1))


def binary(file: Path) -> None:
    file.write_bytes(b"/\0")


def loop(file: Path) -> None:
    file.symlink_to(file.name)


@pytest.mark.parametrize("make", [directory, pipe, endless, binary, loop])
def test_what_cannot_be_read_is_neither_missing_nor_a_hang(home: Home, make: object) -> None:
    assert callable(make)
    make(home.file)
    owner = read_global_owner(home.folder)
    assert (owner.state, owner.seam(home.here)) == (OwnerState.UNREADABLE, Seam.FILE_UNREADABLE)
    assert owner.problem is not None
    assert owner.problem.startswith(f"{home.file} cannot be read: ")
    assert [(found.id, found.severity) for found in home.findings().values()] == [("owner.file_unreadable", "warning")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_this_user_may_not_read_is_not_a_missing_one(home: Home) -> None:
    home.write(str(home.there))
    home.file.chmod(0)
    assert read_global_owner(home.folder).state is OwnerState.UNREADABLE


def test_a_file_in_the_place_of_its_folder_is_not_a_missing_one(home: Home) -> None:
    home.file.parent.rmdir()
    home.file.parent.touch()
    assert read_global_owner(home.folder).state is OwnerState.UNREADABLE


def test_a_home_that_is_no_absolute_path_has_no_owner_file(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.write(str(home.there))
    monkeypatch.chdir(home.folder.parent)
    owner = read_global_owner(Path("home"))
    assert (owner.state, owner.root) == (OwnerState.UNREADABLE, None)


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take only Unicode")
def test_a_path_that_is_no_unicode_is_a_path(home: Home) -> None:
    there = make_instance(Path(os.fsdecode(os.fsencode(home.there) + b"\xff")))
    home.write(os.fsencode(there))
    assert global_owner_root(home.folder) == there


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_that_others_can_write_is_a_warning(home: Home, mode: int) -> None:
    home.write(str(home.here))
    home.file.chmod(mode)
    ((finding_id, finding),) = home.findings().items()
    assert (finding_id, finding.severity) == ("owner.permissions", "warning")
    assert finding.fix == f"chmod go-w {home.file}"


@pytest.mark.parametrize(
    ("written", "state"),
    [
        (None, "file-missing"),
        ("", "file-empty"),
        ("\0", "file-unreadable"),
        ("/nonexistent/hq", "target-gone"),
        ("/", "target-not-instance"),
    ],
)
def test_whoever_asks_for_an_owner_that_is_none_is_told_so(home: Home, written: str | None, state: str) -> None:
    if written is not None:
        home.write(written)
    with pytest.raises(GlobalOwnerError) as raised:
        global_owner_root(home.folder)
    assert raised.value.code == "GLOBAL_OWNER_UNUSABLE"
    assert str(home.file) in raised.value.message
    assert raised.value.details is not None
    assert raised.value.details["state"] == state
    assert raised.value.fix is not None
    assert str(home.file) in raised.value.fix
