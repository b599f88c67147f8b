"""What the three analysis desks find, on repositories tame and wild."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.plugins.briefing.conftest import Desks, Repo


def test_activity_counts_commits_by_author_and_by_file(desks: Desks, repo: Repo) -> None:
    repo.commit({"old.py": "x = 1\n"}, author="Grace", hours_ago=40 * 24)
    repo.commit({"hot.py": "x = 1\n", "cold.py": "y = 1\n"}, author="Ada", subject="Add", hours_ago=49)
    repo.commit({"hot.py": "x = 2\n"}, author="Ada", subject="Change", hours_ago=25)
    repo.commit({"hot.py": "x = 3\n"}, author="Linus", subject="Again", hours_ago=1)
    activity = desks.material(repo.root)["activity"]
    assert activity["commits"] == 3
    assert activity["authors"] == [{"name": "Ada", "commits": 2}, {"name": "Linus", "commits": 1}]
    assert activity["hotFiles"] == [{"path": "hot.py", "commits": 3}, {"path": "cold.py", "commits": 1}]
    assert [commit["subject"] for commit in activity["recent"]] == ["Again", "Change", "Add"]
    assert activity["activeDays"] == 3
    assert activity["leftOut"] == []


def test_merges_and_empty_commits_and_empty_messages_are_commits(desks: Desks, repo: Repo) -> None:
    repo.commit({"a": "a"}, subject="Start")
    repo.git("checkout", "--quiet", "-b", "side")
    repo.commit({"b": "b"}, subject="Side")
    repo.git("checkout", "--quiet", "main")
    repo.commit({}, subject="Nothing changed")
    repo.git("merge", "--quiet", "--no-edit", "side")
    repo.git("commit", "--quiet", "--allow-empty", "--allow-empty-message", "--message", "")
    activity = desks.material(repo.root)["activity"]
    assert activity["commits"] == 5
    assert activity["fileCount"] == 2
    assert activity["recent"][0]["subject"] == ""


def test_of_very_many_commits_the_newest_are_counted_and_it_is_said(desks: Desks, repo: Repo) -> None:
    for number in range(6):
        repo.commit({}, subject=f"Commit {number}", hours_ago=6 - number)
    activity = desks.material(repo.root, commits=4)["activity"]
    assert activity["commits"] == 4
    assert activity["recent"][0]["subject"] == "Commit 5"
    assert activity["leftOut"] == ["more than 4 commits in the period; only the newest 4 were counted"]


def test_a_shallow_clone_says_that_history_is_missing(
    desks: Desks, make_repo: Callable[[str], Repo], tmp_path: Path
) -> None:
    whole = make_repo("whole")
    whole.commit({"a": "1"})
    whole.commit({"a": "2"})
    whole.git("clone", "--quiet", "--depth=1", f"file://{whole.root}", str(tmp_path / "shallow"))
    material = desks.material(tmp_path / "shallow")
    assert material["repository"]["shallow"] is True
    assert material["activity"]["leftOut"] == ["the clone is shallow: older commits are not here"]


def test_the_inventory_counts_lines_by_language_and_leaves_binaries_out(desks: Desks, repo: Repo) -> None:
    repo.commit(
        {
            "a.py": "one\ntwo\n",
            "b.PY": "one\ntwo without a line end",
            "Makefile": "all:\n",
            "uv.lock": "x\n" * 10,
            "picture.png": b"\x89PNG\r\n\x1a\n\0\0\0",
            "empty.py": "",
            "utf16.txt": "Wörter\nauf zwei Zeilen\n".encode("utf-16"),
            "latin1.txt": "Stra\xdfe\n".encode("latin-1"),
        }
    )
    inventory = desks.material(repo.root)["inventory"]
    by_language = {one["language"]: (one["files"], one["lines"]) for one in inventory["languages"]}
    assert by_language == {"Lock files": (1, 10), "Python": (3, 4), "Plain text": (2, 3), "Make": (1, 1)}
    assert inventory["lines"] == 18
    assert inventory["files"] == 8
    assert inventory["binaryFiles"] == 1
    assert inventory["leftOut"] == ["1 binary files have no lines"]


def test_notes_are_found_with_their_places(desks: Desks, repo: Repo) -> None:
    repo.commit(
        {
            "a.py": "# nothing\nx = 1  # TODO: make it two\n\n# FIXME(ada) soon\n",
            "b.c": "/* TODO */\nint TODOLIST;\nchar *mastodon;\n",
            "z.md": "no newline at the end TODO",
        }
    )
    notes = desks.material(repo.root)["inventory"]["notes"]
    assert [(note["path"], note["line"], note["kind"], note["text"]) for note in notes["places"]] == [
        ("a.py", 2, "TODO", "TODO: make it two"),
        ("a.py", 4, "FIXME", "FIXME(ada) soon"),
        ("b.c", 1, "TODO", "TODO */"),
        ("z.md", 1, "TODO", "TODO"),
    ]


def test_many_notes_are_counted_and_the_first_are_listed(desks: Desks, repo: Repo) -> None:
    repo.commit({"a.py": "# TODO: more\n" * 70})
    inventory = desks.material(repo.root)["inventory"]
    assert inventory["notes"]["count"] == 70
    assert len(inventory["notes"]["places"]) == 50
    assert "20 more TODO or FIXME notes are not listed" in inventory["leftOut"]


def test_files_that_are_not_committed_count_and_ignored_ones_do_not(desks: Desks, repo: Repo) -> None:
    repo.commit({".gitignore": "build/\n", "a.py": "x\n"})
    repo.write({"new.py": "x\n", "build/out.py": "x\n" * 100, ".rawr/reports/old.md": "TODO x\n"})
    inventory = desks.material(repo.root)["inventory"]
    assert [file["path"] for file in inventory["largest"]] == [".gitignore", "a.py", "new.py"]
    assert inventory["notes"]["count"] == 0


def test_the_largest_files_come_largest_first(desks: Desks, repo: Repo) -> None:
    repo.commit({f"{size}.txt": "x" * size for size in (10, 3000, 200)})
    largest = desks.material(repo.root, fileBytes=1000)["inventory"]["largest"]
    assert [(file["path"], file["bytes"], file["lines"]) for file in largest] == [
        ("3000.txt", 3000, None),
        ("200.txt", 200, 1),
        ("10.txt", 10, 1),
    ]


def test_a_huge_repository_is_looked_at_in_part_and_the_rest_is_counted(desks: Desks, repo: Repo) -> None:
    repo.commit({f"dir{number % 7}/file{number:04d}.py": "x = 1\n" * 50 for number in range(600)})
    inventory = desks.material(repo.root, files=100)["inventory"]
    assert inventory["files"] == 600
    assert inventory["filesRead"] == 100
    assert inventory["lines"] == 5000
    assert inventory["leftOut"] == [
        "500 of 600 files were not looked at: the limit of 100 files, 268435456 bytes or 20 s was reached"
    ]
    assert desks.material(repo.root, readBytes=3000)["inventory"]["filesRead"] == 10
    assert "It holds 600 files with at least 5,000 lines of text" in desks.briefing(repo.root, files=100)


def test_wild_names_and_links_and_pipes_are_survived(desks: Desks, repo: Repo, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.py").write_text("TODO: never seen\n" * 100)
    repo.commit(
        {
            "naïve 名前 😀.py": "x = 1\n",
            "new\nline\ttab.py": "x = 1\n",
            "-rf.py": "x = 1\n",
            "`tick`|pipe.py": "x = 1\n",
            ":(glob)**.py": "x = 1\n",
            "folder/secret.py": "x = 1\n",
        }
    )
    raw_name = os.fsencode(repo.root) + b"/not-utf8-\xff\xfe.py"
    Path(os.fsdecode(raw_name)).write_bytes(b"x = 1\n")
    (repo.root / "loop").symlink_to("loop")
    (repo.root / "round").symlink_to(".")
    (repo.root / "out").symlink_to(outside)
    repo.commit({}, subject="Wild \x1b[31mred\x1b[0m `code` | <b>bold</b>")
    # What was tracked as a file in a folder now lies behind a link that leads out of the repository.
    (repo.root / "folder" / "secret.py").unlink()
    (repo.root / "folder").rmdir()
    (repo.root / "folder").symlink_to(outside)
    os.mkfifo(repo.root / "pipe.py")
    repo.git("update-index", "--index-info", env={})
    material = desks.material(repo.root)
    paths = {file["path"] for file in material["inventory"]["largest"]}
    assert {"naïve 名前 😀.py", "new\\x0aline\\x09tab.py", "not-utf8-\\xff\\xfe.py", "-rf.py"} <= paths
    assert material["inventory"]["notes"]["count"] == 0
    assert material["inventory"]["links"] >= 3
    text = desks.briefing(repo.root)
    assert "\x1b" not in text
    assert "\\<b\\>bold" in text
    assert "`` `tick`\\|pipe.py ``" in text


def test_a_submodule_is_a_repository_of_its_own(desks: Desks, make_repo: Callable[[str], Repo]) -> None:
    inner, outer = make_repo("inner"), make_repo("outer")
    inner.commit({"inner.py": "x = 1\n"})
    outer.commit({"outer.py": "x = 1\n"})
    outer.git("submodule", "--quiet", "add", str(inner.root), "sub")
    outer.commit({}, subject="Add submodule")
    inventory = desks.material(outer.root)["inventory"]
    assert inventory["submodules"] == 1
    assert "inner.py" not in str(inventory)
    assert "1 submodules are repositories of their own and were not looked into" in inventory["leftOut"]


def test_files_that_are_gone_from_the_work_tree_are_said(desks: Desks, repo: Repo) -> None:
    repo.commit({"a.py": "x\n", "gone.py": "x\n"})
    (repo.root / "gone.py").unlink()
    inventory = desks.material(repo.root)["inventory"]
    assert inventory["filesRead"] == 1
    assert inventory["leftOut"] == ["1 listed files are missing, cannot be read or are no regular files"]


MANIFESTS = {
    "pyproject.toml": """
