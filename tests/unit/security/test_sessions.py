"""Login codes and sessions on a real disk."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest
from tests.unit.security.keyring_asking import asked

from rawr.security.credentials import SecretCorruptError, SecretExposedError, SecretsFolder
from rawr.security.keyring import Keyring
from rawr.security.policy import Caller, CallerClass, PrincipalKind
from rawr.security.rates import Rate
from rawr.security.sessions import (
    CODE_LIVES_MS,
    CODES_MAX,
    SESSION_IDLE_MS,
    SESSIONS_MAX,
    LoginCodes,
    SessionNotFoundError,
    Sessions,
)
from rawr.testing.clock import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".rawr" / "secrets" / "login-codes.json"


@pytest.fixture
def codes(path: Path, clock: FakeClock) -> LoginCodes:
    return LoginCodes(path, clock)


def test_a_code_works_once(codes: LoginCodes) -> None:
    code = codes.mint()
    assert codes.redeem(code)
    assert not codes.redeem(code)


def test_a_code_works_in_another_process_of_the_instance(codes: LoginCodes, path: Path, clock: FakeClock) -> None:
    assert LoginCodes(path, clock).redeem(codes.mint())


def test_of_threads_that_redeem_one_code_together_exactly_one_gets_in(codes: LoginCodes) -> None:
    code, answers, start = codes.mint(), list[bool](), threading.Barrier(8)

    def redeem() -> None:
        start.wait(10)
        answers.append(codes.redeem(code))

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(answers) == [False] * 7 + [True]


def test_a_code_has_256_bits_and_is_not_in_the_file(codes: LoginCodes, path: Path) -> None:
    first, second = codes.mint(), codes.mint()
    assert (len(first), first != second) == (43, True)
    assert first not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(("waited_ms", "works"), [(CODE_LIVES_MS - 1, True), (CODE_LIVES_MS, False)])
def test_a_code_lives_five_minutes(codes: LoginCodes, clock: FakeClock, waited_ms: int, works: bool) -> None:
    code = codes.mint()
    clock.advance(waited_ms)
    assert codes.redeem(code) is works


def test_a_clock_that_is_set_back_ends_codes_instead_of_prolonging_them(codes: LoginCodes, clock: FakeClock) -> None:
    code = codes.mint()
    clock.advance(-1000)
    assert not codes.redeem(code)


def test_the_oldest_code_gives_way_when_there_are_too_many(codes: LoginCodes) -> None:
    minted = [codes.mint() for _ in range(CODES_MAX + 1)]
    assert not codes.redeem(minted[0])
    assert all(codes.redeem(code) for code in minted[1:])


@pytest.mark.parametrize("wrong", ["", "x", "a" * 43, "a" * 100_000, "ü" * 43, "\ud800" * 43])
def test_a_wrong_code_is_refused_and_changes_nothing(codes: LoginCodes, path: Path, wrong: str) -> None:
    assert not codes.redeem(wrong)
    assert not path.parent.exists()
    codes.mint()
    before = path.read_bytes()
    assert not codes.redeem(wrong)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "null", "[]", '{"version": 1, "codes": [{"codeHash": 1}]}'])
def test_a_damaged_file_lets_nobody_in_and_is_kept(codes: LoginCodes, path: Path, content: str) -> None:
    code = codes.mint()
    path.write_text(content)
    with pytest.raises(SecretCorruptError):
        codes.redeem(code)
    with pytest.raises(SecretCorruptError):
        codes.mint()
    assert path.read_text() == content


def test_a_file_that_others_can_write_lets_nobody_in(codes: LoginCodes, path: Path) -> None:
    code = codes.mint()
    path.chmod(0o620)
    with pytest.raises(SecretExposedError):
        codes.redeem(code)


class Held:
    """Sessions on disk, and what the keyring of a running host makes of them."""

    def __init__(self, folder: Path, clock: FakeClock) -> None:
        self.ring = Keyring(SecretsFolder(folder), clock, key_rate=Rate(per_minute=600))

    def open(self) -> str:
        return self.ring.sessions.open().secret

    def holds(self, *secrets: str) -> bool:
        return isinstance(asked(lambda: self.ring.session(secrets)), Caller)


@pytest.fixture
def held(path: Path, clock: FakeClock) -> Held:
    return Held(path.parent, clock)


def test_a_session_is_that_of_a_person_until_it_is_closed(held: Held) -> None:
    first, second = held.open(), held.open()
    assert len(first) == 43
    caller = asked(lambda: held.ring.session([first]))
    assert isinstance(caller, Caller)
    assert (caller.caller_class, caller.principal) == (CallerClass.FIRST_PARTY, PrincipalKind.PERSON)
    held.ring.sessions.close([first, "no session"])
    assert (held.holds(first), held.holds(second), held.holds("planted", second)) == (False, True, True)


@pytest.mark.parametrize(
    ("steps_ms", "holds"),
    [
        ([SESSION_IDLE_MS - 1], True),
        ([SESSION_IDLE_MS], False),
        ([-1], False),
        ([SESSION_IDLE_MS - 1] * 6, True),
        ([SESSION_IDLE_MS - 1] * 5 + [SESSION_IDLE_MS // 2] * 3, False),
    ],
)
def test_a_session_ends_unused_after_two_hours_and_used_after_twelve(
    held: Held, clock: FakeClock, steps_ms: list[int], holds: bool
) -> None:
    secret = held.open()
    answers = []
    for step_ms in steps_ms:
        clock.advance(step_ms)
        answers.append(held.holds(secret))
    assert answers == [True] * (len(steps_ms) - 1) + [holds]


def test_the_oldest_session_ends_when_there_are_too_many(held: Held) -> None:
    secrets = [held.open() for _ in range(SESSIONS_MAX + 1)]
    assert [held.holds(secret) for secret in (secrets[0], secrets[1], secrets[-1])] == [False, True, True]
    assert len(held.ring.sessions.stored()) == SESSIONS_MAX


def test_another_process_ends_one_session_or_all(held: Held, path: Path, clock: FakeClock) -> None:
    first, second, third = held.open(), held.open(), held.open()
    assert held.holds(first)
    cli = Sessions(path.with_name("sessions.json"), clock)
    cli.revoke(cli.stored()[0].session_id)
    assert [held.holds(secret) for secret in (first, second, third)] == [False, True, True]
    assert cli.end_all() == 2
    assert [held.holds(secret) for secret in (first, second, third)] == [False] * 3
    assert cli.end_all() == 0


def test_a_session_that_is_not_there_cannot_be_revoked(path: Path, clock: FakeClock) -> None:
    with pytest.raises(SessionNotFoundError, match="000000000000"):
        Sessions(path.with_name("sessions.json"), clock).revoke("000000000000")


def test_no_secret_of_a_session_is_on_disk_or_in_a_repr(held: Held, path: Path) -> None:
    made = held.ring.sessions.open()
    file = path.with_name("sessions.json")
    assert made.secret not in file.read_text() + repr(made)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("wrong", ["", "a" * 43, "\udcff"])
def test_what_is_no_session_does_not_hold(held: Held, wrong: str) -> None:
    held.open()
    assert not held.holds(wrong)


def test_a_session_file_that_cannot_be_trusted_lets_nobody_in(held: Held, path: Path) -> None:
    secret = held.open()
    file = path.with_name("sessions.json")
    file.chmod(0o644)
    with pytest.raises(SecretExposedError):
        held.holds(secret)
    file.chmod(0o600)
    file.write_text("{")
    with pytest.raises(SecretCorruptError):
        held.holds(secret)
