"""The entry desk: which repository, from when, and how much work at most. All other desks go by its answer."""

from __future__ import annotations

import datetime
import os
from pathlib import Path
from typing import Final

from rawr.sdk import DeskContext, DeskFailed, JsonValue, desk_handler

from .git import GitRefusedError, git
from .text import shown

COMMITS_COUNTED_MAX: Final = 100_000

LIMITS: Final[dict[str, int]] = {
    "days": 30,
    "commits": 5_000,
    "files": 20_000,
    "fileBytes": 2 * 1024 * 1024,
    "readBytes": 256 * 1024 * 1024,
    "seconds": 20,
    "manifests": 200,
}
"""What a briefing does at most, unless the run's input says otherwise. What is left out is said in the briefing."""


@desk_handler("repo.scope")
def scope(request: JsonValue, ctx: DeskContext) -> JsonValue:
    """Find the repository around `request["path"]`, by default the instance's own."""
    root = _repository_root(_asked_for(request.get("path", "."), ctx.instance_root))
    limits = {**LIMITS, **request.get("limits", {})}
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    since = now - datetime.timedelta(days=limits["days"])
    return {
        "repository": {"root": str(root), "name": root.name or "/", **_history(root)},
        "generatedAt": _iso(now),
        "since": _iso(since),
        "limits": limits,
    }


def _asked_for(path: str, instance_root: Path) -> Path:
    try:
        return (instance_root / Path(path).expanduser()).resolve()
    except (RuntimeError, ValueError, OSError) as error:  # no such user after ~, a NUL, a loop of links
        why = f"{shown(path.encode('utf-8', 'surrogateescape'))} cannot be resolved: {error}"
        raise DeskFailed(f"{why}. Give the folder of a git repository as input path") from error


def _repository_root(folder: Path) -> Path:
    if not os.path.isdir(folder):
        why = "is not a folder" if os.path.lexists(folder) else "does not exist"
        raise DeskFailed(f"{_told(folder)} {why}: give the folder of a git repository as input path")
    try:
        answer = git(folder, "rev-parse", "--is-inside-work-tree", "--show-toplevel")
    except GitRefusedError as error:
        if "not a git repository" in error.message:
            raise DeskFailed(f"{_told(folder)} is not in a git repository: give the folder of one as path") from error
        # A bare repository and the inside of .git have no top level.
        if "must be run in a work tree" in error.message:
            raise DeskFailed(f"{_told(folder)} has no work tree: give a checkout of the repository") from error
        raise
    _, _, place = answer.data.removesuffix(b"\n").partition(b"\n")
    try:
        root = Path(place.decode())
    except UnicodeDecodeError as error:
        raise DeskFailed(f"the path of the repository is not UTF-8: {shown(place)}") from error
    if not os.path.lexists(root / ".git"):  # core.worktree can name any folder, and would have us list it
        raise DeskFailed(f"{_told(folder)} is a repository whose work tree is configured to be elsewhere: {root}")
    return root


def _history(root: Path) -> dict[str, JsonValue]:
    """Branch, newest commit and number of commits. A repository without commits has none of the last two."""
    branch = _answer(root, "symbolic-ref", "-q", "--short", "HEAD")
    shallow = _answer(root, "rev-parse", "--is-shallow-repository") == b"true"
    known = {"branch": None if branch is None else shown(branch), "shallow": shallow}
    if _answer(root, "rev-parse", "-q", "--verify", "HEAD") is None:
        return {**known, "head": None, "commits": 0, "commitsExact": True}
    form = "--format=%H%x00%ct%x00%aN%x00%s"
    commit, at, author, subject = git(root, "log", "-1", "--no-show-signature", form, "HEAD", "--").data.split(b"\0", 3)
    counted = int(git(root, "rev-list", "--count", f"--max-count={COMMITS_COUNTED_MAX}", "HEAD", "--").data)
    head = {
        "commit": commit.decode(),
        "at": _iso(datetime.datetime.fromtimestamp(int(at), datetime.UTC)),
        "author": shown(author, most=100),
        "subject": shown(subject.removesuffix(b"\n"), most=200),
    }
    return {**known, "head": head, "commits": counted, "commitsExact": counted < COMMITS_COUNTED_MAX}


def _answer(root: Path, *arguments: str) -> bytes | None:
    """What git says on one line, None when it says no."""
    try:
        return git(root, *arguments).data.removesuffix(b"\n")
    except GitRefusedError:
        return None


def _iso(moment: datetime.datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _told(folder: Path) -> str:
    return shown(str(folder).encode("utf-8", "surrogateescape"))
