"""Finding plugins by their manifests, with a bad one never taking the others down."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rawr.testing.workspace import make_instance
from rawr.workspace.discovery import discover


def package(kind: str, *, name: str | None = None, capability: str = "c", **more: object) -> str:
    document: dict[str, object] = {"rawr": {"kind": kind, "capability": capability, **more}}
    if name is not None:
        document["name"] = name
    return json.dumps(document)


def pyproject(kind: str, *, name: str | None = None, capability: str = "c") -> str:
    project = f'[project]\nname = "{name}"\n' if name else ""
    return f'{project}[tool.rawr]\nkind = "{kind}"\ncapability = "{capability}"\n'


def ids(root: Path) -> list[str]:
    return [plugin.plugin_id for plugin in discover(root).plugins]


def fault(root: Path) -> str:
    found = discover(root)
    assert found.plugins == ()
    (only,) = found.faults
    return only.message


def test_plugins_of_all_five_roots_are_found_and_sorted_by_id(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/cli/tool/package.json": package("toolkit", name="@x/zeta"),
            "plugins/agents/bot/pyproject.toml": pyproject("agent"),
            "plugins/web/page/package.json": package("web", name="beta"),
            "plugins/api/rest/pyproject.toml": pyproject("api", name="alpha"),
            "plugins/workflows/flow/pyproject.toml": pyproject("workflows"),
        },
    )
    found = discover(root)
    assert found.faults == ()
    assert [(plugin.plugin_id, plugin.dir_name, plugin.root) for plugin in found.plugins] == [
        ("@x/zeta", "tool", "cli"),
        ("alpha", "rest", "api"),
        ("beta", "page", "web"),
        ("bot", "bot", "agents"),
        ("flow", "flow", "workflows"),
    ]


def test_an_instance_without_plugins_has_none(tmp_path: Path) -> None:
    assert discover(tmp_path).plugins == ()
    (tmp_path / "plugins").write_text("a file")
    assert discover(tmp_path) == discover(tmp_path / "missing")


def test_dot_folders_files_and_folders_without_a_manifest_are_no_plugins(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/web/.hidden/package.json": package("web"),
            "plugins/web/notes/README.md": "nothing",
            "plugins/web/file.json": "{}",
        },
    )
    assert discover(root).plugins == ()
    assert discover(root).faults == ()


BAD = {
    "not JSON": ("package.json", "{", "it cannot be read: "),
    "a list": ("package.json", "[]", "manifest must be a JSON object"),
    "no rawr": ("package.json", '{"name": "x"}', "required rawr object is missing"),
    "too deep": ("package.json", "[" * 200_000, "it cannot be read: "),
    "not TOML": ("pyproject.toml", "[tool", "it cannot be read: "),
    "no section": ("pyproject.toml", "[project]\nname = 'x'\n", "required rawr object is missing"),
    "strange tool": ("pyproject.toml", "tool = 3\n", "required rawr object is missing"),
    "legacy": ("package.json", package("web", channel="A"), "forbidden rawr.channel is present"),
    "too large": ("package.json", '{"x": "' + "x" * (1 << 20) + '"}', "it is larger than 1048576 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_is_a_fault_with_its_path_and_leaves_the_others_alone(tmp_path: Path, case: str) -> None:
    file, text, why = BAD[case]
    root = make_instance(
        tmp_path, files={f"plugins/web/bad/{file}": text, "plugins/web/good/package.json": package("web")}
    )
    found = discover(root)
    assert [plugin.plugin_id for plugin in found.plugins] == ["good"]
    (only,) = found.faults
    assert only.path == root / "plugins/web/bad"
    assert only.code == "PLUGIN_MANIFEST_INVALID"
    assert only.message.startswith(f"Plugin manifest contract violation at {only.path / file}: {why}")


def test_a_manifest_that_is_not_utf8_or_no_file_is_a_fault(tmp_path: Path) -> None:
    root = make_instance(tmp_path)
    for name in ("bytes", "folder", "pipe"):
        (root / "plugins/web" / name).mkdir(parents=True)
    (root / "plugins/web/bytes/pyproject.toml").write_bytes(b"\xff\xfe")
    (root / "plugins/web/folder/package.json").mkdir()
    os.mkfifo(root / "plugins/web/pipe/package.json")
    found = discover(root)
    assert found.plugins == ()
    assert [fault.path.name for fault in found.faults] == ["bytes", "folder", "pipe"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_root_that_may_not_be_listed_is_a_fault(tmp_path: Path) -> None:
    root = make_instance(tmp_path, files={"plugins/cli/tool/package.json": package("toolkit")})
    (root / "plugins/web").mkdir()
    (root / "plugins/web").chmod(0)
    try:
        found = discover(root)
    finally:
        (root / "plugins/web").chmod(0o755)
    assert [plugin.plugin_id for plugin in found.plugins] == ["tool"]
    assert [fault.path for fault in found.faults] == [root / "plugins/web"]


def test_two_manifests_that_agree_are_one_plugin(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/web/both/package.json": package("web", name="both"),
            "plugins/web/both/pyproject.toml": pyproject("web", name="both"),
        },
    )
    assert ids(root) == ["both"]


def test_of_two_manifests_the_one_that_speaks_of_rawr_counts(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/web/one/package.json": package("web", name="mine"),
            "plugins/web/one/pyproject.toml": "[project]\nname = 'something-else'\n",
        },
    )
    assert ids(root) == ["mine"]


@pytest.mark.parametrize(
    ("in_package", "in_pyproject", "why"),
    [
        (package("web"), pyproject("web", capability="d"), "pyproject.toml and package.json disagree about rawr"),
        (
            package("web", name="a"),
            pyproject("web", name="b"),
            "pyproject.toml and package.json name it a and b",
        ),
        ("{}", "[project]\nname = 'x'\n", "required rawr object is missing"),
    ],
)
def test_two_manifests_that_disagree_are_a_fault(tmp_path: Path, in_package: str, in_pyproject: str, why: str) -> None:
    root = make_instance(
        tmp_path, files={"plugins/web/x/package.json": in_package, "plugins/web/x/pyproject.toml": in_pyproject}
    )
    assert fault(root).endswith(f": {why}")


def test_a_link_out_of_the_workspace_is_refused_and_one_within_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "package.json").write_text(package("web"))
    root = make_instance(tmp_path / "instance", files={"shared/page/package.json": package("web", name="inside")})
    (root / "plugins/web").mkdir()
    (root / "plugins/web/out").symlink_to(outside)
    (root / "plugins/web/in").symlink_to(root / "shared/page")
    (root / "plugins/web/loop").symlink_to("loop")
    (root / "plugins/web/gone").symlink_to("nowhere")
    found = discover(root)
    assert [plugin.plugin_id for plugin in found.plugins] == ["inside"]
    assert [fault.path.name for fault in found.faults] == ["out"]
    assert "it is a link out of the workspace" in found.faults[0].message


def test_of_two_plugins_with_one_id_the_second_is_a_fault_that_names_both(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/web/a/package.json": package("web", name="same"),
            "plugins/web/b/package.json": package("web", name="same"),
        },
    )
    found = discover(root)
    assert [plugin.dir_name for plugin in found.plugins] == ["a"]
    (only,) = found.faults
    assert only.code == "PLUGIN_ID_DUPLICATE"
    assert only.message == f"plugin id same is used by {root / 'plugins/web/a'} and {root / 'plugins/web/b'}"


def test_an_id_is_looked_up_before_a_folder_name(tmp_path: Path) -> None:
    root = make_instance(
        tmp_path,
        files={
            "plugins/web/one/package.json": package("web", name="two"),
            "plugins/web/two/package.json": package("web", name="three"),
        },
    )
    found = discover(root)
    by_id, by_folder = found.find("two"), found.find("one")
    assert by_id is not None
    assert by_id.dir_name == "one"
    assert by_folder == by_id
    assert found.find("four") is None


def test_the_plugins_of_this_repository_keep_the_contract() -> None:
    found = discover(Path(__file__).resolve().parents[3])
    assert found.faults == ()
    assert {"briefing", "pulse"} <= {plugin.plugin_id for plugin in found.plugins}
