"""The static table says the truth about the commands, and `--help` is made from it alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from rawr.cli.context import Invocation
from rawr.cli.exit_codes import EXIT_BY_CODE
from rawr.cli.help import group_help
from rawr.cli.main import LazyGroup, load
from rawr.cli.table import TABLE
from rawr.testing.workspace import make_instance

HEAVY = (
    "apsw",
    "asyncio",
    "click",
    "httpx",
    "inngest",
    "jinja2",
    "msgspec",
    "pydantic",
    "rich",
    "starlette",
    "uvicorn",
)


@pytest.mark.parametrize("path", TABLE.commands, ids=" ".join)
def test_every_row_names_a_command_of_that_name_and_help(path: tuple[str, ...]) -> None:
    row = TABLE.commands[path]
    command = load(row)
    assert command.name == path[-1]
    assert command.short_help == row.help


@pytest.mark.parametrize("path", TABLE.commands, ids=" ".join)
def test_every_command_stands_in_groups_that_have_a_help(path: tuple[str, ...]) -> None:
    assert all(path[:depth] in TABLE.groups for depth in range(len(path)))


@pytest.mark.parametrize("path", TABLE.groups, ids=lambda path: " ".join(path) or "rawr")
def test_the_help_of_a_group_lists_its_children_and_fits_a_terminal(path: tuple[str, ...]) -> None:
    text = group_help(TABLE, path)
    assert [name for name, _ in TABLE.children(path) if f"\n  {name} " not in text] == []
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("path", TABLE.commands, ids=" ".join)
def test_every_command_takes_the_base_flags(path: tuple[str, ...]) -> None:
    taken = {name for option in load(TABLE.commands[path]).params for name in option.opts}
    assert taken >= {
        "--json",
        "--instance",
        "-I",
        "--global-owner",
        "--quiet",
        "-y",
        "--yes",
        "--dry-run",
        "-h",
        "--help",
    }


def test_the_short_way_to_help_says_what_click_would() -> None:
    through_click = subprocess.run(
        [sys.executable, "-m", "rawr", "--quiet", "--help"], capture_output=True, check=True, timeout=60
    )
    short_way = subprocess.run([sys.executable, "-m", "rawr", "--help"], capture_output=True, check=True, timeout=60)
    assert through_click.stdout == short_way.stdout


def test_completion_knows_commands_without_importing_them() -> None:
    group = LazyGroup(("workflow", "coord"), TABLE)
    context = click.Context(group, obj=Invocation([], environ={}))
    assert [item.value for item in group.shell_complete(context, "t")] == ["trace"]


@pytest.mark.parametrize("arguments", [["--version"], ["-V"], ["--help"], ["-h"]])
def test_the_two_first_questions_are_answered_without_any_framework(arguments: list[str]) -> None:
    assert imported_by(arguments, HEAVY) == set()


@pytest.mark.parametrize(
    "arguments",
    [["workflow", "--help"], ["up", "--help"], ["workflow", "coord", "run", "--help"], ["--quiet", "--help"]],
)
def test_help_imports_click_and_nothing_heavy(arguments: list[str]) -> None:
    allowed = {"click", "msgspec"} if len(arguments) > 2 or arguments[0] == "up" else {"click"}
    assert imported_by(arguments, HEAVY) <= allowed


def imported_by(arguments: list[str], names: tuple[str, ...]) -> set[str]:
    """Which of the modules one command line imports, in a fresh interpreter."""
    program = (
        "import sys; before = set(sys.modules); from rawr.__main__ import main; main(sys.argv[1:]);"
        "print('\\nIMPORTED', *(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    return set(done.stdout.rpartition("IMPORTED ")[2].split()) & set(names)


FRAMEWORKS = ("apsw", "httpx", "inngest", "jinja2", "jsonschema_rs", "pydantic", "rich", "starlette", "uvicorn")


@pytest.mark.parametrize(
    "arguments",
    [
        ["version"],
        ["status"],
        ["down"],
        ["state", "show"],
        ["token", "list"],
        ["instance", "current"],
        ["plugins", "web", "list"],
        ["workflow", "coord", "create", "--id", "x", "--dry-run"],
    ],
    ids=" ".join,
)
def test_a_light_command_for_machines_imports_no_framework(arguments: list[str], tmp_path: Path) -> None:
    root = make_instance(tmp_path / "hq")
    assert imported_by([*arguments, "--json", "--instance", str(root)], FRAMEWORKS) == set()


def test_the_reference_names_every_exit_code_and_every_dry_run() -> None:
    reference = (Path(__file__).parents[2] / "docs/reference/cli.md").read_text()
    assert {code for code in EXIT_BY_CODE.values() if f"\n| {code} |" not in reference} == set()
    dry = [" ".join(path) for path, row in TABLE.commands.items() if load(row).knows_dry_run]
    assert [name for name in dry if f"`{name}`" not in reference] == []
