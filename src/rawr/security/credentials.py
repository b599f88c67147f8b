"""The secrets of one instance: the CLI's key, the engine's key, and the API keys, of which only hashes are kept.

Everything lies in one private folder. Keys are made once, whoever comes first; a key file that others can
read, or that holds something else than a key, is an error and never replaced behind anybody's back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import BadInputError, CorruptFileError, RawrError
from rawr.security.policy import Caller, CallerClass, PrincipalKind, Scope, parse_scope
from rawr.storage.atomic import create_exclusive, make_private_dir
from rawr.storage.jsonfile import read_bytes, read_json, write_json
from rawr.storage.lock import FileLock
from rawr.wire import Wire, iso_from_ms

LOCK_TIMEOUT_S: Final = 5.0

_KEY: Final = re.compile(rb"[0-9a-f]{64}\n?\Z")
_TOKEN: Final = re.compile(r"rawr_([0-9a-f]{12})_([A-Za-z0-9_-]{43})\Z")


class SecretExposedError(RawrError):
    """A secret can be read or written by other users of this machine."""

    code = "SECRET_EXPOSED"


class SecretCorruptError(CorruptFileError):
    """A secret file does not hold what it should."""

    code = "SECRET_CORRUPT"


class TokenNotFoundError(RawrError):
    code = "TOKEN_NOT_FOUND"


class TokenRecord(Wire, frozen=True, kw_only=True):
    """An API key as it is stored. The key itself was shown once and is nowhere."""

    token_id: str
    name: str
    scopes: tuple[Scope, ...]
    token_hash: str
    """SHA-256 of the whole token, hex. The token has 256 bits of entropy, so a slow hash would add nothing."""
    principal: PrincipalKind = PrincipalKind.SERVICE
    created_at: str
    expires_at_ms: int | None = None


class _TokenFile(Wire, frozen=True, kw_only=True):
    version: int
    tokens: tuple[TokenRecord, ...]


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    """The secret. It cannot be shown again."""
    record: TokenRecord


class SecretsFolder:
    """The keys in `<instance>/.rawr/secrets`. Blocking; safe between processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def cli_key(self) -> str:
        """The key of the CLI, made on first use.

        Raises:
            SecretExposedError, SecretCorruptError, StorageError
        """
        return self._key("cli.key")

    def engine_key(self) -> str:
        """The key that signs calls into `/api/inngest`, made on first use. Raises as `cli_key` does."""
        return self._key("engine.key")

    def tokens_path(self) -> Path:
        return self._folder / "tokens.json"

    def login_codes_path(self) -> Path:
        return self._folder / "login-codes.json"

    def _key(self, name: str) -> str:
        path = self._folder / name
        raw = read_private(path)
        if raw is None:
            make_private_dir(self._folder)
            # Of several first users exactly one creates the file; all of them read what that one wrote.
            create_exclusive(path, secrets.token_hex(32).encode() + b"\n")
            raw = read_private(path)
        if raw is None or _KEY.match(raw) is None:
            raise SecretCorruptError(
                f"{path} does not hold a key",
                details={"path": str(path)},
                fix=f"stop the server, remove {path} and start it again: a new key is made",
            )
        return raw.decode().strip()


