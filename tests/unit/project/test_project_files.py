"""What the project promises about its own files."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

from rawr import __version__
from rawr.cli.table import TABLE

ROOT = Path(__file__).parents[3]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/**/*.md")])


@pytest.mark.parametrize("name", ["runtime", "dev"])
def test_every_pin_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / f"requirements/{name}.txt").read_text()
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all(re.match(r"[a-z0-9._-]+(\[[a-z,]+\])?==\S+", block, re.IGNORECASE) for block in blocks)
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in text


def test_dev_pins_what_runtime_pins() -> None:
    def pins(name: str) -> dict[str, str]:
        text = (ROOT / f"requirements/{name}.txt").read_text()
        return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", text, re.MULTILINE))

    dev = pins("dev")
    assert {name: dev.get(name) for name in pins("runtime")} == pins("runtime")


def test_every_declared_dependency_is_pinned() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = set(re.findall(r"^([A-Za-z0-9._-]+)==", (ROOT / "requirements/dev.txt").read_text(), re.MULTILINE))
    wanted = [*project["project"]["dependencies"], *project["dependency-groups"]["dev"]]
    assert {re.split(r"[<>=\[;]", name)[0] for name in wanted} <= pinned


def test_the_version_is_said_once() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
        assert (document.parent / target).exists(), f"{document}: {target}"


COMMAND = re.compile(r"(?:`|^    |^)(?:\.venv/bin/)?rawr ([a-z][a-z -]*)", re.MULTILINE)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(document: Path) -> None:
    for written in COMMAND.findall(document.read_text()):
        words = tuple(word for word in written.split() if not word.startswith("-"))
        known = any(words[:size] in TABLE.commands for size in range(1, len(words) + 1))
        assert known or words in TABLE.groups, f"{document}: rawr {written}"


def test_the_readme_shows_commands() -> None:
    assert len(COMMAND.findall((ROOT / "README.md").read_text())) >= 6


@pytest.mark.parametrize("source", sorted(ROOT.glob("plugins/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_example_plugins_import_only_the_sdk_the_standard_library_and_themselves(source: Path) -> None:
    allowed = {*sys.stdlib_module_names, "rawr.sdk"}
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        assert all(name in allowed or name.partition(".")[0] in sys.stdlib_module_names for name in names), names
