"""The bootstrap makes an environment again exactly when what it is made from has changed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


def bootstrap_at(folder: Path) -> ModuleType:
    """The script as if the checkout were `folder`."""
    spec = importlib.util.spec_from_file_location("bootstrap_under_test", ROOT / "scripts" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.ROOT = folder  # type: ignore[attr-defined]  # the script has no other door for its place
    module.VENV = folder / ".venv"  # type: ignore[attr-defined]
    module.VENV_PYTHON = folder / ".venv/bin/python"  # type: ignore[attr-defined]
    module.STAMP = folder / ".venv/.rawr-bootstrap.json"  # type: ignore[attr-defined]
    module.REQUIREMENTS = {  # type: ignore[attr-defined]
        name: folder / f"requirements/{name}.txt" for name in ("runtime", "dev", "bench")
    }
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "src").mkdir()
    for name in ("runtime", "dev", "bench"):
        (tmp_path / f"requirements/{name}.txt").write_text("")
    return tmp_path


@pytest.fixture
def without_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.mark.usefixtures("without_uv")
def test_a_second_call_makes_nothing(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bootstrap_at(checkout).ensure_environment("runtime")
    assert "ready after" in capfd.readouterr().err
    bootstrap_at(checkout).ensure_environment("runtime")
    assert capfd.readouterr().err == ""


@pytest.mark.usefixtures("without_uv")
def test_changed_pins_a_broken_stamp_and_a_moved_checkout_make_it_again(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory, capfd: pytest.CaptureFixture[str]
) -> None:
    script = bootstrap_at(checkout)
    script.ensure_environment("dev")
    capfd.readouterr()
    (checkout / "requirements/dev.txt").write_text("# changed\n")
    script.ensure_environment("runtime")
    assert capfd.readouterr().err == "", "the runtime pins are as they were"
    script.ensure_environment("dev")
    assert "ready after" in capfd.readouterr().err
    script.STAMP.write_text("{")
    script.ensure_environment("dev")
    assert "ready after" in capfd.readouterr().err
    moved = tmp_path_factory.mktemp("elsewhere") / "a b"
    checkout.rename(moved)
    bootstrap_at(moved).ensure_environment("dev")
    assert "ready after" in capfd.readouterr().err
    assert json.loads((moved / ".venv/.rawr-bootstrap.json").read_text())["place"] == str(moved)


@pytest.mark.usefixtures("without_uv")
def test_what_the_benchmarks_compare_with_comes_beside_the_tools(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = bootstrap_at(checkout)
    script.ensure_environment("bench")
    capfd.readouterr()
    for group in ("runtime", "dev", "bench"):
        script.ensure_environment(group)
    assert capfd.readouterr().err == "", "one environment has it all"
    (checkout / "requirements/bench.txt").write_text("# changed\n")
    script.ensure_environment("dev")
    assert capfd.readouterr().err == "", "the tools are as they were"
    script.ensure_environment("bench")
    assert "ready after" in capfd.readouterr().err


@pytest.mark.usefixtures("without_uv")
def test_the_launcher_works_from_a_path_with_spaces(tmp_path: Path) -> None:
    folder = tmp_path / "a b"
    (folder / "requirements").mkdir(parents=True)
    for name in ("runtime", "dev", "bench"):
        (folder / f"requirements/{name}.txt").write_text("")
    (folder / "src").symlink_to(ROOT / "src")
    bootstrap_at(folder).ensure_environment("runtime")
    done = subprocess.run([folder / ".venv/bin/rawr", "--version"], capture_output=True, text=True, check=True)
    assert "rawr" in done.stdout


def test_a_folder_that_is_no_environment_is_not_touched(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv/mine.txt").write_text("keep")
    script = bootstrap_at(checkout)
    with pytest.raises(script.BootstrapError, match="no virtual environment"):
        script.ensure_environment("runtime")
    assert (checkout / ".venv/mine.txt").read_text() == "keep"


def test_an_unknown_command_is_127_and_no_command_is_usage(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/bootstrap.py", "run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "which command" in done.stderr
    del capsys
