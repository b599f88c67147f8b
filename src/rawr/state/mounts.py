"""Whether the locks of a file system are seen by every machine that mounts it. Pure: judges `/proc/self/mountinfo`.

A lock that only this machine sees lets two machines change one state at once. The kernel grants such a lock as it
grants any other, so a writer cannot notice; what it does notice (no locks at all) is `LocksUnsupportedError`.
"""

from __future__ import annotations

from typing import Final

import msgspec

_NFS: Final = frozenset({"nfs", "nfs4"})
_SMB: Final = frozenset({"cifs", "smb3", "smbfs"})
_ESCAPES: Final = (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\"))


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    point: str
    kind: str
    """As the kernel names the file system: `ext4`, `nfs4`, `fuse.sshfs`."""
    source: str
    options: frozenset[str]


def mount_of(path: str, mountinfo: str) -> Mount | None:
    """The mount that an absolute `path` without links lies on; None when the text does not say."""
    found: Mount | None = None
    for line in mountinfo.splitlines():
        mount = _read(line)
        # Of two mounts on one point the later one covers the earlier.
        if mount is not None and _holds(mount.point, path) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def without_locks(mount: Mount) -> str | None:
    """Why other machines do not see the locks that are taken on this mount; None when nothing speaks for that."""
    options = mount.options
    if mount.kind in _NFS and options & {"nolock", "local_lock=all", "local_lock=flock"}:
        return "it is mounted without locks (nolock or local_lock)"
    if mount.kind in _SMB and "nobrl" in options:
        return "it is mounted without locks (nobrl)"
    if mount.kind == "lustre" and "flock" not in options:
        return "it is mounted without the option flock"
    if mount.kind == "9p":
        return "9p hands locks on to the other side in some versions only"
    if mount.kind == "fuse.sshfs":
        return "sshfs has no locks"
    return None


def _read(line: str) -> Mount | None:
    """`36 35 98:0 /root /point rw,noatime shared:1 - ext3 /dev/root rw,errors=continue`."""
    mine, separator, theirs = line.partition(" - ")
    left, right = mine.split(" "), theirs.split(" ")
    if not separator or len(left) < 6 or len(right) < 3:
        return None
    options = frozenset((*left[5].split(","), *right[2].split(",")))
    return Mount(point=_plain(left[4]), kind=right[0], source=_plain(right[1]), options=options)


def _plain(field: str) -> str:
    for escaped, char in _ESCAPES:
        field = field.replace(escaped, char)
    return field


def _holds(point: str, path: str) -> bool:
    return path == point or path.startswith(point.rstrip("/") + "/")
