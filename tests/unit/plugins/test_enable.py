"""Enabling and disabling web plugins."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rawr.plugins.enable import PluginKindMismatchError, PluginNotFoundError, disable, enable
from rawr.plugins.status import WebPluginRow, module_of, web_plugins
from rawr.state.store import RepoStateStore
from rawr.testing.clock import FakeClock
from rawr.testing.workspace import make_instance
from rawr.workspace.discovery import discover


def manifest(kind: str, name: str) -> str:
    return json.dumps({"name": name, "rawr": {"kind": kind, "capability": name}})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_instance(
        tmp_path,
        files={
            "plugins/web/page/package.json": manifest("web", "@x/page"),
            "plugins/web/page/dist/web.js": "export const mount = () => {};\n",
            "plugins/web/unbuilt/package.json": manifest("web", "unbuilt"),
            "plugins/cli/hello/package.json": manifest("toolkit", "hello"),
            "plugins/web/broken/package.json": "{",
        },
    )


@pytest.fixture
def store(root: Path) -> RepoStateStore:
    return RepoStateStore(root, FakeClock())


@pytest.mark.parametrize("name", ["@x/page", "page"])
def test_a_web_plugin_is_enabled_by_its_id_or_its_folder_and_stored_by_its_id(
    root: Path, store: RepoStateStore, name: str
) -> None:
    plugin, state = enable(root, store, name)
    assert plugin.plugin_id == "@x/page"
    assert state.plugins.enabled == ("@x/page",)
    assert store.get() == state
    plugin_id, state = disable(root, store, name)
    assert plugin_id == "@x/page"
    assert state.plugins.enabled == ()


def test_a_plugin_of_another_kind_is_not_enabled(root: Path, store: RepoStateStore) -> None:
    with pytest.raises(PluginKindMismatchError) as raised:
        enable(root, store, "hello")
    assert raised.value.code == "PLUGIN_KIND_MISMATCH"
    assert raised.value.details == {"pluginId": "hello", "kind": "toolkit"}
    assert not store.path.exists()


@pytest.mark.parametrize("change", [enable, disable])
def test_an_unknown_plugin_is_an_error_that_lists_the_known_ones(
    root: Path, store: RepoStateStore, change: Callable[[Path, RepoStateStore, str], object]
) -> None:
    with pytest.raises(PluginNotFoundError) as raised:
        change(root, store, "nope")
    assert raised.value.code == "PLUGIN_NOT_FOUND"
    assert raised.value.details == {"pluginId": "nope", "knownPluginIds": ["@x/page", "hello", "unbuilt"]}
    assert not store.path.exists()


def test_a_plugin_with_a_bad_manifest_says_what_is_wrong_with_it(root: Path, store: RepoStateStore) -> None:
    with pytest.raises(PluginNotFoundError, match="Plugin manifest contract violation at "):
        enable(root, store, "broken")


def test_a_plugin_that_is_gone_can_still_be_disabled(root: Path, store: RepoStateStore) -> None:
    store.enable("gone")
    assert disable(root, store, "gone")[1].plugins.enabled == ()


def test_the_list_says_what_is_enabled_and_built_and_what_was_left_out(root: Path, store: RepoStateStore) -> None:
    enable(root, store, "page")
    listed = web_plugins(root, store)
    assert listed.plugins == (
        WebPluginRow(
            id="@x/page",
            dir_name="page",
            capability="@x/page",
            enabled=True,
            module="dist/web.js",
            path=str(root / "plugins/web/page"),
        ),
        WebPluginRow(
            id="unbuilt",
            dir_name="unbuilt",
            capability="unbuilt",
            enabled=False,
            module=None,
            path=str(root / "plugins/web/unbuilt"),
        ),
    )
    assert listed.excluded_count == 1
    assert len(listed.faults) == 1


@pytest.mark.parametrize(
    ("present", "served"),
    [
        (["dist/web.js", "dist/src/web.js"], "dist/web.js"),
        (["dist/web/index.js", "dist/src/web.js"], "dist/src/web.js"),
        (["dist/src/web/index.js", "dist/web/index.js"], "dist/web/index.js"),
        (["dist/src/web/index.js"], "dist/src/web/index.js"),
        (["web.js"], None),
    ],
)
def test_the_first_module_that_exists_is_served(root: Path, present: list[str], served: str | None) -> None:
    folder = root / "plugins/web/unbuilt"
    for name in present:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    plugin = discover(root).find("unbuilt")
    assert plugin is not None
    assert module_of(plugin) == (None if served is None else folder / served)


def test_a_module_that_leads_out_of_the_plugin_is_not_served(root: Path) -> None:
    (root / "secret.js").write_text("secret")
    (root / "plugins/web/unbuilt/dist").mkdir()
    (root / "plugins/web/unbuilt/dist/web.js").symlink_to(root / "secret.js")
    plugin = discover(root).find("unbuilt")
    assert plugin is not None
    assert module_of(plugin) is None
