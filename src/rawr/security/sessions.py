"""How a person enters the console: login codes, which work once, and the sessions that they open.

A code goes from the command line to the server through a private file, so that whoever may read the secrets of
the instance, and nobody else, gets in. Sessions live in the memory of one host and end with it. Of both only
SHA-256 hashes are kept; they have 256 bits of entropy, so a slow hash would add nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import CorruptFileError
from rawr.security.credentials import LOCK_TIMEOUT_S, SecretCorruptError, read_private
from rawr.storage.atomic import make_private_dir
from rawr.storage.jsonfile import read_json, write_json
from rawr.storage.lock import FileLock
from rawr.wire import Wire

CODE_LIVES_MS: Final = 5 * 60 * 1000
CODES_MAX: Final = 20
SESSION_LIVES_MS: Final = 12 * 60 * 60 * 1000
SESSIONS_MAX: Final = 100

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{43}\Z")


class _Code(Wire, frozen=True, kw_only=True):
    code_hash: str
    expires_at_ms: int

    def is_live(self, now_ms: int) -> bool:
        # A clock that was set back must not make a code live longer than it was promised to.
        return 0 < self.expires_at_ms - now_ms <= CODE_LIVES_MS


class _CodeFile(Wire, frozen=True, kw_only=True):
    version: int
    codes: tuple[_Code, ...]


class LoginCodes:
    """The login codes of an instance. Blocking; safe between processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def mint(self) -> str:
        """A code that works once, within five minutes. It is stored when this returns; the oldest gives way to it.

        Raises:
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError
        """
        code = secrets.token_urlsafe(32)
        make_private_dir(self._path.parent)
        with self._locked():
            now_ms = self._clock.now_ms()
            fresh = _Code(code_hash=_hash(code), expires_at_ms=now_ms + CODE_LIVES_MS)
            self._write((*self._live(now_ms), fresh)[-CODES_MAX:])
        return code

    def redeem(self, code: str) -> bool:
        """Whether `code` was live. It is used up, durably, when this returns True. Raises as `mint` does."""
        # Whoever guesses costs one read of a small file: only a code that is there takes the lock and writes.
        if _SECRET.match(code) is None or _matching(self._live(self._clock.now_ms()), code) is None:
            return False
        with self._locked():
            live = self._live(self._clock.now_ms())
            found = _matching(live, code)
            if found is not None:
                self._write(tuple(other for other in live if other is not found))
        return found is not None

    def _live(self, now_ms: int) -> tuple[_Code, ...]:
        return tuple(code for code in self._stored() if code.is_live(now_ms))

    def _stored(self) -> tuple[_Code, ...]:
        if read_private(self._path) is None:
            return ()
        try:
            return msgspec.convert(read_json(self._path), _CodeFile).codes
        except (CorruptFileError, msgspec.ValidationError) as error:
            raise SecretCorruptError(
                f"{self._path} is damaged: {error}",
                details={"path": str(self._path)},
                fix=f"remove {self._path}: it holds nothing but login codes of the last five minutes",
            ) from error

    def _write(self, codes: tuple[_Code, ...]) -> None:
        write_json(self._path, _CodeFile(version=1, codes=codes), mode=0o600)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return FileLock(self._path.with_suffix(".lock")).acquire(LOCK_TIMEOUT_S)


class Sessions:
    """The open sessions of one host. They are nowhere else, so a restart ends them all."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._opened_at_ms: dict[str, int] = {}
        """By the hash of the secret, oldest first."""

    def open(self) -> str:
        """The secret of a new session. The oldest session ends when there are too many."""
        secret = secrets.token_urlsafe(32)
        self._opened_at_ms[_hash(secret)] = self._clock.now_ms()
        while len(self._opened_at_ms) > SESSIONS_MAX:
            del self._opened_at_ms[next(iter(self._opened_at_ms))]
        return secret

    def holds(self, secret: str) -> bool:
        """Whether `secret` is that of an open session, which may be twelve hours old."""
        # Looking up a hash tells by its timing nothing that leads to a secret.
        opened_at_ms = self._opened_at_ms.get(_hash(secret))
        if opened_at_ms is None:
            return False
        # A clock that was set back makes the age unknown, and the session end.
        return 0 <= self._clock.now_ms() - opened_at_ms < SESSION_LIVES_MS

    def close(self, secret: str) -> None:
        """End the session, if it is one."""
        self._opened_at_ms.pop(_hash(secret), None)


def _matching(codes: Sequence[_Code], code: str) -> _Code | None:
    """The one that `code` is. All are compared, in constant time."""
    given = _hash(code)
    found: _Code | None = None
    for stored in codes:
        if hmac.compare_digest(stored.code_hash.encode(), given.encode()):
            found = stored
    return found


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
