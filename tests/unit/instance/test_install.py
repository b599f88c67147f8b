"""Which workspace has the authority over what is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rawr.instance.install import CanonicalSource, assess_install_state
from rawr.instance.owner import GlobalOwnerError
from rawr.testing.workspace import make_instance
from rawr.wire import decode

_ASSESS_AND_TELL_WHAT_WAS_OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, values: opened.append(str(values[0])) if event == "open" else None)
from pathlib import Path
from rawr.instance.install import assess_install_state
from rawr.wire import encode
root, home, allowed = sys.argv[1:]
assess_install_state(Path(root), home=Path(home), allow_global_owner_fallback=allowed == "yes")
print(encode([path for path in opened if path.endswith("global-rawr-owner-path")]).decode())
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return make_instance(tmp_path / "here")


@pytest.fixture
def owner(tmp_path: Path) -> Path:
    return make_instance(tmp_path / "owner")


@pytest.fixture
def home(tmp_path: Path, owner: Path) -> Path:
    """A home whose owner file names another valid instance."""
    folder = tmp_path / "home"
    (folder / ".rawr").mkdir(parents=True)
    (folder / ".rawr" / "global-rawr-owner-path").write_text(f"{owner}\n")
    return folder


def test_a_workspace_is_its_own_authority_whatever_the_owner_file_names(here: Path, home: Path) -> None:
    state = assess_install_state(here, home=home)
    assert state.canonical_workspace_source is CanonicalSource.WORKSPACE_ROOT
    assert state.canonical_workspace_root == str(here)


def test_the_owner_is_the_authority_only_where_it_is_allowed_explicitly(here: Path, home: Path, owner: Path) -> None:
    state = assess_install_state(here, home=home, allow_global_owner_fallback=True)
    assert state.canonical_workspace_source is CanonicalSource.GLOBAL_OWNER
    assert state.canonical_workspace_root == str(owner)


@pytest.mark.parametrize(("allowed", "times"), [("no", 0), ("yes", 1)])
def test_the_owner_file_is_opened_only_where_it_is_allowed(here: Path, home: Path, allowed: str, times: int) -> None:
    command = [sys.executable, "-c", _ASSESS_AND_TELL_WHAT_WAS_OPENED, str(here), str(home), allowed]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    assert decode(done.stdout) == [str(home / ".rawr/global-rawr-owner-path")] * times


def test_an_owner_that_is_allowed_and_is_none_is_an_error_and_not_the_workspace(
    here: Path, home: Path, owner: Path
) -> None:
    (owner / "rawr_hq.py").unlink()
    with pytest.raises(GlobalOwnerError):
        assess_install_state(here, home=home, allow_global_owner_fallback=True)
    assert assess_install_state(here, home=home).canonical_workspace_root == str(here)


def test_an_alias_of_a_workspace_has_the_authority_of_the_workspace(here: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(here)
    assert assess_install_state(tmp_path / "alias", home=home).canonical_workspace_root == str(here)
