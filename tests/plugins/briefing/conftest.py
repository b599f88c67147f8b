"""Real git repositories to brief on, and the desks of the briefing plugin as an instance loads them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.coordination.model import Workflow
from rawr.coordination.schemas import SchemaChecker
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.plugins.loader import LoadedPlugin, load_workflows_plugin
from rawr.testing.workspace import make_instance
from rawr.wire import JsonValue
from rawr.workspace.discovery import discover

PROJECT = Path(__file__).resolve().parents[3]


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What a desk handler is given besides its input."""

    instance_root: Path
    run_id: RunId = RunId("run-1")
    workflow_id: WorkflowId = WorkflowId("repo-briefing")
    desk_id: DeskId = DeskId("desk")
    attempt: int = 1
    memory: JsonValue = None
    idempotency_key: str = "run-1/desk"

    def remember(self, value: JsonValue) -> None:
        raise AssertionError("no desk of this workflow remembers anything")


class Desks:
    """The desks of the workflow, one call each, with both schemas enforced as in a run."""

    def __init__(self, plugin: LoadedPlugin, instance_root: Path) -> None:
        self.plugin = plugin
        self.instance_root = instance_root
        self._checker = SchemaChecker()

    @property
    def workflow(self) -> Workflow:
        (only,) = self.plugin.workflows
        return only

    def run(self, desk_id: str, received: JsonValue, **context: Any) -> Any:
        desk = next(desk for desk in self.workflow.desks if desk.desk_id == desk_id)
        assert isinstance(desk.handler, str)
        assert [str(issue) for issue in self._checker.issues(desk.input_schema, received)] == []
        output = self.plugin.handlers[desk.handler](received, Context(instance_root=self.instance_root, **context))
        assert [str(issue) for issue in self._checker.issues(desk.output_schema, output)] == []
        return output

    def material(self, repo: Path, **limits: int) -> Any:
        """What the desk before the review gives for a repository."""
        scope = self.run("scope", {"path": str(repo), "limits": limits})
        sides = {side: self.run(side, scope) for side in ("activity", "inventory", "dependencies")}
        return self.run("join", {"scope": scope, **sides})

    def briefing(self, repo: Path, **limits: int) -> str:
        """The Markdown for a repository."""
        written = self.run("write", self.run("review", self.material(repo, **limits)))
        return Path(written["path"]).read_text(encoding="utf-8")


@pytest.fixture
def desks(tmp_path: Path) -> Desks:
    plugin = discover(PROJECT).find("briefing")
    assert plugin is not None
    return Desks(load_workflows_plugin(PROJECT, plugin), make_instance(tmp_path / "instance"))


class Repo:
    """A temporary git repository, untouched by the configuration of whoever runs the tests."""

    def __init__(self, root: Path, *, hours_ago: Callable[[float], str]) -> None:
        self.root = root
        self._hours_ago = hours_ago
        root.mkdir(parents=True, exist_ok=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, env: Mapping[str, str] | None = None) -> str:
        done = subprocess.run(
            ["git", "-c", "commit.gpgsign=false", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.root,
            env={**os.environ, **_IDENTITY, **(env or {})},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
        return done.stdout.decode("utf-8", "replace").strip()

    def write(self, files: Mapping[str, str | bytes]) -> None:
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode() if isinstance(content, str) else content)

    def commit(
        self,
        files: Mapping[str, str | bytes],
        *,
        subject: str = "Change",
        author: str = "Ada",
        hours_ago: float = 1,
    ) -> None:
        self.write(files)
        self.git("add", "--all")
        at = self._hours_ago(hours_ago)
        env = {
            "GIT_AUTHOR_NAME": author,
            "GIT_AUTHOR_EMAIL": f"{author.lower()}@example.org",
            "GIT_AUTHOR_DATE": at,
            "GIT_COMMITTER_DATE": at,
        }
        self.git("commit", "--quiet", "--allow-empty", "--message", subject, env=env)


_IDENTITY = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.org",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.org",
}


@pytest.fixture
def make_repo(tmp_path: Path) -> Callable[[str], Repo]:
    """Makes repositories whose commits lie a given number of hours before now: a briefing looks back from now."""
    import time

    started_s = int(time.time())

    def make(name: str) -> Repo:
        return Repo(tmp_path / name, hours_ago=lambda hours: f"{int(started_s - hours * 3600)} +0000")

    return make


@pytest.fixture
def repo(make_repo: Callable[[str], Repo]) -> Repo:
    return make_repo("repo")
