"""Keys and API keys of an instance, on a real disk."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from pathlib import Path

import pytest
from tests.unit.security.keyring_asking import asked

from rawr.errors import BadInputError, RawrError
from rawr.security.credentials import (
    SecretCorruptError,
    SecretExposedError,
    SecretsFolder,
    TokenNotFoundError,
    TokenStore,
    given_key,
    same_secret,
)
from rawr.security.keyring import Keyring
from rawr.security.policy import Caller, CallerClass, InvalidScopeError, PrincipalKind, Unproven
from rawr.security.rates import Rate
from rawr.testing.clock import FakeClock

HOUR_MS = 3_600_000


class Verifier:
    """The keyring of a host, asked without an event loop of its own."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self._ring = Keyring(SecretsFolder(folder), clock, key_rate=Rate(per_minute=600))

    def caller(self, secret: str) -> Caller | None:
        found = self.found(secret)
        return None if isinstance(found, Unproven) else found

    def found(self, secret: str) -> Caller | Unproven:
        return asked(lambda: self._ring.bearer(given_key(secret)))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".rawr" / "secrets"


@pytest.fixture
def tokens(folder: Path) -> TokenStore:
    return TokenStore(folder / "tokens.json", FakeClock())


def test_a_key_is_made_once_and_stays(folder: Path) -> None:
    key = SecretsFolder(folder).cli_key()
    assert len(key) == 64
    assert SecretsFolder(folder).cli_key() == key
    assert SecretsFolder(folder).engine_key() != key


def test_keys_are_for_their_owner_only(folder: Path) -> None:
    SecretsFolder(folder).cli_key()
    assert mode_of(folder) == 0o700
    assert mode_of(folder / "cli.key") == 0o600


