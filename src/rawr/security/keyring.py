"""Who holds a secret: the CLI's key, a key that was made, a session. By what the files say at that moment.

A call costs one `stat` per file it needs; a file is read again when it was replaced. Whoever is told no is not told
why: unknown, revoked, rotated and expired are one answer, and the reason is for our log.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from rawr.clock import Clock
from rawr.security.credentials import GivenKey, SecretsFolder, TokenRecord, TokenStore, hash_of
from rawr.security.last_used import LastUsed
from rawr.security.policy import Caller, CallerClass, Family, PrincipalKind, Unproven, scope_name
from rawr.security.rates import Rate
from rawr.security.sessions import Session, Sessions
from rawr.storage.looks import FileLooks, Looks

T = TypeVar("T")

_ALL_OF_RPC: Final = (scope_name(Family.RPC, "*"),)
_CLI: Final = Caller(caller_class=CallerClass.CLI, principal=PrincipalKind.PERSON, scopes=_ALL_OF_RPC)
_NOBODY: Final = (None, None)
_NO_HASH: Final = "0" * 64


class Unread(Protocol):
    """What must be read before a question can be answered."""

    async def read(self) -> None:
        """Read it.

        Raises:
            SecretExposedError, SecretCorruptError, StorageError: nobody is let in by a file that cannot be trusted.
        """
        ...


class Keyring:
    """The secrets of one instance, as a host that is open asks for them.

    A question whose file was replaced has no answer before that is read again.
    """

    def __init__(self, folder: SecretsFolder, clock: Clock, *, key_rate: Rate) -> None:
        """`key_rate` is for keys that have none of their own."""
        self._clock = clock
        self._key_rate = key_rate
        store = TokenStore(folder.tokens_path(), clock)
        self.sessions = Sessions(folder.sessions_path(), clock)
        self.last_used = LastUsed(folder.last_used_path(), clock)
        self._cli_key = _Watched(folder.cli_key_path(), lambda: hash_of(folder.cli_key()))
        self._tokens = _Watched(
            folder.tokens_path(), lambda: {each.token_id: (each, self._holder(each)) for each in store.records()}
        )
        self._sessions = _Watched(folder.sessions_path(), lambda: _by_hash(self.sessions.stored()))

    def bearer(self, key: GivenKey) -> Caller | Unproven | Unread:
        """Who holds this key, if it is one. The same object, for as long as nothing about the key is changed."""
        if key.token_id is None:
            held = self._cli_key.kept()
            if held is None:
                return self._cli_key
            return _CLI if hmac.compare_digest(held, key.digest) else Unproven(reason="not a key of this HQ")
        tokens = self._tokens.kept()
        if tokens is None:
            return self._tokens
        record, holder = tokens.get(key.token_id, _NOBODY)
        reason = why_not(record, key.digest, now_ms=self._clock.now_ms())
        if reason is not None or holder is None:
            return Unproven(reason=reason or "no such key", token_id=key.token_id)
        self.last_used.note(key.token_id)
        return holder

    def session(self, secrets: Sequence[str]) -> Caller | Unproven | Unread:
        """Whose session one of these is. There may be several: other servers of this host can add cookies."""
        known, now_ms = self._sessions.kept(), self._clock.now_ms()
        if known is None:
            return self._sessions
        for secret in secrets:
            # Looking up a hash tells by its timing nothing that leads to a secret.
            found = known.get(hash_of(secret))
            if found is None or not found.is_live(now_ms, used_at_ms=self.last_used.noted_ms(found.session_id)):
                continue
            self.last_used.note(found.session_id)
            return Caller(
                caller_class=CallerClass.FIRST_PARTY,
                principal=PrincipalKind.PERSON,
                token_id=found.session_id,
                scopes=_ALL_OF_RPC,
            )
        return Unproven(reason="no live session")

    def _holder(self, record: TokenRecord) -> Caller:
        rate = self._key_rate if record.rate_per_minute is None else Rate(per_minute=record.rate_per_minute)
        return Caller(
            caller_class=record.caller_class,
            principal=record.principal,
            token_id=record.token_id,
            scopes=record.scopes,
            rate=rate,
        )


def why_not(record: TokenRecord | None, given: str, *, now_ms: int) -> str | None:
    """Why the key with the hash `given` is not one of `record`; None when it is. Takes the same time in every case."""
    before = None if record is None else record.before
    is_current = hmac.compare_digest(_NO_HASH if record is None else record.token_hash, given)
    is_former = hmac.compare_digest(_NO_HASH if before is None else before.token_hash, given)
    if record is None:
        return "no such key, or it was revoked"
    if not (is_current or is_former):
        return "another secret than that of the key"
    if record.expires_at_ms is not None and record.expires_at_ms <= now_ms:
        return "expired"
    if is_former and before is not None and before.ends_at_ms <= now_ms:
        return "rotated, and the overlap is over"
    return None


def _by_hash(sessions: Sequence[Session]) -> Mapping[str, Session]:
    return {session.secret_hash: session for session in sessions}


class _Watched(Generic[T]):
    """What `read` makes of a file, made again when the file was replaced."""

    def __init__(self, path: Path, read: Callable[[], T]) -> None:
        self._looks = FileLooks(path)
        self._read = read
        self._seen: Looks | None = None
        self._value: T | None = None

    def kept(self) -> T | None:
        """What was made of it, unless it was replaced since: then it is to be `read`."""
        return self._value if self._value is not None and self._looks.now() == self._seen else None

    async def read(self) -> None:
        # Looked at before it is read: what is replaced in between is read again at the next question.
        seen = self._looks.now()
        self._value = await asyncio.to_thread(self._read)
        self._seen = seen
