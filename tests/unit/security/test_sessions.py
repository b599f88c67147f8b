"""Login codes on a real disk, and sessions in memory."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from rawr.security.credentials import SecretCorruptError, SecretExposedError
from rawr.security.sessions import CODE_LIVES_MS, CODES_MAX, SESSION_LIVES_MS, SESSIONS_MAX, LoginCodes, Sessions
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


@pytest.fixture
def sessions(clock: FakeClock) -> Sessions:
    return Sessions(clock)


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


def test_a_session_holds_until_it_is_closed(sessions: Sessions) -> None:
    first, second = sessions.open(), sessions.open()
    assert len(first) == 43
    assert sessions.holds(first)
    sessions.close(first)
    assert (sessions.holds(first), sessions.holds(second)) == (False, True)
    sessions.close("no session")


@pytest.mark.parametrize(("waited_ms", "holds"), [(SESSION_LIVES_MS - 1, True), (SESSION_LIVES_MS, False), (-1, False)])
def test_a_session_lives_twelve_hours(sessions: Sessions, clock: FakeClock, waited_ms: int, holds: bool) -> None:
    secret = sessions.open()
    clock.advance(waited_ms)
    assert sessions.holds(secret) is holds


def test_the_oldest_session_ends_when_there_are_too_many(sessions: Sessions) -> None:
    secrets = [sessions.open() for _ in range(SESSIONS_MAX + 1)]
    assert [sessions.holds(secret) for secret in secrets] == [False] + [True] * SESSIONS_MAX


def test_sessions_of_one_host_are_unknown_to_another(sessions: Sessions, clock: FakeClock) -> None:
    assert not Sessions(clock).holds(sessions.open())


@pytest.mark.parametrize("wrong", ["", "a" * 43, "\udcff"])
def test_what_is_no_session_does_not_hold(sessions: Sessions, wrong: str) -> None:
    assert not sessions.holds(wrong)
