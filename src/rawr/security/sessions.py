"""How a person enters the console: login codes, which work once, and the sessions that they open.

Both go between the command line and the server through private files, so that whoever may read the secrets of the
instance, and nobody else, gets in and sees who is in. Sessions are those of the running server: the next one ends
them. Only SHA-256 hashes are kept; the secrets have 256 bits of entropy, so a slow hash would add nothing.
"""

from __future__ import annotations

import contextlib
import hmac
import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import CorruptFileError, RawrError
from rawr.security.credentials import LOCK_TIMEOUT_S, SecretCorruptError, hash_of, read_private
from rawr.storage.atomic import make_private_dir
from rawr.storage.jsonfile import read_json, write_json
from rawr.storage.lock import FileLock
from rawr.wire import Wire

CODE_LIVES_MS: Final = 5 * 60 * 1000
CODES_MAX: Final = 20
SESSION_LIVES_MS: Final = 12 * 60 * 60 * 1000
SESSION_IDLE_MS: Final = 2 * 60 * 60 * 1000
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
            fresh = _Code(code_hash=hash_of(code), expires_at_ms=now_ms + CODE_LIVES_MS)
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


class Session(Wire, frozen=True, kw_only=True):
    """A session as it is stored. Its secret is in one browser and nowhere else."""

    session_id: str
    secret_hash: str
    opened_at_ms: int

    def is_live(self, now_ms: int, *, used_at_ms: int | None = None) -> bool:
        """Whether it is neither too old nor unused for too long. A clock that was set back ends it."""
        idle_ms = now_ms - max(self.opened_at_ms, used_at_ms or 0)
        return self.is_young(now_ms) and 0 <= idle_ms < SESSION_IDLE_MS

    def is_young(self, now_ms: int) -> bool:
        return 0 <= now_ms - self.opened_at_ms < SESSION_LIVES_MS


class SessionNotFoundError(RawrError):
    code = "SESSION_NOT_FOUND"


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    secret: str
    session: Session

    def __repr__(self) -> str:
        return f"NewSession({self.session.session_id})"  # never into a log


class _SessionFile(Wire, frozen=True, kw_only=True):
    version: int
    sessions: tuple[Session, ...]


class Sessions:
    """The sessions of the server of an instance. Blocking; safe between processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def open(self) -> NewSession:
        """A new session, stored when this returns. The oldest ends when there are too many.

        Raises:
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError
        """
        secret, now_ms = secrets.token_urlsafe(32), self._clock.now_ms()
        session = Session(session_id=secrets.token_hex(6), secret_hash=hash_of(secret), opened_at_ms=now_ms)
        self._change(lambda stored: (*(other for other in stored if other.is_young(now_ms)), session)[-SESSIONS_MAX:])
        return NewSession(secret=secret, session=session)

    def stored(self) -> tuple[Session, ...]:
        """All that are stored, oldest first; some may have ended. Raises as `open` does."""
        if read_private(self._path) is None:
            return ()
        try:
            return msgspec.convert(read_json(self._path), _SessionFile).sessions
        except (CorruptFileError, msgspec.ValidationError) as error:
            raise SecretCorruptError(
                f"{self._path} is damaged: {error}",
                details={"path": str(self._path)},
                fix=f"remove {self._path}: everybody signs in again with rawr open",
            ) from error

    def revoke(self, session_id: str) -> None:
        """End the session at once.

        Raises:
            SessionNotFoundError, and what `open` raises.
        """
        if not self._end(lambda session: session.session_id == session_id):
            raise SessionNotFoundError(f"there is no session with the id {session_id}", fix="rawr session list")

    def close(self, secrets_of_them: Sequence[str]) -> None:
        """End the sessions with these secrets, as far as there are any. Raises as `open` does."""
        hashes = {hash_of(secret) for secret in secrets_of_them}
        if any(session.secret_hash in hashes for session in self.stored()):
            self._end(lambda session: session.secret_hash in hashes)

    def end_all(self) -> int:
        """End every session; how many there were. Raises as `open` does."""
        return self._end(lambda _: True) if read_private(self._path) is not None else 0

    def _end(self, picks: Callable[[Session], bool]) -> int:
        counted: list[int] = []

        def without(stored: tuple[Session, ...]) -> tuple[Session, ...]:
            kept = tuple(session for session in stored if not picks(session))
            counted.append(len(stored) - len(kept))
            return kept

        self._change(without)
        return counted[0]

    def _change(self, change: Callable[[tuple[Session, ...]], tuple[Session, ...]]) -> None:
        make_private_dir(self._path.parent)
        with FileLock(self._path.with_suffix(".lock")).acquire(LOCK_TIMEOUT_S):
            write_json(self._path, _SessionFile(version=1, sessions=change(self.stored())), mode=0o600)


def _matching(codes: Sequence[_Code], code: str) -> _Code | None:
    """The one that `code` is. All are compared, in constant time."""
    given = hash_of(code)
    found: _Code | None = None
    for stored in codes:
        if hmac.compare_digest(stored.code_hash.encode(), given.encode()):
            found = stored
    return found
