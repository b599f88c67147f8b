"""Enabling and disabling plugins: resolve, the kind must be web, store.

Enabling is first-party trust: an enabled module runs in the console with the person's authority. Nothing of a
plugin is imported or run here.
"""

from __future__ import annotations

from pathlib import Path

from rawr.errors import RawrError
from rawr.ids import PluginId
from rawr.state.model import RepoState
from rawr.state.store import RepoStateStore
from rawr.workspace.discovery import Discovery, Plugin, discover
from rawr.workspace.manifest import PluginKind


class PluginNotFoundError(RawrError):
    code = "PLUGIN_NOT_FOUND"


class PluginKindMismatchError(RawrError):
    code = "PLUGIN_KIND_MISMATCH"


def enable(root: Path, store: RepoStateStore, name: str) -> tuple[Plugin, RepoState]:
    """Enable the web plugin with that id or folder name; durable on return.

    Raises:
        PluginNotFoundError, PluginKindMismatchError, and what the store raises.
    """
    plugin = plugin_to_enable(root, name)
    return plugin, store.enable(plugin.plugin_id)


def plugin_to_enable(root: Path, name: str) -> Plugin:
    """The plugin that `enable` would enable; raises as it does, and changes nothing."""
    plugin = _known(discover(root), name)
    if plugin.kind is not PluginKind.WEB:
        raise PluginKindMismatchError(
            f"{plugin.plugin_id} is a {plugin.kind.value} plugin; only web plugins are enabled and disabled",
            details={"pluginId": plugin.plugin_id, "kind": plugin.kind.value},
        )
    return plugin


def disable(root: Path, store: RepoStateStore, name: str) -> tuple[PluginId, RepoState]:
    """Disable a plugin of any kind. One that is enabled and no longer there can be disabled by its exact id."""
    found = discover(root)
    if found.find(name) is None and name in store.get().plugins.enabled:
        return PluginId(name), store.disable(PluginId(name))
    plugin = _known(found, name)
    return plugin.plugin_id, store.disable(plugin.plugin_id)


def _known(found: Discovery, name: str) -> Plugin:
    plugin = found.find(name)
    if plugin is None:
        known = [known.plugin_id for known in found.plugins]
        broken = next((fault.message for fault in found.faults if fault.path.name == name), None)
        raise PluginNotFoundError(
            broken or f"there is no plugin {name}",
            details={"pluginId": name, "knownPluginIds": known},
            fix="rawr plugins web list",
        )
    return plugin
