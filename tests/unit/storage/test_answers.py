"""Answers that are kept are never older than the last commit, whoever made it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rawr.storage.answers import Answers
from rawr.storage.sqlite import Connection, Database, Migration, one, run

TABLES = (Migration(name="texts", sql="CREATE TABLE texts (key TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT;"),)


class Asked:
    """A question that counts how often it is really asked."""

    def __init__(self) -> None:
        self.times = 0

    def about(self, key: str, connection: Connection) -> bytes | None:
        self.times += 1
        row = one(connection, "SELECT text FROM texts WHERE key = ?", (key,))
        return None if row is None else str(row[0]).encode()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "texts.sqlite", TABLES) as database:
        yield database


def put(database: Database, key: str, text: str) -> None:
    database.write_sync(lambda connection: run(connection, "INSERT OR REPLACE INTO texts VALUES (?, ?)", (key, text)))


def ask(answers: Answers, asked: Asked, key: str) -> bytes | None:
    return asyncio.run(answers.of(key, lambda connection: asked.about(key, connection)))


def test_what_nobody_has_changed_is_not_asked_again(database: Database) -> None:
    answers, asked = Answers(database), Asked()
    put(database, "a", "1")
    assert [ask(answers, asked, "a") for _ in range(3)] == [b"1"] * 3
    assert asked.times == 1


def test_a_commit_of_ours_or_of_others_makes_every_answer_old(database: Database, tmp_path: Path) -> None:
    answers, asked = Answers(database), Asked()
    put(database, "a", "1")
    assert ask(answers, asked, "a") == b"1"
    put(database, "a", "2")
    assert ask(answers, asked, "a") == b"2"
    with Database(tmp_path / "texts.sqlite", TABLES) as other:
        put(other, "a", "3")
        assert ask(answers, asked, "a") == b"3"


def test_what_is_not_there_is_asked_for_each_time(database: Database) -> None:
    answers, asked = Answers(database), Asked()
    assert [ask(answers, asked, "none"), ask(answers, asked, "none")] == [None, None]
    assert asked.times == 2


def test_no_more_is_kept_than_there_is_room_for(database: Database) -> None:
    answers, asked = Answers(database, most_bytes=10), Asked()
    for key in ("a", "b", "c"):
        put(database, key, key * 6)
    for key in ("a", "b", "c", "a"):
        assert ask(answers, asked, key) == key.encode() * 6
    assert asked.times == 3, "only the first had room"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["put", "put by another", "ask"]), st.sampled_from("ab")), max_size=30))
def test_an_answer_is_always_the_present_one(tmp_path: Path, doings: list[tuple[str, str]]) -> None:
    asked, there = Asked(), dict[str, bytes]()
    with (
        Database(tmp_path / "texts.sqlite", TABLES) as database,
        Database(tmp_path / "texts.sqlite", TABLES) as other,
    ):
        database.write_sync(lambda connection: run(connection, "DELETE FROM texts"))
        answers = Answers(database)
        for number, (doing, key) in enumerate(doings):
            if doing == "ask":
                assert ask(answers, asked, key) == there.get(key)
            else:
                put(database if doing == "put" else other, key, str(number))
                there[key] = str(number).encode()
