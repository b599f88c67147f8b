"""The pure parts: what differs between two contents, which mounts have no locks, whose files are whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from rawr.state.difference import difference
from rawr.state.findings import foreign_owners
from rawr.state.model import Document
from rawr.state.mounts import mount_of, without_locks


def document(*enabled: str, disabled: tuple[str, ...] = (), at: str = "then", **others: object) -> Document:
    plugins = {"enabled": list(enabled), "disabled": list(disabled), "lastUpdatedAt": at}
    return {"version": 1, "plugins": plugins, **others}


def test_a_difference_names_what_each_list_gained_and_lost() -> None:
    found = difference(document("a", "b", disabled=("c",)), document("b", "c", "d"))
    assert (found.enabled.gained, found.enabled.lost) == (("c", "d"), ("a",))
    assert (found.disabled.gained, found.disabled.lost) == ((), ("c",))
    assert found.keys == ()


def test_a_difference_names_the_other_keys_that_came_went_or_changed() -> None:
    before = {**document("a", kept=1, changed={"x": 1}, gone=None)}
    after = {**document("a", kept=1, changed={"x": 2}, new=None)}
    after["plugins"]["theirs"] = True
    assert difference(before, after).keys == ("changed", "gone", "new", "plugins.theirs")


def test_the_time_alone_makes_no_difference() -> None:
    assert not difference(document("a", at="then"), document("a", at="now"))
    assert difference(document("a"), document("b"))


MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:40 / /mnt/nfs rw shared:2 - nfs4 host:/x rw,vers=4.2,local_lock=none
41 22 0:41 / /mnt/nolock rw - nfs host:/y rw,vers=3,nolock,local_lock=all
42 22 0:42 / /mnt/half rw - nfs host:/z rw,vers=3,local_lock=flock
43 22 0:43 / /mnt/posix rw - nfs host:/z rw,vers=3,local_lock=posix
44 22 0:44 / /mnt/win rw - cifs //host/x rw,nobrl
45 22 0:45 / /mnt/win-locks rw - cifs //host/x rw
46 22 0:46 / /mnt/with\\040space rw - 9p shared rw,trans=virtio
47 22 0:47 / /mnt/lustre rw - lustre host:/x rw
48 22 0:48 / /mnt/lustre-locks rw - lustre host:/x rw,flock
49 22 0:49 / /mnt/ssh rw - fuse.sshfs host:/x rw
50 41 0:50 / /mnt/nolock/local rw - tmpfs tmpfs rw
51 22 0:51 / /mnt/covered rw - cifs //host/x rw,nobrl
52 51 0:52 / /mnt/covered rw - ext4 /dev/sdb1 rw
not a line of this file
"""


@pytest.mark.parametrize(
    ("path", "has_locks"),
    [
        ("/home/me/hq", True),
        ("/mnt/nfs/hq", True),
        ("/mnt/nolock/hq", False),
        ("/mnt/nolock", False),
        ("/mnt/nolocks/hq", True),
        ("/mnt/nolock/local/hq", True),
        ("/mnt/half/hq", False),
        ("/mnt/posix/hq", True),
        ("/mnt/win/hq", False),
        ("/mnt/win-locks/hq", True),
        ("/mnt/with space/hq", False),
        ("/mnt/lustre/hq", False),
        ("/mnt/lustre-locks/hq", True),
        ("/mnt/ssh/hq", False),
        ("/mnt/covered/hq", True),
    ],
)
def test_a_mount_without_locks_is_known_by_its_kind_and_options(path: str, has_locks: bool) -> None:
    mount = mount_of(path, MOUNTS)
    assert mount is not None
    assert (without_locks(mount) is None) == has_locks


def test_a_text_without_mounts_says_nothing() -> None:
    assert mount_of("/home/me/hq", "") is None


def test_files_of_another_user_are_found_together_with_the_command_that_gives_them_back() -> None:
    owners = {Path("/hq/.rawr/state/b"): 0, Path("/hq/.rawr/state/a"): 0, Path("/hq/.rawr/state/c"): 1000}
    (finding,) = foreign_owners(owners, 1000)
    assert finding.id == "state.foreign_owner"
    assert finding.fix == "sudo chown 1000 /hq/.rawr/state/a /hq/.rawr/state/b"
    assert list(foreign_owners(owners | dict.fromkeys(owners, 1000), 1000)) == []