[project]
name = "x"
dependencies = ["msgspec>=0.20", "rich [extra] ~= 14.0 ; python_version > '3'", "direct @ https://u:p@example.org/x.zip"]
[project.optional-dependencies]
docs = ["sphinx"]
[dependency-groups]
dev = ["pytest>=9", {include-group = "docs"}]
[build-system]
requires = ["uv_build"]
[tool.poetry.dependencies]
python = "^3.11"
pendulum = {version = "^3", optional = true}
[tool.poetry.group.lint.dependencies]
ruff = "*"
""",
    "web/package.json": """{
  "dependencies": {"@scope/a": "^1.0.0"},
  "devDependencies": {"b": "git+https://t0ken@example.org/b"}
}""",
    "requirements.txt": """# comment
requests==2.0 \\
    --hash=sha256:00
-r other.txt
--index-url https://u:p@example.org
flask[async]>=3  # web
-e ./local
git+https://u:p@example.org/c.git
""",
    "go.mod": """module x

go 1.22

require example.org/one v1.2.3

require (
	example.org/two v0.1.0 // indirect
	example.org/three v2.0.0
)

replace example.org/one => ../one
""",
    "Cargo.toml": """[package]
name = "x"
[dependencies]
serde = { version = "1", features = ["derive"] }
local = { path = "../l" }
[dev-dependencies]
proptest = "1"
[target."cfg(unix)".dependencies]
nix = "0.29"
[workspace.dependencies]
tokio = { workspace = true }
""",
}


def test_dependencies_of_every_format_are_read(desks: Desks, repo: Repo) -> None:
    repo.commit(MANIFESTS)
    found = desks.material(repo.root)["dependencies"]
    read = {
        manifest["path"]: [tuple(one[key] for key in ("name", "spec", "group")) for one in manifest["dependencies"]]
        for manifest in found["manifests"]
    }
    assert read == {
        "Cargo.toml": [
            ("serde", "1", "main"),
            ("local", "../l", "main"),
            ("proptest", "1", "dev"),
            ("tokio", "workspace", "workspace"),
            ("nix", "0.29", "target cfg(unix)"),
        ],
        "go.mod": [
            ("example.org/one", "v1.2.3", "main"),
            ("example.org/two", "v0.1.0", "indirect"),
            ("example.org/three", "v2.0.0", "main"),
        ],
        "pyproject.toml": [
            ("msgspec", ">=0.20", "main"),
            ("rich", "~= 14.0 ; python_version > '3'", "main"),
            ("direct", "@ https://example.org/x.zip", "main"),
            ("sphinx", "", "optional docs"),
            ("pytest", ">=9", "dev"),
            ("uv_build", "", "build"),
            ("pendulum", "^3", "main"),
            ("ruff", "*", "lint"),
        ],
        "requirements.txt": [
            ("requests", "==2.0", "main"),
            ("flask", ">=3", "main"),
            ("./local", "", "editable"),
            ("git+https://example.org/c.git", "", "main"),
        ],
        "web/package.json": [("@scope/a", "^1.0.0", "main"), ("b", "git+https://example.org/b", "dev")],
    }
    assert found["count"] == 22
    assert found["problems"] == []


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("pyproject.toml", "[project\n", "it is no TOML"),
        ("Cargo.toml", b"\xff\xfe", "it is not UTF-8: byte 0"),
        ("package.json", "{", "it is no JSON"),
        ("package.json", "[]", "it is no JSON object"),
        ("package.json", "[" * 100_000, "it is no JSON"),
        ("requirements-dev.txt", b"caf\xe9\n", "it is not UTF-8: byte 3"),
        ("go.mod", "x" * (1 << 20) + "x", "it is larger than 1048576 bytes"),
    ],
)
def test_a_broken_manifest_is_reported_and_the_others_are_read(
    desks: Desks, repo: Repo, name: str, content: str | bytes, why: str
) -> None:
    repo.commit({name: content, "sound/requirements.txt": "requests\n"})
    found = desks.material(repo.root)["dependencies"]
    assert [(problem["path"], problem["why"][: len(why)]) for problem in found["problems"]] == [(name, why)]
    assert [manifest["path"] for manifest in found["manifests"]] == ["sound/requirements.txt"]
    assert f"`{name}` cannot be read" in desks.briefing(repo.root)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pyproject.toml", "project = 3\ntool = []\nbuild-system = 'x'\n"),
        ("pyproject.toml", "[project]\ndependencies = 'x'\n[dependency-groups]\ndev = [1, {}, '']\n"),
        ("package.json", '{"dependencies": ["a"], "devDependencies": null}'),
        ("Cargo.toml", "dependencies = 1\ntarget = 2\nworkspace = 3\n"),
        ("go.mod", "require\nrequire (\n)\nrequire x\n"),
        ("requirements.txt", "-e\n--editable=\n\n   \n-\n"),
    ],
)
def test_a_manifest_of_a_strange_shape_declares_nothing(desks: Desks, repo: Repo, name: str, content: str) -> None:
    repo.commit({name: content})
    found = desks.material(repo.root)["dependencies"]
    assert found["problems"] == []
    assert sum(one["name"] != "" for manifest in found["manifests"] for one in manifest["dependencies"]) == 0


def test_too_many_manifests_and_dependencies_are_counted(desks: Desks, repo: Repo) -> None:
    many = "".join(f"package{number}\n" for number in range(120))
    repo.commit({"requirements.txt": many, "a/requirements.txt": "x\n", "b/requirements.txt": "x\n"})
    found = desks.material(repo.root, manifests=2)["dependencies"]
    assert [manifest["path"] for manifest in found["manifests"]] == ["requirements.txt", "a/requirements.txt"]
    assert found["count"] == 121
    assert found["leftOut"] == [
        "1 more dependency manifests were not read",
        "20 more dependencies are counted and not listed",
    ]
