"""Finds the plugins of an instance by their manifests. Reads text; never imports or runs a plugin."""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from rawr.errors import RawrError
from rawr.ids import PluginId
from rawr.workspace.manifest import KIND_OF_ROOT, ManifestError, PluginKind, PluginMetadata, parse_metadata

MANIFEST_BYTES_MAX: Final = 1 << 20


class Plugin(msgspec.Struct, frozen=True, kw_only=True):
    plugin_id: PluginId
    """The package's name, or the folder's when it has none."""
    dir_name: str
    root: str
    path: Path
    metadata: PluginMetadata

    @property
    def kind(self) -> PluginKind:
        return self.metadata.kind


class ManifestFault(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin folder whose manifest cannot be used. The others are not affected."""

    path: Path
    code: str
    message: str


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    plugins: tuple[Plugin, ...]
    """By id."""
    faults: tuple[ManifestFault, ...]
    """By path."""

    def find(self, name: str) -> Plugin | None:
        """The plugin with that exact id, or else in a folder of that name."""
        by_id = next((plugin for plugin in self.plugins if plugin.plugin_id == name), None)
        return by_id or next((plugin for plugin in self.plugins if plugin.dir_name == name), None)


def discover(root: Path) -> Discovery:
    """All plugins below `<root>/plugins`. A missing root folder is an empty one."""
    plugins: list[Plugin] = []
    faults: list[ManifestFault] = []
    for plugin_root, folder in _folders(root, faults):
        try:
            found = _plugin(root, plugin_root, folder)
        except RawrError as error:
            faults.append(ManifestFault(path=folder, code=error.code, message=error.message))
        else:
            if found is not None:
                plugins.append(found)
    kept, repeated = _without_repetition(sorted(plugins, key=lambda plugin: (plugin.plugin_id, plugin.path)))
    return Discovery(plugins=tuple(kept), faults=tuple(sorted([*faults, *repeated], key=lambda fault: fault.path)))


def _folders(root: Path, faults: list[ManifestFault]) -> Iterator[tuple[str, Path]]:
    """`(root folder, plugin folder)` of all that may be plugins. A root that cannot be listed is a fault."""
    for plugin_root in KIND_OF_ROOT:
        place = root / "plugins" / plugin_root
        try:
            entries = sorted(place.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            fault = ManifestError(str(place), f"it cannot be read: {error.strerror}")
            faults.append(ManifestFault(path=place, code=fault.code, message=fault.message))
            continue
        for folder in entries:
            if not folder.name.startswith(".") and os.path.isdir(folder):
                yield plugin_root, folder


def _plugin(root: Path, plugin_root: str, folder: Path) -> Plugin | None:
    real = folder.resolve()
    if not real.is_relative_to(root.resolve()):
        raise ManifestError(str(folder), f"it is a link out of the workspace, to {real}")
    manifests = [found for found in (_pyproject(folder), _package(folder)) if found is not None]
    if not manifests:
        return None
    # Of two files the one that says nothing about rawr is not the manifest; when neither does, that is a fault.
    declared = [found for found in manifests if found[2] is not None] or manifests[:1]
    parsed = [(name, parse_metadata(section, path=str(path), root=plugin_root)) for path, name, section in declared]
    if any(metadata != parsed[0][1] for _, metadata in parsed):
        raise ManifestError(str(folder), "pyproject.toml and package.json disagree about rawr")
    names = {name for name, _ in parsed if name}
    if len(names) > 1:
        raise ManifestError(str(folder), f"pyproject.toml and package.json name it {' and '.join(sorted(names))}")
    name = next((name for name, _ in parsed if name), folder.name)
    return Plugin(plugin_id=PluginId(name), dir_name=folder.name, root=plugin_root, path=folder, metadata=parsed[0][1])


def _pyproject(folder: Path) -> tuple[Path, str | None, Any] | None:
    """`(path, name, rawr section)`; None when there is no such file."""
    path = folder / "pyproject.toml"
    raw = _read(path)
    if raw is None:
        return None
    try:
        document = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(str(path), f"it cannot be read: {error}") from error
    tools, project = document.get("tool"), document.get("project")
    section = tools.get("rawr") if isinstance(tools, dict) else None
    return path, _name(project), section


def _package(folder: Path) -> tuple[Path, str | None, Any] | None:
    path = folder / "package.json"
    raw = _read(path)
    if raw is None:
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ManifestError(str(path), f"it cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise ManifestError(str(path), "manifest must be a JSON object")
    return path, _name(document), document.get("rawr")


def _read(path: Path) -> bytes | None:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for a writer
            raise ManifestError(str(path), "it is no file")
        with path.open("rb") as file:
            raw = file.read(MANIFEST_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(str(path), f"it cannot be read: {error.strerror}") from error
    if len(raw) > MANIFEST_BYTES_MAX:
        raise ManifestError(str(path), f"it is larger than {MANIFEST_BYTES_MAX} bytes")
    return raw


def _name(section: Any) -> str | None:
    name = section.get("name") if isinstance(section, dict) else None
    return name.strip() or None if isinstance(name, str) else None


def _without_repetition(plugins: list[Plugin]) -> tuple[list[Plugin], list[ManifestFault]]:
    """Of plugins with one id the first stays; the others are faults that name both."""
    kept: dict[str, Plugin] = {}
    repeated = []
    for plugin in plugins:
        first = kept.setdefault(plugin.plugin_id, plugin)
        if first is not plugin:
            message = f"plugin id {plugin.plugin_id} is used by {first.path} and {plugin.path}"
            repeated.append(ManifestFault(path=plugin.path, code="PLUGIN_ID_DUPLICATE", message=message))
    return list(kept.values()), repeated
