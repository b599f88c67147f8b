"""What waiting processes ask of whoever holds the lock: enable or disable a plugin. Linux only.

A process that finds the lock busy appends its request to one file; the order in that file is the order of the
commits. The holder answers all of them with one commit, whose journal line names their keys, and then writes a mark
that the others look at. So the cost of forcing a commit to disk is shared by all who wait.

Two bytes per request, locked and never written (locks may lie anywhere in a file), keep it exact:

- *presence*, held by the requester from before its request can be seen until it has its answer. The kernel frees it
  when the requester dies, so nothing is done for the dead, nor for anybody after a power cut.
- *claim*, taken by the holder just before it replaces the state, and by a requester that wants to leave. A
  requester that got its claim leaves, and its request is never carried out; one that did not is being answered.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import StorageError
from rawr.state.changes import Pending, QueuePosition, Request
from rawr.storage import lock
from rawr.storage.atomic import create_exclusive, write_durable
from rawr.storage.faults import in_preparation, storage_fault

IS_AVAILABLE: Final = sys.platform == "linux" and sys.maxsize > 2**32
SIZE_MAX: Final = 1 << 20
"""A longer file is begun anew as soon as nobody waits; until then nobody may add to it."""
_KEY_BITS: Final = 60
_FIRST_LINE_MAX: Final = 256
_FLOCK: Final = struct.Struct("@hhqqi4x")  # struct flock of 64-bit Linux: type, whence, start, length, pid


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """The first line: which file this is."""

    queue: str


class Posted:
    """A request of this process. Close it when it is answered."""

    def __init__(self, request: Request, descriptor: int, path: Path) -> None:
        self.request = request
        self._descriptor = descriptor
        self._path = path

    def claim(self) -> bool:
        """Whether nobody will carry the request out from now on. If not, somebody is just doing it."""
        with _faults_of(self._path):
            return _try_lock(self._descriptor, _claim(self.request.key))

    def close(self) -> None:
        lock.close(self._descriptor)
        self._descriptor = -1


class RequestQueue:
    """The file of requests. Any number of processes post; only who holds the kernel lock takes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def post(self, op: str, plugin_id: str) -> Posted | None:
        """Ask for a change; None when that is not possible now, and one has to wait for the lock itself."""
        if not IS_AVAILABLE:
            return None
        try:
            create_if_missing(self._path)
            descriptor = lock.closed_in_children(os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
        except (OSError, StorageError):
            return None  # the lock is the other way, and it reports what is wrong with the folder
        try:
            posted = self._posted(descriptor, Request(key=secrets.randbits(_KEY_BITS), op=op, id=plugin_id))
        except OSError:
            posted = None
        if posted is None:
            lock.close(descriptor)
        return posted

    def _posted(self, descriptor: int, request: Request) -> Posted | None:
        # Shared: whoever begins the file anew needs it alone.
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        there = os.fstat(descriptor)
        if not os.path.samestat(os.stat(self._path), there) or there.st_size > SIZE_MAX:
            return None
        if not _try_lock(descriptor, _presence(request.key)):
            return None
        line = b"\n" + msgspec.json.encode(request) + b"\n"  # apart from a torn line before it
        if os.write(descriptor, line) != len(line):
            return None
        return Posted(request, descriptor, self._path)

    @contextlib.contextmanager
    def taking(self, answered: QueuePosition | None) -> Iterator[Taking]:
        """For a holder: the requests behind `answered`, and the claims on them until the end of the block."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC) if IS_AVAILABLE else -1
        except FileNotFoundError:
            descriptor = -1
        except OSError as error:
            raise storage_fault(self._path, "open", error) from error
        try:
            with _faults_of(self._path):
                taking = Taking(descriptor, self._path, answered)
            yield taking
        finally:
            if descriptor >= 0:
                os.close(descriptor)


class Taking:
    """One holder's look at the requests."""

    def __init__(self, descriptor: int, path: Path, answered: QueuePosition | None) -> None:
        self._descriptor = descriptor
        self._path = path
        self.upto = answered
        """How far the file has been answered once all that is pending is."""
        self.pending: tuple[Pending, ...] = () if descriptor < 0 else self._look(answered)
        """In the order of the file."""

    def claim(self, requests: Iterable[Request]) -> frozenset[int]:
        """Claim `requests`; the keys of those whose requesters have left."""
        with _faults_of(self._path):
            return frozenset(
                request.key
                for request in requests
                if not (_try_lock(self._descriptor, _claim(request.key)) and self._waits(request))
            )

    def begin_anew_if_long(self) -> None:
        """Replace a long file by an empty one, unless somebody waits."""
        with _faults_of(self._path):
            if self._descriptor >= 0 and os.fstat(self._descriptor).st_size > SIZE_MAX // 2:
                self._begin_anew()

    def _look(self, answered: QueuePosition | None) -> tuple[Pending, ...]:
        unread = self._unread(answered)
        if unread is None:
            self._begin_anew()
            return ()
        queue, offset, data = unread
        pending = []
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            offset += len(line)
            request = _request_in(line)
            if request is not None and self._waits(request):
                pending.append(Pending(request=request, upto=QueuePosition(queue=queue, offset=offset)))
        self.upto = QueuePosition(queue=queue, offset=offset)
        return tuple(pending)

    def _unread(self, answered: QueuePosition | None) -> tuple[str, int, bytes] | None:
        """The name of the file, where the unanswered part begins, and that part; None when the file is damaged."""
        first = os.pread(self._descriptor, _FIRST_LINE_MAX, 0).partition(b"\n")[0]
        try:
            queue = msgspec.json.decode(first, type=Beginning).queue
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        size = os.fstat(self._descriptor).st_size
        start = len(first) + 1
        if answered is not None and answered.queue == queue and start <= answered.offset <= size:
            start = answered.offset
        return queue, start, os.pread(self._descriptor, size - start, start)

    def _begin_anew(self) -> None:
        with contextlib.suppress(BlockingIOError):  # somebody waits; the next holder will try again
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with in_preparation():
                write_durable(self._path, _beginning())

    def _waits(self, request: Request) -> bool:
        return _is_locked(self._descriptor, _presence(request.key))


def create_if_missing(path: Path) -> None:
    if not path.exists():
        create_exclusive(path, _beginning(), mode=0o644)


def is_damaged(path: Path) -> bool:
    """Whether the file is there and does not begin as it must, so that nobody would find a request in it."""
    try:
        with path.open("rb") as file:
            msgspec.json.decode(file.readline(_FIRST_LINE_MAX), type=Beginning)
    except FileNotFoundError:
        return False
    except (msgspec.DecodeError, UnicodeDecodeError):
        return True
    except OSError as error:
        raise storage_fault(path, "read", error) from error
    return False


def _beginning() -> bytes:
    return msgspec.json.encode(Beginning(queue=secrets.token_hex(8))) + b"\n"


def _request_in(line: bytes) -> Request | None:
    try:
        request = msgspec.json.decode(line, type=Request)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return request if request.op in ("enable", "disable") and 0 <= request.key < 1 << _KEY_BITS else None


@contextlib.contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise storage_fault(path, "use", error) from error


def _presence(key: int) -> int:
    return 2 * key


def _claim(key: int) -> int:
    return 2 * key + 1


def _try_lock(descriptor: int, byte: int) -> bool:
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_locked(descriptor: int, byte: int) -> bool:
    """Whether another open file has locked the byte."""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)
