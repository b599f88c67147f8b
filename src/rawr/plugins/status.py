"""Which web plugins an instance has, and what about each: enabled or not, and where its module is.

Never imports or runs anything of a plugin.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from rawr.state.store import RepoStateStore
from rawr.workspace.discovery import Plugin, discover
from rawr.workspace.manifest import PluginKind

MODULE_CANDIDATES: Final = ("dist/web.js", "dist/src/web.js", "dist/web/index.js", "dist/src/web/index.js")


class WebPluginRow(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    id: str
    dir_name: str
    capability: str
    enabled: bool
    module: str | None
    """Relative path of the module that is served, None when it is missing (not built)."""
    path: str


class WebPluginList(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    workspace_root: str
    plugins: tuple[WebPluginRow, ...]
    excluded_count: int
    """Plugins of other kinds."""
    faults: tuple[str, ...] = ()


def web_plugins(root: Path, store: RepoStateStore) -> WebPluginList:
    """All web plugins of the instance, by id."""
    found = discover(root)
    enabled: set[str] = set(store.get().plugins.enabled)
    rows = tuple(_row(plugin, enabled) for plugin in found.plugins if plugin.kind is PluginKind.WEB)
    return WebPluginList(
        workspace_root=str(root),
        plugins=rows,
        excluded_count=len(found.plugins) - len(rows),
        faults=tuple(fault.message for fault in found.faults),
    )


def module_of(plugin: Plugin) -> Path | None:
    """The module that is served for a web plugin: the first candidate that exists inside its folder."""
    for candidate in MODULE_CANDIDATES:
        path = plugin.path / candidate
        if os.path.isfile(path) and path.resolve().is_relative_to(plugin.path.resolve()):
            return path
    return None


def _row(plugin: Plugin, enabled: set[str]) -> WebPluginRow:
    module = module_of(plugin)
    return WebPluginRow(
        id=plugin.plugin_id,
        dir_name=plugin.dir_name,
        capability=plugin.metadata.capability,
        enabled=bool({plugin.plugin_id, plugin.dir_name} & enabled),
        module=None if module is None else str(module.relative_to(plugin.path)),
        path=str(plugin.path),
    )
