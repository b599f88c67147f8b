"""The journal: every revision once, newest first, whatever happened to the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.errors import StorageError
from rawr.state import journal as module
from rawr.state.changes import Change
from rawr.state.journal import KEPT_MIN, Entry, Journal, sha_of


def entry(rev: int, text: str = "", *, prev: str | None = None) -> Entry:
    text = text or f"state {rev}"
    ops = (Change(op="enable", id="web"),)
    return Entry(
        rev=rev, at="2026-01-01T00:00:00.000Z", pid=1, ops=ops, prev=prev, sha=sha_of(text.encode()), text=text
    )


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state.journal")


def revisions(journal: Journal) -> list[int]:
    return [found.rev for found in journal.entries()]


def test_a_journal_that_is_not_there_has_no_entries(journal: Journal) -> None:
    assert revisions(journal) == []
    assert journal.size() == 0


def test_entries_come_newest_first_as_they_were_written(journal: Journal) -> None:
    written = [entry(1), entry(2, "ü\n\u2028"), entry(3, "x" * 50_000)]
    assert journal.append(written[:2]) == 0
    journal.append(written[2:])
    assert list(journal.entries()) == written[::-1]


def test_what_was_appended_can_be_taken_back(journal: Journal) -> None:
    journal.append([entry(1)])
    before = journal.path.read_bytes()
    journal.take_back(journal.append([entry(2), entry(3)]))
    assert journal.path.read_bytes() == before


def test_a_journal_that_others_write_too_is_read_as_it_is(journal: Journal) -> None:
    journal.append([entry(1)])
    Journal(journal.path).append([entry(2)])
    assert revisions(journal) == [2, 1]
    journal.append([entry(3)])
    assert revisions(journal) == revisions(Journal(journal.path)) == [3, 2, 1]
    Journal(journal.path).take_back(0)
    assert revisions(journal) == []


def test_a_line_of_the_same_revision_or_a_later_one_is_superseded(journal: Journal) -> None:
    journal.append([entry(1), entry(2, "old"), entry(3, "old"), entry(2, "new")])
    assert [(found.rev, found.text) for found in journal.entries()] == [(2, "new"), (1, "state 1")]


@given(garbage=st.binary(max_size=300), cut=st.integers(0, 200))
def test_a_torn_line_and_garbage_cost_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, garbage: bytes, cut: int
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "state.journal")
    journal.append([entry(1), entry(2)])
    whole = journal.path.read_bytes()
    journal.append([entry(3)])
    torn = journal.path.read_bytes()
    journal.path.write_bytes(torn[: max(len(whole), len(torn) - 1 - cut)] + garbage)
    journal.append([entry(3, "again")])
    assert [found.text for found in journal.entries()] == ["again", "state 2", "state 1"]


def test_a_line_whose_text_was_changed_is_not_believed(journal: Journal) -> None:
    journal.append([entry(1), entry(2)])
    journal.path.write_bytes(journal.path.read_bytes().replace(b"state 2", b"state 9"))
    journal = Journal(journal.path)
    assert revisions(journal) == [1]
    assert journal.damaged_lines() == 1


def test_a_long_journal_forgets_the_oldest_and_keeps_the_newest(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SIZE_MAX", 20_000)
    journal.append([entry(rev, "x" * 100) for rev in range(1, 50)])
    assert not journal.compact()
    journal.append([entry(rev, "x" * 100) for rev in range(50, 101)])
    assert journal.compact()
    kept = revisions(journal)
    assert kept == list(range(100, 100 - len(kept), -1))
    assert KEPT_MIN < len(kept) < 100
    assert journal.size() <= 10_000


def test_compaction_keeps_a_few_revisions_however_large(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SIZE_MAX", 1000)
    journal.append([entry(rev, "x" * 900) for rev in range(1, 21)])
    assert journal.compact()
    assert revisions(journal) == list(range(20, 20 - KEPT_MIN, -1))


def test_what_cannot_be_read_or_written_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(StorageError, match="is a directory"):
        journal.append([entry(1)])
    with pytest.raises(StorageError):
        list(journal.entries())
