"""Imports workflows plugins: their desk handlers, finished hooks and workflows. A plugin that fails fails alone.

Only plugins of kind `workflows` are ever imported. A module gets a name of its own per instance and plugin, so
two instances in one process do not meet.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

import msgspec

from rawr.coordination.model import Workflow
from rawr.errors import RawrError
from rawr.plugins.authoring import FINISHED_MARK, HANDLER_MARK, FinishedMark
from rawr.plugins.content import content_hash
from rawr.workspace.discovery import Plugin

DEFAULT_ENTRY: Final = "plugin.py"
LOADS_MAX: Final = 3
Handler: TypeAlias = Callable[[Any, Any], Any]
"""`handler(received, ctx)`; its exact contract is the engine's business."""


class PluginLoadError(RawrError):
    code = "PLUGIN_LOAD_FAILED"


class LoadedHook(msgspec.Struct, frozen=True, kw_only=True):
    mark: FinishedMark
    call: Handler
    """`hook(run, fx)`."""


class LoadedPlugin(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    """`<plugin id>@<hash of its content>`, of what was imported."""
    handlers: dict[str, Handler]
    workflows: tuple[Workflow, ...]
    finished_hooks: tuple[LoadedHook, ...] = ()


def load_workflows_plugin(instance_root: Path, plugin: Plugin) -> LoadedPlugin:
    """Import the plugin's entry and collect what it offers.

    Raises:
        PluginLoadError: the entry is missing, leads out of the plugin, raises, or offers something unusable.
        PluginContentError: its files cannot be read.
    """
    module, content = _steadily_imported(instance_root, plugin)
    return LoadedPlugin(
        code=f"{plugin.plugin_id}@{content}",
        handlers=_handlers(module, plugin),
        workflows=_workflows(module, plugin),
        finished_hooks=_finished_hooks(module, plugin),
    )


def _steadily_imported(instance_root: Path, plugin: Plugin) -> tuple[ModuleType, str]:
    """The module, and the hash of the content that it was imported from: nothing changed while that was done."""
    entry = _entry(plugin)
    for _ in range(LOADS_MAX):
        content = content_hash(plugin.path)
        module = _imported_entry(instance_root, plugin, entry)
        if content_hash(plugin.path) == content:
            return module, content
    raise PluginLoadError(
        f"the files of {plugin.plugin_id} changed {LOADS_MAX} times while it was imported",
        fix="let it keep what it writes outside of its own folder, or in a hidden folder there",
    )


def _imported_entry(instance_root: Path, plugin: Plugin, entry: Path) -> ModuleType:
    name = _module_name(instance_root, plugin)
    _forget(name)
    try:
        return _imported(name, entry)
    except (Exception, SystemExit) as error:  # whatever a plugin does, the host and the others go on
        _forget(name)
        raise PluginLoadError(
            f"{entry} cannot be imported: {type(error).__name__}: {error}{_where(error, plugin.path)}",
            details={"plugin": plugin.plugin_id, "entry": str(entry)},
        ) from error


def _is_inside(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (RuntimeError, OSError):  # a loop of links
        return False


def _entry(plugin: Plugin) -> Path:
    stated = plugin.metadata.entry or DEFAULT_ENTRY
    path = plugin.path / stated
    path = path / "__init__.py" if os.path.isdir(path) else path
    if not _is_inside(path, plugin.path):
        raise PluginLoadError(
            f"entry {stated} of {plugin.plugin_id} leads out of {plugin.path}",
            details={"plugin": plugin.plugin_id, "entry": stated},
        )
    if not path.is_file():
        raise PluginLoadError(
            f"{plugin.plugin_id} has no {path.relative_to(plugin.path)}",
            fix=f"add it to {plugin.path}, or name another file or package by rawr.entry",
        )
    return path


def _module_name(instance_root: Path, plugin: Plugin) -> str:
    """Unlike that of any other plugin of any instance: folder names are kept apart by a hash of the whole path."""
    place = hashlib.sha256(os.fsencode(f"{instance_root.resolve()}\0{plugin.root}/{plugin.dir_name}")).hexdigest()[:16]
    readable = "".join(char if char.isascii() and char.isalnum() else "_" for char in plugin.dir_name)
    return f"rawr_plugin_{readable}_{place}"


def _imported(name: str, entry: Path) -> ModuleType:
    package = [str(entry.parent)] if entry.name == "__init__.py" else None
    loader = _FromSource(name, str(entry))
    spec = importlib.util.spec_from_file_location(name, entry, loader=loader, submodule_search_locations=package)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # relative imports inside the plugin look here
    spec.loader.exec_module(module)
    return module


class _FromSource(importlib.machinery.SourceFileLoader):
    """Reads the source itself: compiled code in a cache may be of an edit before, made in the same second."""

    def path_stats(self, path: str) -> Mapping[str, Any]:
        raise OSError(f"{path} is not cached")


def _forget(name: str) -> None:
    for known in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[known]


def _handlers(module: ModuleType, plugin: Plugin) -> dict[str, Handler]:
    handlers: dict[str, Handler] = {}
    for value in vars(module).values():
        name = _marked_name(value)
        if name is None:
            continue
        if name in handlers and handlers[name] is not value:
            raise PluginLoadError(f"{plugin.plugin_id} has two desk handlers called {name}")
        handlers[name] = value
    return handlers


def _marked_name(value: Any) -> str | None:
    name = _mark(value, HANDLER_MARK)
    return name if isinstance(name, str) else None


def _finished_hooks(module: ModuleType, plugin: Plugin) -> tuple[LoadedHook, ...]:
    hooks: dict[str, LoadedHook] = {}
    for value in vars(module).values():
        mark = _mark(value, FINISHED_MARK)
        if not isinstance(mark, FinishedMark):
            continue
        if mark.name in hooks and hooks[mark.name].call is not value:
            raise PluginLoadError(f"{plugin.plugin_id} has two finished hooks called {mark.name}")
        hooks[mark.name] = LoadedHook(mark=mark, call=value)
    return tuple(hooks.values())


def _mark(value: Any, name: str) -> object:
    try:
        return getattr(value, name, None) if callable(value) else None
    # A module may hold objects that raise whatever is asked of them.
    except Exception:  # noqa: BLE001
        return None


def _workflows(module: ModuleType, plugin: Plugin) -> tuple[Workflow, ...]:
    offered = getattr(module, "workflows", ())
    if not isinstance(offered, list | tuple) or not all(isinstance(one, Workflow) for one in offered):
        raise PluginLoadError(f"`workflows` of {plugin.plugin_id} must be a tuple of Workflow values")
    ids = [workflow.workflow_id for workflow in offered]
    if repeated := sorted({known for known in ids if ids.count(known) > 1}):
        raise PluginLoadError(f"{plugin.plugin_id} has two workflows called {repeated[0]}")
    return tuple(offered)


def _where(error: BaseException, folder: Path) -> str:
    """` (file:line)` of the innermost frame in the plugin's own folder."""
    place = ""
    trace = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file.startswith(str(folder)):
            place = f" ({file}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
