"""Which instance a command is about."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rawr.testing.workspace import make_instance
from rawr.workspace.root import VARIABLES, InstanceNotFoundError, resolve_instance


@pytest.fixture
def here(tmp_path: Path) -> Path:
    return make_instance(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Path:
    return make_instance(tmp_path / "there")


@pytest.mark.parametrize("depth", ["", "plugins", "plugins/web/deep"])
def test_the_nearest_marker_at_or_above_the_current_folder_decides(here: Path, depth: str) -> None:
    (here / depth).mkdir(parents=True, exist_ok=True)
    found = resolve_instance(flag=None, environ={}, cwd=here / depth)
    assert (found.root, found.source, found.warnings) == (here, "cwd", ())


def test_of_nested_instances_the_inner_one_decides(here: Path) -> None:
    inner = make_instance(here / "inner")
    assert resolve_instance(flag=None, environ={}, cwd=inner / "plugins").root == inner


@pytest.mark.parametrize(
    ("flag", "given", "source"),
    [
        ("there", {}, "flag"),
        ("there", {"RAWR_INSTANCE": "nowhere"}, "flag"),
        (None, {"RAWR_INSTANCE": "there", "RAWR_WORKSPACE_ROOT": "nowhere"}, "env:RAWR_INSTANCE"),
        (None, {"RAWR_WORKSPACE_ROOT": "there", "RAWR_HQ_ROOT": "nowhere"}, "env:RAWR_WORKSPACE_ROOT"),
        (None, {"RAWR_HQ_ROOT": "there"}, "env:RAWR_HQ_ROOT"),
        (None, {"RAWR_INSTANCE": "", "RAWR_HQ_ROOT": "there"}, "env:RAWR_HQ_ROOT"),
    ],
)
def test_the_first_source_that_says_something_decides(
    tmp_path: Path, there: Path, flag: str | None, given: dict[str, str], source: str
) -> None:
    found = resolve_instance(flag=flag, environ=given, cwd=tmp_path)
    assert (found.root, found.source) == (there, source)


@pytest.mark.parametrize("variable", VARIABLES)
@pytest.mark.parametrize(
    ("given", "why"),
    [("missing", "is no folder"), ("plain", "has no rawr_hq.py"), ("plain/file", "is no folder")],
)
def test_a_wrong_choice_is_an_error_that_names_its_source_also_inside_an_instance(
    here: Path, tmp_path: Path, variable: str, given: str, why: str
) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").touch()
    place = tmp_path / given
    with pytest.raises(InstanceNotFoundError) as raised:
        resolve_instance(flag=None, environ={variable: str(place)}, cwd=here)
    assert raised.value.code == "INSTANCE_NOT_FOUND"
    assert raised.value.message == f"{variable} names {place}, which is no instance: {place} {why}"
    assert raised.value.details == {"source": variable, "path": str(place)}
    assert raised.value.fix == f"correct {variable}, or make an instance there with: rawr init {place}"
    with pytest.raises(InstanceNotFoundError, match=r"^--instance names "):
        resolve_instance(flag=str(place), environ={}, cwd=here)


@pytest.mark.parametrize("flag", ["", "~no-such-user-of-this-machine/x", "loop"])
def test_a_choice_that_cannot_even_be_resolved_is_the_same_error(here: Path, flag: str) -> None:
    (here / "loop").symlink_to("loop")
    with pytest.raises(InstanceNotFoundError):
        resolve_instance(flag=flag, environ={}, cwd=here)


def test_outside_of_any_instance_the_error_says_the_ways_out(tmp_path: Path) -> None:
    with pytest.raises(InstanceNotFoundError) as raised:
        resolve_instance(flag=None, environ={}, cwd=tmp_path)
    assert raised.value.message == f"no instance here: no rawr_hq.py in {tmp_path} or above it"
    assert raised.value.fix is not None
    assert "--instance DIR" in raised.value.fix
    assert "rawr init DIR" in raised.value.fix


def test_the_folder_that_rawr_was_installed_in_is_never_an_answer(tmp_path: Path) -> None:
    # This very checkout is an instance; from elsewhere it must not be found.
    with pytest.raises(InstanceNotFoundError):
        resolve_instance(flag=None, environ={"HOME": str(tmp_path)}, cwd=tmp_path)


def test_the_global_owner_is_asked_only_when_nothing_else_names_an_instance(
    here: Path, there: Path, tmp_path: Path
) -> None:
    def unwanted() -> Path:
        raise AssertionError("nobody may ask for the owner here")

    for flag, environ, cwd in (
        (str(here), {}, tmp_path),
        (None, {"RAWR_INSTANCE": str(here)}, tmp_path),
        (None, {}, here),
    ):
        assert resolve_instance(flag=flag, environ=environ, cwd=cwd, global_owner=unwanted).root == here
    with pytest.raises(InstanceNotFoundError):
        resolve_instance(flag="nowhere", environ={}, cwd=tmp_path, global_owner=unwanted)
    found = resolve_instance(flag=None, environ={}, cwd=tmp_path, global_owner=lambda: there)
    assert (found.root, found.source) == (there, "global-owner")


def test_a_home_folder_with_rawr_data_is_no_instance(tmp_path: Path) -> None:
    (tmp_path / ".rawr").mkdir()
    (tmp_path / ".rawr" / "instance.json").write_text("{}")
    with pytest.raises(InstanceNotFoundError):
        resolve_instance(flag=None, environ={}, cwd=tmp_path)


def test_aliases_of_an_instance_are_one_instance(here: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(here)
    by_cwd = resolve_instance(flag=None, environ={}, cwd=tmp_path / "alias" / "plugins")
    by_flag = resolve_instance(flag="alias", environ={}, cwd=tmp_path)
    assert by_cwd.root == by_flag.root == here


def test_an_environment_that_overrides_the_current_instance_is_a_warning(here: Path, there: Path) -> None:
    found = resolve_instance(flag=None, environ={"RAWR_INSTANCE": str(there)}, cwd=here)
    assert found.root == there
    assert found.warnings == (
        f"INSTANCE_ENV_OVERRIDES_CWD: RAWR_INSTANCE names {there}, while the current folder is in {here}",
    )
    assert resolve_instance(flag=None, environ={"RAWR_INSTANCE": str(here)}, cwd=here).warnings == ()
    assert resolve_instance(flag=str(there), environ={}, cwd=here).warnings == ()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_a_folder_above_that_we_may_not_look_into_is_no_instance_and_no_crash(tmp_path: Path) -> None:
    inner = make_instance(tmp_path / "closed" / "inner")
    (tmp_path / "closed").chmod(0o111)
    try:
        assert resolve_instance(flag=None, environ={}, cwd=inner).root == inner
    finally:
        (tmp_path / "closed").chmod(0o755)
