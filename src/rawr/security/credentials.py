"""The secrets of one instance: the CLI's key, the engine's key, and the API keys, of which only hashes are kept.

Everything lies in one private folder. Keys are made once, whoever comes first; a key file that others can
read, or that holds something else than a key, is an error and never replaced behind anybody's back. Who holds a
secret is told elsewhere, in `keyring`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.errors import BadInputError, CorruptFileError, RawrError
from rawr.security.policy import MINTED, CallerClass, PrincipalKind, Scope, parse_scopes
from rawr.security.rates import PerMinute
from rawr.storage.atomic import create_exclusive, make_private_dir, write_durable
from rawr.storage.jsonfile import read_bytes, read_json, write_json
from rawr.storage.lock import FileLock
from rawr.wire import Wire, iso_from_ms

LOCK_TIMEOUT_S: Final = 5.0

_KEY: Final = re.compile(rb"[0-9a-f]{64}\n?\Z")
_TOKEN: Final = re.compile(r"rawr_([0-9a-f]{12})_[A-Za-z0-9_-]{43}\Z")


class SecretExposedError(RawrError):
    """A secret can be read or written by other users of this machine."""

    code = "SECRET_EXPOSED"


class SecretCorruptError(CorruptFileError):
    """A secret file does not hold what it should."""

    code = "SECRET_CORRUPT"


class TokenNotFoundError(RawrError):
    code = "TOKEN_NOT_FOUND"


class RotatedSecret(Wire, frozen=True, kw_only=True):
    """The secret that a key had before, which its holder may use a while longer."""

    token_hash: str
    ends_at_ms: int


class TokenRecord(Wire, frozen=True, kw_only=True):
    """A key as it is stored. The key itself was shown once and is nowhere."""

    token_id: str
    name: str
    caller_class: CallerClass = CallerClass.EXTERNAL
    scopes: tuple[Scope, ...]
    token_hash: str
    """SHA-256 of the whole token, hex. The token has 256 bits of entropy, so a slow hash would add nothing."""
    principal: PrincipalKind = PrincipalKind.SERVICE
    created_at: str
    expires_at_ms: int | None = None
    rate_per_minute: PerMinute | None = None
    """None for what the configuration says."""
    before: RotatedSecret | None = None


class _TokenFile(Wire, frozen=True, kw_only=True):
    version: int
    tokens: tuple[TokenRecord, ...]


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    """The secret. It cannot be shown again."""
    record: TokenRecord

    def __repr__(self) -> str:
        return f"NewToken({self.record.token_id})"  # never into a log


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

    def renew_cli_key(self) -> None:
        """Replace the key of the CLI; running servers refuse the old one from their next call on.

        Raises:
            SecretExposedError, SecretCorruptError, StorageError
        """
        self.cli_key()  # what cannot be trusted is not replaced either
        write_durable(self.cli_key_path(), _fresh_key(), mode=0o600)

    def cli_key_path(self) -> Path:
        return self._folder / "cli.key"

    def tokens_path(self) -> Path:
        return self._folder / "tokens.json"

    def last_used_path(self) -> Path:
        return self._folder / "last-used.json"

    def sessions_path(self) -> Path:
        return self._folder / "sessions.json"

    def login_codes_path(self) -> Path:
        return self._folder / "login-codes.json"

    def _key(self, name: str) -> str:
        path = self._folder / name
        raw = read_private(path)
        if raw is None:
            make_private_dir(self._folder)
            # Of several first users exactly one creates the file; all of them read what that one wrote.
            create_exclusive(path, _fresh_key())
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
        caller_class: CallerClass = CallerClass.EXTERNAL,
        principal: PrincipalKind = PrincipalKind.SERVICE,
        expires_at_ms: int | None = None,
        rate_per_minute: int | None = None,
    ) -> NewToken:
        """Make a key. It is stored durably when this returns; the secret itself is only in the answer.

        Raises:
            InvalidScopeError, BadInputError: the scopes, the name or the class cannot be used.
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError
        """
        if not name.strip() or not scopes:
            raise BadInputError("an API key needs a name and at least one scope", fix="--name NAME --scope 'orpc:*'")
        if caller_class not in MINTED:
            raise BadInputError(
                f"there are no keys for the class {caller_class}", fix=f"use one of {', '.join(MINTED)}"
            )
        token_id = secrets.token_hex(6)
        token = _fresh_token(token_id)
        record = TokenRecord(
            token_id=token_id,
            name=name.strip(),
            caller_class=caller_class,
            scopes=parse_scopes(scopes, caller_class),
            token_hash=hash_of(token),
            principal=principal,
            created_at=iso_from_ms(self._clock.now_ms()),
            expires_at_ms=expires_at_ms,
            rate_per_minute=rate_per_minute,
        )
        self._change(lambda records: (*records, record))
        return NewToken(token=token, record=record)

    def rotate(self, token_id: str, *, overlap_ms: int, expires_at_ms: int | None = None) -> NewToken:
        """Give a key a new secret; the one before works for `overlap_ms` more, and the one before that no longer.

        Name, scopes, class and rate stay. The end stays too, unless `expires_at_ms` is given.

        Raises:
            TokenNotFoundError: there is no such key.
            BadInputError: the key has expired, and no new end is given.
            LockTimeoutError, StorageError, SecretExposedError, SecretCorruptError
        """
        token, now_ms = _fresh_token(token_id), self._clock.now_ms()

        def renewed(record: TokenRecord) -> TokenRecord:
            ends_at_ms = expires_at_ms if expires_at_ms is not None else record.expires_at_ms
            if ends_at_ms is not None and ends_at_ms <= now_ms:
                raise BadInputError(
                    f"the key {token_id} has expired", fix=f"rawr token rotate {token_id} --expires-in-days DAYS"
                )
            before = RotatedSecret(token_hash=record.token_hash, ends_at_ms=now_ms + overlap_ms)
            return msgspec.structs.replace(
                record, token_hash=hash_of(token), expires_at_ms=ends_at_ms, before=before if overlap_ms > 0 else None
            )

        return NewToken(token=token, record=self._changed(token_id, renewed))

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
        return self._changed(token_id, lambda _: None)

    def _changed(self, token_id: str, change: Callable[[TokenRecord], TokenRecord | None]) -> TokenRecord:
        """Put what `change` makes of the record in its place, or nothing; the record that counts afterwards, or did."""
        found: list[TokenRecord] = []

        def one_changed(records: tuple[TokenRecord, ...]) -> tuple[TokenRecord, ...]:
            kept: list[TokenRecord] = []
            for record in records:
                after = change(record) if record.token_id == token_id else record
                kept += [] if after is None else [after]
                found.extend([after or record] if record.token_id == token_id else [])
            if not found:
                raise TokenNotFoundError(f"there is no API key with the id {token_id}", fix="rawr token list")
            return tuple(kept)

        self._change(one_changed)
        return found[0]

    def _change(self, change: Callable[[tuple[TokenRecord, ...]], tuple[TokenRecord, ...]]) -> None:
        make_private_dir(self._path.parent)
        with FileLock(self._path.with_suffix(".lock")).acquire(LOCK_TIMEOUT_S):
            write_json(self._path, _TokenFile(version=1, tokens=change(self.records())), mode=0o600)


class GivenKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as somebody gave it. It can be compared with ours, and the secret is not in it any more."""

    token_id: str | None
    """None when it has not the form of a key that was made."""
    digest: str

    def __repr__(self) -> str:
        return f"GivenKey({self.token_id})"