class TokenStore:
    """The API keys of an instance. Blocking; several processes may change them at once."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        principal: PrincipalKind = PrincipalKind.SERVICE,
        expires_at_ms: int | None = None,
    ) -> NewToken:
        """Make an API key. It is stored durably when this returns; the secret itself is only in the answer.

        Raises:
            InvalidScopeError, BadInputError: the scopes or the name cannot be used.
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError
        """
        if not name.strip() or not scopes:
            raise BadInputError("an API key needs a name and at least one scope", fix="--name NAME --scope 'orpc:*'")
        token_id = secrets.token_hex(6)
        token = f"rawr_{token_id}_{base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip('=')}"
        record = TokenRecord(
            token_id=token_id,
            name=name.strip(),
            scopes=tuple(dict.fromkeys(parse_scope(scope) for scope in scopes)),
            token_hash=hashlib.sha256(token.encode()).hexdigest(),
            principal=principal,
            created_at=iso_from_ms(self._clock.now_ms()),
            expires_at_ms=expires_at_ms,
        )
        self._change(lambda records: (*records, record))
        return NewToken(token=token, record=record)

    def records(self) -> tuple[TokenRecord, ...]:
        """All API keys, oldest first. Raises SecretExposedError, SecretCorruptError, StorageError."""
        if read_private(self._path) is None:
            return ()
        try:
            return msgspec.convert(read_json(self._path), _TokenFile).tokens
        except (CorruptFileError, msgspec.ValidationError) as error:
            raise SecretCorruptError(
                f"{self._path} is damaged: {error}",
                details={"path": str(self._path)},
                fix=f"restore {self._path} from a backup, or remove it and make the API keys anew",
            ) from error

    def revoke(self, token_id: str) -> TokenRecord:
        """Forget an API key; running servers refuse it from their next call on.

        Raises:
            TokenNotFoundError: there is no such key.
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError
        """
        gone: list[TokenRecord] = []

        def without(records: tuple[TokenRecord, ...]) -> tuple[TokenRecord, ...]:
            gone.extend(record for record in records if record.token_id == token_id)
            if not gone:
                raise TokenNotFoundError(f"there is no API key with the id {token_id}", fix="rawr token list")
            return tuple(record for record in records if record.token_id != token_id)

        self._change(without)
        return gone[0]

    def _change(self, change: Callable[[tuple[TokenRecord, ...]], tuple[TokenRecord, ...]]) -> None:
        make_private_dir(self._path.parent)
        with FileLock(self._path.with_suffix(".lock")).acquire(LOCK_TIMEOUT_S):
            write_json(self._path, _TokenFile(version=1, tokens=change(self.records())), mode=0o600)


class TokenVerifier:
    """Tells valid API keys from others, by what the file says at the moment of the question. Blocking."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._store = TokenStore(path, clock)
        self._seen: tuple[int, int, int, int] | None = None
        self._records: tuple[TokenRecord, ...] = ()

    def caller(self, token: str) -> Caller | None:
        """Who holds `token`, or None. Takes the same time whichever key it is, or none.

        Raises:
            SecretExposedError, SecretCorruptError, StorageError: nobody is let in by a file we cannot trust.
        """
        self._reload_if_changed()
        found = matching_record(self._records, token)
        if found is None or (found.expires_at_ms is not None and found.expires_at_ms <= self._clock.now_ms()):
            return None
        return Caller(
            caller_class=CallerClass.EXTERNAL,
            principal=found.principal,
            token_id=found.token_id,
            scopes=found.scopes,
        )

    def _reload_if_changed(self) -> None:
        # The file is only ever replaced, so a new one has another inode; a change of mode shows in the ctime.
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._seen, self._records = None, ()
            return
        now = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if now != self._seen:
            self._records = self._store.records()
            self._seen = now


def matching_record(records: Sequence[TokenRecord], token: str) -> TokenRecord | None:
    """The record whose hash is that of `token`. Every record is compared, in constant time."""
    given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
    found: TokenRecord | None = None
    for record in records:
        if hmac.compare_digest(record.token_hash, given):
            found = record
    return found if _TOKEN.match(token) is not None else None


def same_secret(given: str, expected: str) -> bool:
    """Whether the two are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def read_private(path: Path) -> bytes | None:
    """The bytes of a secret file, None when it is not there.

    Raises:
        SecretExposedError: users other than its owner may read or write it.
        StorageError: it cannot be read.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    except OSError:
        return read_bytes(path)  # says why it cannot be read
    if stat.S_IMODE(mode) & 0o077:
        raise SecretExposedError(
            f"{path} can be read or changed by other users of this machine (mode {stat.S_IMODE(mode):04o})",
            details={"path": str(path), "mode": f"{stat.S_IMODE(mode):04o}"},
            fix=f"chmod 600 {path}",
        )
    return read_bytes(path)
