"""`rawr init`: a working instance, and never anything overwritten."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from rawr.coordination.validate import validate_workflow
from rawr.errors import StorageError
from rawr.hq import load_manifest
from rawr.instance.init import InitError, init_instance
from rawr.testing.workspace import make_instance
from rawr.workspace.config import Config, load_config
from rawr.workspace.root import resolve_instance


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_new_folder_becomes_an_instance_that_composes(tmp_path: Path) -> None:
    made = init_instance(tmp_path / "deep" / "hq")
    root = tmp_path / "deep" / "hq"
    assert made.root == root
    assert {file.action for file in made.files} == {"create"}
    assert {file.path for file in made.files} == set(contents(root))
    assert resolve_instance(flag=None, environ={}, cwd=root / "plugins").root == root
    assert load_config(root, environ={}) == Config()
    manifest = load_manifest(root)
    assert manifest.faults == ()
    assert [workflow.workflow_id for workflow in manifest.workflows] == ["hello"]
    assert validate_workflow(manifest.workflows[0]).ok
    assert {desk.handler for desk in manifest.workflows[0].desks} == set(manifest.desk_handlers)


def test_the_second_time_nothing_changes_and_all_is_skipped(tmp_path: Path) -> None:
    init_instance(tmp_path)
    before = contents(tmp_path)
    again = init_instance(tmp_path)
    assert {file.action for file in again.files} == {"skip"}
    assert contents(tmp_path) == before


def test_what_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    mine = {"rawr.toml": "[server]\nport = 0\n", ".gitignore": "mine\n", "plugins/workflows/hello/plugin.py": "x = 1\n"}
    for name, text in mine.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "rawr_hq.py").symlink_to("nowhere")
    made = init_instance(tmp_path)
    assert {file.path for file in made.files if file.action == "skip"} == {*mine, "rawr_hq.py"}
    assert {name: (tmp_path / name).read_text() for name in mine} == mine
    assert (tmp_path / "rawr_hq.py").is_symlink()


def test_a_dry_run_reports_the_same_and_makes_nothing(tmp_path: Path) -> None:
    planned = init_instance(tmp_path / "hq", dry_run=True)
    assert not (tmp_path / "hq").exists()
    assert planned == init_instance(tmp_path / "hq")


def test_in_a_git_repository_nothing_of_the_data_folder_can_be_committed(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True, timeout=60)
    (tmp_path / ".gitignore").write_text("# knows nothing of rawr\n")
    init_instance(tmp_path)
    (tmp_path / ".rawr" / "secrets").mkdir()
    (tmp_path / ".rawr" / "secrets" / "cli.key").write_text("secret")
    listed = subprocess.run(
        ["git", "-C", str(tmp_path), "ls-files", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout.split()
    assert "rawr_hq.py" in listed
    assert not [name for name in listed if name.startswith(".rawr/")]


@pytest.mark.parametrize("name", ["file", "loop"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InitError) as raised:
        init_instance(tmp_path / name)
    assert raised.value.code == "INIT_REFUSED"
    assert (tmp_path / "file").read_text() == "x"


def test_a_file_where_a_folder_belongs_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "plugins").write_text("x")
    with pytest.raises(StorageError):
        init_instance(tmp_path)


def test_the_hello_handlers_greet_and_count(tmp_path: Path) -> None:
    init_instance(tmp_path)
    manifest = load_manifest(tmp_path)

    class Context:
        memory: object = None

        def remember(self, value: object) -> None:
            self.memory = value

    context = Context()

    async def both() -> object:
        greeting = manifest.desk_handlers["hello.greet"]({"name": "Ada"}, context)  # type: ignore[arg-type]  # a part of the context is enough
        return manifest.desk_handlers["hello.count"](greeting, context)  # type: ignore[arg-type]  # as above

    assert asyncio.run(both()) == {"greeting": "Hello, Ada!", "times": 1}
    assert asyncio.run(both()) == {"greeting": "Hello, Ada!", "times": 2}


def test_an_instance_made_for_tests_composes_too(tmp_path: Path) -> None:
    assert load_manifest(make_instance(tmp_path)).faults == ()
