"""Finding the repository, and saying clearly when there is none."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rawr.sdk import DeskFailed

if TYPE_CHECKING:
    from tests.plugins.briefing.conftest import Desks, Repo


def test_a_folder_inside_a_repository_means_the_whole_repository(desks: Desks, repo: Repo) -> None:
    repo.commit({"deep/down/file.py": "x = 1\n"}, subject="First")
    found = desks.run("scope", {"path": str(repo.root / "deep" / "down")})
    assert found["repository"]["root"] == str(repo.root.resolve())
    assert found["repository"]["branch"] == "main"
    assert found["repository"]["commits"] == 1
    assert found["repository"]["head"]["subject"] == "First"
    assert found["repository"]["head"]["author"] == "Ada"


def test_without_a_path_the_repository_is_the_one_of_the_instance(
    desks: Desks, make_repo: Callable[[str], Repo]
) -> None:
    repo = make_repo("instance")
    repo.commit({})
    assert desks.run("scope", {})["repository"]["root"] == str(desks.instance_root)


def test_a_relative_path_starts_at_the_instance(desks: Desks, make_repo: Callable[[str], Repo]) -> None:
    make_repo("other").commit({"a": "a"})
    assert desks.run("scope", {"path": "../other"})["repository"]["name"] == "other"


def test_a_repository_without_commits_has_no_head(desks: Desks, repo: Repo) -> None:
    found = desks.run("scope", {"path": str(repo.root)})["repository"]
    assert found["head"] is None
    assert found["commits"] == 0
    assert found["branch"] == "main"


def test_a_detached_head_has_no_branch(desks: Desks, repo: Repo) -> None:
    repo.commit({"a": "a"})
    repo.git("checkout", "--quiet", "--detach")
    assert desks.run("scope", {"path": str(repo.root)})["repository"]["branch"] is None


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("plain", "is not in a git repository: give the folder of one as path"),
        ("missing", "does not exist: give the folder of a git repository as input path"),
        ("file.txt", "is not a folder: give the folder of a git repository as input path"),
        ("bare.git", "has no work tree: give a checkout of the repository"),
        ("repo/.git", "has no work tree: give a checkout of the repository"),
    ],
)
def test_what_is_no_repository_is_refused_with_the_way_out(
    desks: Desks, repo: Repo, tmp_path: Path, path: str, why: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "file.txt").write_text("no folder")
    repo.git("init", "--quiet", "--bare", str(tmp_path / "bare.git"))
    with pytest.raises(DeskFailed) as raised:
        desks.run("scope", {"path": str(tmp_path / path)})
    assert raised.value.message == f"{tmp_path / path} {why}"


@pytest.mark.parametrize("path", ["~no-such-user-of-this-machine", "a\x00b", "loop", "x" * 5000])
def test_a_path_that_cannot_be_one_is_refused_with_the_way_out(desks: Desks, path: str) -> None:
    (desks.instance_root / "loop").symlink_to("loop")
    with pytest.raises(DeskFailed, match=r"[Gg]ive the folder of a git repository as input path"):
        desks.run("scope", {"path": path})


def test_a_repository_cannot_have_another_folder_briefed_on(desks: Desks, repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "private.py").write_text("secret = 1\n")
    repo.commit({"a": "a"})
    repo.git("config", "core.worktree", str(tmp_path))
    with pytest.raises(DeskFailed, match="whose work tree is configured to be elsewhere"):
        desks.run("scope", {"path": str(repo.root)})


def test_a_linked_worktree_is_briefed_on(desks: Desks, repo: Repo, tmp_path: Path) -> None:
    repo.commit({"a.py": "x\n"})
    repo.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    found = desks.run("scope", {"path": str(tmp_path / "side")})["repository"]
    assert (found["root"], found["branch"]) == (str(tmp_path / "side"), "side")


def test_a_broken_repository_fails_with_what_git_says(desks: Desks, repo: Repo) -> None:
    repo.commit({"a": "a"})
    commit = repo.git("rev-parse", "HEAD")
    (repo.root / ".git" / "objects" / commit[:2] / commit[2:]).unlink()
    with pytest.raises(DeskFailed, match="git log failed with status 128: fatal: "):
        desks.run("scope", {"path": str(repo.root)})


def test_git_variables_of_a_surrounding_hook_do_not_redirect_the_briefing(
    desks: Desks, make_repo: Callable[[str], Repo], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, other = make_repo("asked"), make_repo("other")
    asked.commit({"asked.py": "x = 1\n"})
    other.commit({"other.py": "x = 1\n"})
    monkeypatch.setenv("GIT_DIR", str(other.root / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.root))
    text = desks.briefing(asked.root)
    assert "asked.py" in text
    assert "other.py" not in text


def test_no_program_that_the_repository_names_is_started(
    desks: Desks, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap, sprung = tmp_path / "trap.sh", tmp_path / "sprung"
    trap.write_text(f"#!/bin/sh\ntouch {sprung}\n")
    trap.chmod(0o755)
    repo.commit({"a.py": "x = 1\n", ".gitattributes": "* diff=trap filter=trap\n"})
    for key in (
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "core.editor",
        "diff.external",
        "diff.trap.textconv",
        "diff.trap.command",
        "filter.trap.clean",
        "filter.trap.smudge",
        "gpg.program",
        "pager.log",
        "alias.log",
    ):
        repo.git("config", key, f"!{trap}" if key.startswith("alias") else str(trap))
    repo.git("config", "log.showSignature", "true")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "reference-transaction"):
        (hooks / hook).symlink_to(trap)
    repo.git("config", "core.hooksPath", str(hooks))
    sprung.unlink(missing_ok=True)  # what the setting up itself may have started
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", str(trap))
    assert "a.py" in desks.briefing(repo.root)
    assert not sprung.exists()
    repo.git("status")
    assert sprung.exists(), "the trap would have shown"


def test_a_missing_git_is_said_so(desks: Desks, repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeskFailed, match="git is not installed"):
        desks.run("scope", {"path": str(repo.root)})


def test_a_git_that_hangs_is_ended_with_all_that_it_started(
    desks: Desks, repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, pid_file = tmp_path / "bin", tmp_path / "pid"
    programs.mkdir()
    fake = programs / "git"
    fake.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {pid_file}\nwait\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    git_of_plugin = __import__("sys").modules[desks.plugin.handlers["repo.scope"].__module__].git
    with pytest.raises(DeskFailed, match=r"git log was not done within 0\.2 s"):
        git_of_plugin(repo.root, "log", timeout_s=0.2)
    child = int(pid_file.read_text())
    deadline = time.monotonic() + 60  # it was killed; dying takes a moment on a busy machine
    while not has_ended(child):
        assert time.monotonic() < deadline, f"{child} lives"
        time.sleep(0.01)


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
