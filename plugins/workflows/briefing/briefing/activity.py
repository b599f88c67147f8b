"""What happened lately: who committed, and which files changed most often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from rawr.sdk import DeskContext, JsonValue, desk_handler

from .git import git
from .text import shown

AUTHORS_SHOWN: Final = 20
FILES_SHOWN: Final = 20
RECENT_SHOWN: Final = 10

# Each commit starts with an empty field, which no file name can be; NUL is in neither names nor messages.
_FORM: Final = "--format=%x00%H%x00%cs%x00%aN%x00%aE%x00%s"

Key = TypeVar("Key", bytes, tuple[bytes, bytes])


class Commit(NamedTuple):
    commit: bytes
    day: bytes
    author: bytes
    email: bytes
    subject: bytes
    files: list[bytes]


@desk_handler("repo.activity")
def activity(found: JsonValue, ctx: DeskContext) -> JsonValue:  # noqa: ARG001 - every handler has a context
    """Commits of the period, by author and by file. Merges count as commits; the files they join do not count."""
    repository, most = found["repository"], found["limits"]["commits"]
    if repository["head"] is None:
        return _summary([], [])
    log = git(
        Path(repository["root"]),
        "log",
        "-z",
        "--name-only",
        "--no-renames",
        "--no-ext-diff",
        "--no-textconv",
        "--no-show-signature",
        f"--since={found['since']}",
        f"--max-count={most + 1}",
        _FORM,
        repository["head"]["commit"],
        "--",
    )
    commits = list(_commits(log.data))
    left_out = []
    if log.cut:
        commits = commits[:-1]  # the last one may be torn
        left_out.append(f"git printed more about commits than is read here; the newest {len(commits)} were counted")
    if len(commits) > most:
        commits = commits[:most]
        left_out.append(f"more than {most} commits in the period; only the newest {most} were counted")
    if repository["shallow"]:
        left_out.append("the clone is shallow: older commits are not here")
    return _summary(commits, left_out)


def _summary(commits: list[Commit], left_out: list[str]) -> JsonValue:
    authors = Counter((commit.author, commit.email) for commit in commits)
    files = Counter(path for commit in commits for path in commit.files)
    return {
        "commits": len(commits),
        "activeDays": len({commit.day for commit in commits}),
        "authorCount": len(authors),
        "authors": [
            {"name": shown(name, most=100), "commits": count} for (name, _), count in _by_count(authors)[:AUTHORS_SHOWN]
        ],
        "fileCount": len(files),
        "hotFiles": [{"path": shown(path), "commits": count} for path, count in _by_count(files)[:FILES_SHOWN]],
        "recent": [
            {
                "commit": commit.commit.decode(),
                "day": commit.day.decode(),
                "author": shown(commit.author, most=100),
                "subject": shown(commit.subject, most=200),
            }
            for commit in commits[:RECENT_SHOWN]
        ],
        "leftOut": left_out,
    }


def _commits(log: bytes) -> Iterator[Commit]:
    fields = iter(log.split(b"\0"))
    field = next(fields, None)
    while field is not None:
        commit, day, author, email, subject = (next(fields, b"") for _ in range(5))
        files: list[bytes] = []
        while field := next(fields, None):
            files.append(field if files else field.removeprefix(b"\n"))
        if commit:
            yield Commit(commit, day, author, email, subject, files)


def _by_count(counts: Counter[Key]) -> list[tuple[Key, int]]:
    """Most frequent first, equals by name, so that the same repository gives the same briefing."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