def test_threads_that_come_first_together_get_one_key(folder: Path) -> None:
    keys: list[str] = []
    threads = [threading.Thread(target=lambda: keys.append(SecretsFolder(folder).cli_key())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 8
    assert len(set(keys)) == 1


def _key_in_child(folder: Path, start: object, results: object) -> None:
    start.wait(10)  # type: ignore[attr-defined]  # a context's Event has no public type
    results.put(SecretsFolder(folder).engine_key())  # type: ignore[attr-defined]  # nor has its Queue


def test_processes_that_come_first_together_get_one_key(folder: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    start, results = context.Event(), context.Queue()
    children = [context.Process(target=_key_in_child, args=(folder, start, results)) for _ in range(4)]
    for child in children:
        child.start()
    start.set()
    keys = {results.get(timeout=30) for _ in children}
    for child in children:
        child.join(10)
    assert len(keys) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o666])
def test_a_key_that_others_can_read_is_refused_with_the_command_that_repairs_it(folder: Path, mode: int) -> None:
    SecretsFolder(folder).cli_key()
    (folder / "cli.key").chmod(mode)
    with pytest.raises(SecretExposedError) as refusal:
        SecretsFolder(folder).cli_key()
    assert refusal.value.fix == f"chmod 600 {folder / 'cli.key'}"


@pytest.mark.parametrize("content", [b"", b"short", b"\x00" * 64, b"g" * 64, b"a" * 65])
def test_a_damaged_key_is_an_error_and_is_left_as_it_is(folder: Path, content: bytes) -> None:
    SecretsFolder(folder).cli_key()
    (folder / "cli.key").write_bytes(content)
    with pytest.raises(SecretCorruptError):
        SecretsFolder(folder).cli_key()
    assert (folder / "cli.key").read_bytes() == content


def test_a_new_token_opens_what_it_was_made_for(tokens: TokenStore, folder: Path) -> None:
    made = tokens.create("ci", ["orpc:*", "workflows:briefing", "orpc:*"])
    caller = Verifier(folder, FakeClock()).caller(made.token)
    assert caller is not None
    assert caller.caller_class is CallerClass.EXTERNAL
    assert caller.principal is PrincipalKind.SERVICE
    assert caller.scopes == ("orpc:*", "workflows:briefing")
    assert made.token.startswith(f"rawr_{made.record.token_id}_")
    assert len(made.token) == len("rawr_") + 12 + 1 + 43


def test_the_file_holds_no_secret_and_is_for_its_owner_only(tokens: TokenStore, folder: Path) -> None:
    made = tokens.create("ci", ["orpc:*"])
    secret = made.token[-43:]
    assert mode_of(folder / "tokens.json") == 0o600
    assert mode_of(folder) == 0o700
    for path in folder.iterdir():
        assert secret not in path.read_text()


def test_nothing_else_is_a_token(tokens: TokenStore, folder: Path) -> None:
    made, other = tokens.create("a", ["orpc:*"]), tokens.create("b", ["orpc:*"])
    verifier = Verifier(folder, FakeClock())
    swapped = f"rawr_{made.record.token_id}_{other.token.rpartition('_')[2]}"
    for text in (
        "",
        "x",
        made.token + "x",
        made.token[:-1],
        swapped,
        made.token.upper(),
        made.record.token_hash,
        "é\udcff",
    ):
        assert verifier.caller(text) is None


def test_a_revoked_token_stops_working_without_a_restart(tokens: TokenStore, folder: Path) -> None:
    kept, gone = tokens.create("kept", ["orpc:*"]), tokens.create("gone", ["orpc:*"])
    verifier = Verifier(folder, FakeClock())
    assert verifier.caller(gone.token) is not None
    assert tokens.revoke(gone.record.token_id) == gone.record
    assert verifier.caller(gone.token) is None
    assert verifier.caller(kept.token) is not None
    assert [record.name for record in tokens.records()] == ["kept"]


def test_a_new_token_works_at_once_in_a_running_verifier(tokens: TokenStore, folder: Path) -> None:
    verifier = Verifier(folder, FakeClock())
    assert verifier.caller("rawr_") is None
    assert verifier.caller(tokens.create("late", ["orpc:*"]).token) is not None
    (folder / "tokens.json").unlink()
    assert tokens.records() == ()


def test_a_token_ends_at_its_time(tokens: TokenStore, folder: Path) -> None:
    clock = FakeClock()
    made = tokens.create("short", ["orpc:*"], expires_at_ms=clock.now_ms() + 1000)
    verifier = Verifier(folder, clock)
    assert verifier.caller(made.token) is not None
    clock.advance(1000)
    assert verifier.caller(made.token) is None


def test_an_unknown_token_cannot_be_revoked(tokens: TokenStore) -> None:
    with pytest.raises(TokenNotFoundError, match="000000000000"):
        tokens.revoke("000000000000")


@pytest.mark.parametrize(
    ("name", "scopes", "error"),
    [("", ["orpc:*"], BadInputError), ("x", [], BadInputError), ("x", ["all"], InvalidScopeError)],
)
def test_a_token_needs_a_name_and_real_scopes(
    tokens: TokenStore, name: str, scopes: list[str], error: type[RawrError]
) -> None:
    with pytest.raises(error):
        tokens.create(name, scopes)
    assert tokens.records() == ()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version":1}', b'{"version":1,"tokens":[{}]}', b"\xff"])
def test_a_damaged_token_file_lets_nobody_in_and_is_never_reset(
    tokens: TokenStore, folder: Path, content: bytes
) -> None:
    made = tokens.create("ci", ["orpc:*"])
    verifier = Verifier(folder, FakeClock())
    (folder / "tokens.json").write_bytes(content)
    with pytest.raises(SecretCorruptError):
        verifier.caller(made.token)
    with pytest.raises(SecretCorruptError):
        tokens.create("another", ["orpc:*"])
    assert (folder / "tokens.json").read_bytes() == content


def test_a_token_file_that_others_can_read_lets_nobody_in(tokens: TokenStore, folder: Path) -> None:
    made = tokens.create("ci", ["orpc:*"])
    (folder / "tokens.json").chmod(0o644)
    with pytest.raises(SecretExposedError):
        Verifier(folder, FakeClock()).caller(made.token)


def test_tokens_made_at_the_same_time_are_all_kept(tokens: TokenStore) -> None:
    threads = [threading.Thread(target=tokens.create, args=(f"t{index}", ["orpc:*"])) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert {record.name for record in tokens.records()} == {f"t{index}" for index in range(8)}


def test_secrets_are_compared_whole() -> None:
    assert same_secret("abc", "abc")
    assert not same_secret("abcd", "abc")
    assert not same_secret("", "abc")
    assert not same_secret("é\udcff", "abc")


# Rotation


def test_the_secret_before_works_through_the_overlap_and_the_new_one_at_once(folder: Path) -> None:
    clock = FakeClock()
    tokens, verifier = TokenStore(folder / "tokens.json", clock), Verifier(folder, clock)
    made = tokens.create("ci", ["orpc:*"], rate_per_minute=90)
    assert verifier.caller(made.token) is not None
    fresh = tokens.rotate(made.record.token_id, overlap_ms=HOUR_MS)
    assert fresh.token.startswith(f"rawr_{made.record.token_id}_")
    assert verifier.caller(fresh.token) == verifier.caller(made.token)
    clock.advance(HOUR_MS - 1)
    assert verifier.caller(made.token) is not None
    clock.advance(1)
    assert verifier.found(made.token) == Unproven(
        reason="rotated, and the overlap is over", token_id=made.record.token_id
    )
    assert verifier.caller(fresh.token) is not None


def test_without_an_overlap_the_secret_before_ends_at_once(tokens: TokenStore, folder: Path) -> None:
    made = tokens.create("ci", ["orpc:*"])
    fresh = tokens.rotate(made.record.token_id, overlap_ms=0)
    verifier = Verifier(folder, FakeClock())
    assert verifier.caller(made.token) is None
    assert verifier.caller(fresh.token) is not None


def test_of_a_key_that_is_rotated_twice_the_first_secret_is_gone(tokens: TokenStore, folder: Path) -> None:
    first = tokens.create("ci", ["orpc:*"])
    second = tokens.rotate(first.record.token_id, overlap_ms=HOUR_MS)
    third = tokens.rotate(first.record.token_id, overlap_ms=HOUR_MS)
    verifier = Verifier(folder, FakeClock())
    assert [verifier.caller(made.token) is not None for made in (first, second, third)] == [False, True, True]


def test_an_expired_key_is_not_rotated_without_a_new_end(folder: Path) -> None:
    clock = FakeClock()
    tokens, verifier = TokenStore(folder / "tokens.json", clock), Verifier(folder, clock)
    made = tokens.create("ci", ["orpc:*"], expires_at_ms=clock.now_ms() + HOUR_MS)
    clock.advance(HOUR_MS)
    with pytest.raises(BadInputError, match="has expired"):
        tokens.rotate(made.record.token_id, overlap_ms=HOUR_MS)
    fresh = tokens.rotate(made.record.token_id, overlap_ms=0, expires_at_ms=clock.now_ms() + HOUR_MS)
    assert verifier.caller(fresh.token) is not None
    assert verifier.caller(made.token) is None


def test_an_unknown_key_is_not_rotated(tokens: TokenStore) -> None:
    with pytest.raises(TokenNotFoundError):
        tokens.rotate("000000000000", overlap_ms=0)


def test_the_log_is_told_why_and_which_key(folder: Path) -> None:
    clock = FakeClock()
    tokens, verifier = TokenStore(folder / "tokens.json", clock), Verifier(folder, clock)
    gone, short = tokens.create("gone", ["orpc:*"]), tokens.create("short", ["orpc:*"], expires_at_ms=clock.now_ms())
    tokens.revoke(gone.record.token_id)
    forged = f"rawr_{short.record.token_id}_{'A' * 43}"
    reasons = [verifier.found(text) for text in (gone.token, short.token, forged, "x")]
    assert [(found.reason, found.token_id) for found in reasons if isinstance(found, Unproven)] == [
        ("no such key, or it was revoked", gone.record.token_id),
        ("expired", short.record.token_id),
        ("another secret than that of the key", short.record.token_id),
        ("not a key of this HQ", None),
    ]


def test_a_new_key_of_the_cli_ends_the_one_before_in_a_running_verifier(folder: Path) -> None:
    secrets, verifier = SecretsFolder(folder), Verifier(folder, FakeClock())
    before = secrets.cli_key()
    assert verifier.caller(before) is not None
    secrets.renew_cli_key()
    after = secrets.cli_key()
    assert after != before
    assert (verifier.caller(before), verifier.caller(after) is not None) == (None, True)
    assert mode_of(folder / "cli.key") == 0o600


def test_a_key_that_cannot_be_trusted_is_not_renewed_behind_anybodys_back(folder: Path) -> None:
    before = SecretsFolder(folder).cli_key()
    (folder / "cli.key").chmod(0o640)
    with pytest.raises(SecretExposedError):
        SecretsFolder(folder).renew_cli_key()
    assert (folder / "cli.key").read_text().strip() == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_key_of_another_user_is_refused(folder: Path) -> None:
    SecretsFolder(folder).cli_key()
    os.chown(folder / "cli.key", 65534, -1)
    with pytest.raises(SecretExposedError, match="belongs to user 65534"):
        SecretsFolder(folder).cli_key()


# Classes


def test_a_service_key_is_a_trusted_service_with_scopes_of_rpc(tokens: TokenStore, folder: Path) -> None:
    made = tokens.create(
        "worker", ["rpc:coordination"], caller_class=CallerClass.TRUSTED_SERVICE, principal=PrincipalKind.AGENT
    )
    caller = Verifier(folder, FakeClock()).caller(made.token)
    assert caller is not None
    assert (caller.caller_class, caller.principal) == (CallerClass.TRUSTED_SERVICE, PrincipalKind.AGENT)
    assert caller.scopes == ("rpc:coordination",)


@pytest.mark.parametrize(
    ("caller_class", "scope"),
    [
        (CallerClass.EXTERNAL, "rpc:*"),
        (CallerClass.TRUSTED_SERVICE, "orpc:*"),
        (CallerClass.INTERNAL, "workflows:coordination"),
    ],
)
def test_a_scope_of_a_family_that_the_class_does_not_open_is_refused(
    tokens: TokenStore, caller_class: CallerClass, scope: str
) -> None:
    with pytest.raises(InvalidScopeError, match="does not open"):
        tokens.create("x", [scope], caller_class=caller_class)
    assert tokens.records() == ()


@pytest.mark.parametrize("caller_class", ["first-party", "cli", "runtime-ingress", "unlabeled"])
def test_no_key_is_made_for_a_class_that_is_proven_otherwise(tokens: TokenStore, caller_class: str) -> None:
    with pytest.raises(BadInputError, match="no keys for the class"):
        tokens.create("x", ["orpc:*"], caller_class=CallerClass(caller_class))


def test_a_secret_is_in_no_repr(tokens: TokenStore) -> None:
    made = tokens.create("ci", ["orpc:*"])
    fresh = tokens.rotate(made.record.token_id, overlap_ms=HOUR_MS)
    for secret in (made.token, fresh.token):
        assert secret[-43:] not in repr((made, fresh, fresh.record))
