"""The judgement, the Markdown, the file, and the whole workflow."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType, Run, RunStatus
from rawr.coordination.schemas import refused_schemas
from rawr.coordination.validate import validate_workflow
from rawr.execution.ports import FunctionDeps, FunctionFailedError
from rawr.execution.program import coordination_runner
from rawr.ids import RunId
from rawr.sdk import DeskFailed
from rawr.testing.clock import FakeClock
from rawr.testing.steps import Crash, CrashPoint, Journal, drive
from rawr.testing.stores import MemoryCoordinationStore

if TYPE_CHECKING:
    from tests.plugins.briefing.conftest import Desks, Repo


def test_the_workflow_is_valid_and_its_schemas_are_accepted(desks: Desks) -> None:
    assert validate_workflow(desks.workflow).errors == ()
    assert refused_schemas(desks.workflow.desks) == []


def test_the_plugin_imports_only_its_own_modules_the_sdk_and_the_standard_library() -> None:
    import sys

    folder = Path(__file__).resolve().parents[3] / "plugins" / "workflows" / "briefing" / "briefing"
    imported = {
        match
        for file in folder.glob("*.py")
        for match in re.findall(r"^(?:from|import) ([\w.]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    foreign = {
        name for name in imported if not name.startswith(".") and name.split(".")[0] not in sys.stdlib_module_names
    }
    assert foreign == {"rawr.sdk"}


def test_the_briefing_says_in_one_paragraph_what_a_person_asks_first(desks: Desks, repo: Repo) -> None:
    repo.commit({"main.py": "x = 1\n" * 90, "README.md": "# It\n" * 10, "requirements.txt": "rich\n"}, subject="Start")
    repo.commit({"main.py": "# TODO: less\n" + "x = 1\n" * 89}, subject="Think again", author="Grace")
    text = desks.briefing(repo.root)
    paragraph = text.splitlines()[2]
    assert paragraph.startswith("**repo** has 2 commits on branch `main`; the newest, “Think again”, is by Grace of ")
    assert "In the last 30 days, 2 authors made 2 commits that touched 3 files, most often `main.py`." in paragraph
    assert "It holds 3 files with 101 lines of text, mostly Python (89 %)." in paragraph
    assert "It declares 1 dependency in 1 manifest." in paragraph
    assert paragraph.endswith("Open notes (TODO or FIXME): 1.")


def test_the_briefing_has_every_section_in_order_and_is_well_formed(desks: Desks, repo: Repo) -> None:
    repo.commit({"main.py": "# TODO: less\n", "requirements.txt": "rich>=14\n", "a.bin": b"\0"}, subject="Start")
    text = desks.briefing(repo.root)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "Activity",
        "Hot files",
        "Inventory",
        "Largest files",
        "TODO and FIXME",
        "Dependencies",
        "Left out",
    ]
    assert text.startswith("# Briefing: repo\n\n")
    assert "| Ada | 1 |" in text
    assert "| Python | 1 | 1 | 13 B |" in text
    assert "| `main.py` | 13 B | 1 |" in text
    assert "- `main.py:1` TODO: less" in text
    assert "| rich | `>=14` | main |" in text
    assert "- 1 binary files have no lines" in text
    assert "\n\n\n" not in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_a_repository_without_commits_is_briefed_on_by_its_files(desks: Desks, repo: Repo) -> None:
    repo.write({"first.py": "x = 1\n"})
    text = desks.briefing(repo.root)
    assert "**repo** has no commits yet. It holds 1 file with 1 line of text, mostly Python (100 %)." in text
    assert "No file was changed in the period." in text


def test_a_repository_that_is_quiet_is_briefed_on(desks: Desks, repo: Repo) -> None:
    repo.commit({"first.py": "x = 1\n"}, hours_ago=24 * 90)
    text = desks.briefing(repo.root)
    assert "Nothing was committed in the last 30 days." in text


def test_the_review_refuses_a_repository_with_nothing_in_it(desks: Desks, repo: Repo) -> None:
    with pytest.raises(DeskFailed) as raised:
        desks.run("review", desks.material(repo.root))
    assert raised.value.message == ("repo is empty: it has neither commits nor files, so there is nothing to brief on")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda m: m["activity"].update(commits=3), "3 commits in the period, but only 1 in all"),
        (lambda m: m["activity"].update(authors=[]), "1 commits in the period by 1 authors, but 0 are listed"),
        (lambda m: m["activity"]["authors"][0].update(commits=2), "1 commits in the period, but 2 by its authors"),
        (lambda m: m["repository"].update(head=None), "1 commits in the period, but the repository has none"),
        (
            lambda m: m["activity"].update(hotFiles=[{"path": "a.py", "commits": 5}]),
            "a.py changed in 5 of 1 commits",
        ),
        (lambda m: m["inventory"].update(lines=7), "7 lines in all, but 2 by language"),
        (lambda m: m["inventory"].update(filesRead=9), "9 files in all, but 1 by language; 9 files read, but only 1"),
        (lambda m: m["inventory"].update(bytes=1), "a.py is larger than all files together"),
        (lambda m: m["dependencies"].update(count=4), "4 dependencies, but the manifests declare 0"),
    ],
)
def test_the_review_refuses_findings_that_contradict_each_other(
    desks: Desks, repo: Repo, change: Callable[[Any], None], why: str
) -> None:
    repo.commit({"a.py": "x\ny\n"})
    material = desks.material(repo.root)
    change(material)
    with pytest.raises(DeskFailed) as raised:
        desks.run("review", material)
    assert raised.value.message.startswith(f"the findings about repo contradict each other: {why}")


def test_the_report_is_named_by_the_run_and_writing_it_again_gives_the_same_file(desks: Desks, repo: Repo) -> None:
    repo.commit({"a.py": "x\n"})
    reviewed = desks.run("review", desks.material(repo.root))
    written = desks.run("write", reviewed, run_id=RunId("run-7"))
    again = desks.run("write", reviewed, run_id=RunId("run-7"), attempt=2)
    reports = desks.instance_root / ".rawr" / "reports"
    assert written == again
    assert written["path"] == str(reports / "repo-briefing-run-7.md")
    assert [path.name for path in reports.iterdir()] == ["repo-briefing-run-7.md"]
    assert Path(written["path"]).stat().st_size == written["bytes"]


def test_the_longest_ids_still_give_a_file_name(desks: Desks, repo: Repo) -> None:
    repo.commit({"a.py": "x\n"})
    reviewed = desks.run("review", desks.material(repo.root))
    paths = {
        desks.run("write", reviewed, workflow_id="w" * 128, run_id=RunId("r" * 127 + last))["path"] for last in "ab"
    }
    assert len(paths) == 2


def test_a_place_that_cannot_be_written_fails_clearly_and_leaves_nothing(desks: Desks, repo: Repo) -> None:
    repo.commit({"a.py": "x\n"})
    reviewed = desks.run("review", desks.material(repo.root))
    (desks.instance_root / ".rawr").write_text("a file stands in the way")
    with pytest.raises(DeskFailed, match=r"the briefing cannot be written to .*: Not a directory"):
        desks.run("write", reviewed)


async def _queued(desks: Desks, store: MemoryCoordinationStore, run_input: Any) -> Run:
    await store.save_workflow(desks.workflow)
    run = Run(
        run_id=RunId("run-1"),
        workflow_id=desks.workflow.workflow_id,
        workflow_version=1,
        status=RunStatus.QUEUED,
        started_at="2026-01-01T00:00:00.000Z",
        input=run_input,
        trace_links=(),
    )
    fact = Fact(key="run.started/queued", type=EventType.RUN_STARTED, at=run.started_at)
    return (await store.create_run(run, fact)).run


def _deps(desks: Desks, store: MemoryCoordinationStore) -> FunctionDeps:
    return FunctionDeps(
        store=store, desk_handlers=desks.plugin.handlers, clock=FakeClock(0), instance_root=desks.instance_root
    )


DATA = {"runId": "run-1", "workflowId": "repo-briefing", "workflowVersion": 1}


def test_a_run_ends_with_the_path_of_the_briefing_also_when_it_dies_on_the_way(desks: Desks, repo: Repo) -> None:
    repo.commit({"a.py": "x\n"})

    async def run_it() -> tuple[Run | None, list[str]]:
        store, journal = MemoryCoordinationStore(), Journal()
        await _queued(desks, store, {"path": str(repo.root)})
        deps = _deps(desks, store)
        for crash_at in (1, 4, 6, None):
            try:
                await drive(coordination_runner(), deps, DATA, journal=journal, crash=CrashPoint(crash_at))
            except Crash:
                continue
        events = [event.type.value for event in await store.timeline(RunId("run-1"))]
        return await store.get_run(RunId("run-1")), events

    run, events = asyncio.run(run_it())
    assert run is not None
    assert run.status is RunStatus.COMPLETED
    assert isinstance(run.output, dict)
    assert Path(run.output["path"]).read_text(encoding="utf-8").startswith("# Briefing: repo")
    assert events.count("desk.completed") == 7
    assert events.count("run.completed") == 1


def test_a_run_on_what_is_no_repository_fails_with_the_reason(desks: Desks, tmp_path: Path) -> None:
    async def run_it() -> Run | None:
        store = MemoryCoordinationStore()
        await _queued(desks, store, {"path": str(tmp_path)})
        with pytest.raises(FunctionFailedError):
            await drive(coordination_runner(), _deps(desks, store), DATA, journal=Journal())
        return await store.get_run(RunId("run-1"))

    run = asyncio.run(run_it())
    assert run is not None
    assert run.status is RunStatus.FAILED
    assert run.error == (f"desk scope failed: {tmp_path} is not in a git repository: give the folder of one as path")


def test_an_input_with_an_unknown_key_is_refused_by_the_first_desk(desks: Desks) -> None:
    scope = next(desk for desk in desks.workflow.desks if desk.desk_id == "scope")
    assert msgspec.to_builtins(scope.input_schema)["additionalProperties"] is False