def given_key(secret: str) -> GivenKey:
    return GivenKey(token_id=token_id_of(secret), digest=hash_of(secret))


def token_id_of(token: str) -> str | None:
    """The id in a text that has the form of a key of ours. It is no secret, and says nothing of the rest."""
    match = _TOKEN.match(token)
    return match[1] if match is not None else None


def hash_of(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def same_secret(given: str, expected: str) -> bool:
    """Whether the two are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())


def _fresh_key() -> bytes:
    return secrets.token_hex(32).encode() + b"\n"


def _fresh_token(token_id: str) -> str:
    return f"rawr_{token_id}_{base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip('=')}"


def read_private(path: Path) -> bytes | None:
    """The bytes of a secret file, None when it is not there.

    Raises:
        SecretExposedError: it is not its owner's alone, or its owner is not who runs this.
        StorageError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            # Of the open file, not of the name: what is checked is what is read.
            status = os.fstat(file.fileno())
            _check_private(path, mode=stat.S_IMODE(status.st_mode), owner=status.st_uid, me=os.geteuid())
            return file.read()
    except FileNotFoundError:
        return None
    except OSError:
        return read_bytes(path)  # says why it cannot be read


def _check_private(path: Path, *, mode: int, owner: int, me: int) -> None:
    if owner != me:
        raise SecretExposedError(
            f"{path} belongs to user {owner}, who can change it at any time",
            details={"path": str(path), "owner": owner},
            fix=f"run rawr as the user who owns {path}, or chown it",
        )
    if mode & 0o077:
        raise SecretExposedError(
            f"{path} can be read or changed by other users of this machine (mode {mode:04o})",
            details={"path": str(path), "mode": f"{mode:04o}"},
            fix=f"chmod 600 {path}",
        )
