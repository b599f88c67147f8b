"""The manifest of an HQ: the value that says what an instance is made of, and the default composition.

`rawr_hq.py` in an instance returns a `Manifest`; the host mounts what it holds and composes nothing itself.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final

import msgspec

from rawr.coordination.model import Workflow
from rawr.errors import RawrError
from rawr.execution.ports import DeskHandler, DurableFunction, FinishedHook
from rawr.execution.program import coordination_runner
from rawr.plugins.loader import load_workflows_plugin
from rawr.plugins.status import module_of
from rawr.procedures.catalog import PROCEDURES, STREAMS
from rawr.procedures.contract import Capability, Procedure, StreamProcedure
from rawr.procedures.coordination import COORDINATION_PROCEDURES
from rawr.workspace.discovery import Plugin, discover
from rawr.workspace.manifest import PluginKind
from rawr.workspace.root import MARKER

CAPABILITY: Final = "coordination"
_FIX: Final = "define: def manifest(root: Path) -> Manifest: return rawr.hq.compose(root)"


class WebMount(msgspec.Struct, frozen=True, kw_only=True):
    """A web plugin whose module the host serves while the plugin is enabled."""

    plugin_id: str
    dir_name: str
    module_path: Path


class PluginFault(msgspec.Struct, frozen=True, kw_only=True):
    """A plugin that could not be composed. It is reported and leaves the others alone."""

    path: str
    code: str
    message: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    procedures: tuple[Procedure, ...]
    capabilities: tuple[Capability, ...]
    functions: tuple[DurableFunction, ...]
    desk_handlers: Mapping[str, DeskHandler]
    workflows: tuple[Workflow, ...]
    """Workflows that plugins ship; saved when the host starts."""
    web_mounts: tuple[WebMount, ...]
    finished_hooks: tuple[FinishedHook, ...] = ()
    faults: tuple[PluginFault, ...] = ()
    streams: tuple[StreamProcedure, ...] = ()
    """Procedures that answer with values as they come; on `/rpc` only."""
    handler_code: Mapping[str, str] = {}
    """The code that each desk handler of a plugin is from: `<plugin id>@<hash>`."""
    own_code: str | None = None
    """The code of `rawr_hq.py`, where what no plugin brings is from; `load_manifest` fills it in."""


class ManifestLoadError(RawrError):
    """`rawr_hq.py` is missing, raises, or does not give a manifest."""

    code = "MANIFEST_LOAD_FAILED"


def compose(root: Path) -> Manifest:
    """The default composition: the published procedures, the coordination capability and its runner, and what
    the plugins of the instance at `root` bring.

    Workflows plugins are imported; of web plugins only the place of the module is noted. A plugin that cannot
    be used becomes a fault and leaves the others alone.
    """
    found = discover(root)
    parts = _Parts()
    for plugin in found.plugins:
        try:
            parts.add(plugin, _brought_by(root, plugin))
        except RawrError as error:
            parts.faults.append(PluginFault(path=str(plugin.path), code=error.code, message=error.message))
    manifest_faults = (
        PluginFault(path=str(fault.path), code=fault.code, message=fault.message) for fault in found.faults
    )
    return Manifest(
        procedures=PROCEDURES,
        capabilities=default_capabilities(),
        functions=(coordination_runner(),),
        desk_handlers=parts.handlers,
        workflows=tuple(parts.workflows),
        web_mounts=tuple(parts.web_mounts),
        finished_hooks=tuple(parts.finished_hooks),
        faults=(*manifest_faults, *parts.faults),
        streams=STREAMS,
        handler_code=parts.handler_code,
    )


def default_capabilities() -> tuple[Capability, ...]:
    """The workflow boundaries that every HQ has."""
    return (Capability(name=CAPABILITY, path_prefix=f"/{CAPABILITY}", procedures=COORDINATION_PROCEDURES),)


def load_manifest(root: Path) -> Manifest:
    """What the `manifest(root)` of the instance's `rawr_hq.py` gives.

    Raises:
        ManifestLoadError: naming the file, and the line when there is one.
    """
    path = root / MARKER
    if not path.is_file():
        raise ManifestLoadError(
            f"{path} is missing", details={"path": str(path)}, fix="make an instance with: rawr init DIR"
        )
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        given = _manifest_function(path)(root)
    except ManifestLoadError:
        raise
    except (Exception, SystemExit) as error:
        raise ManifestLoadError(_explained(path, error), details={"path": str(path)}) from error
    if not isinstance(given, Manifest):
        raise ManifestLoadError(
            f"{path}: manifest(root) gave {type(given).__name__} instead of a Manifest",
            details={"path": str(path)},
            fix=_FIX,
        )
    if problems := list(_problems(given)):
        raise ManifestLoadError(f"{path}: {'; '.join(problems)}", details={"path": str(path)})
    return msgspec.structs.replace(given, own_code=f"{MARKER}@{content}")


class PluginNameClashError(RawrError):
    """Two plugins, or a plugin and rawr itself, want one name. The second is left out."""

    code = "PLUGIN_NAME_CLASH"


class _Brought(msgspec.Struct, frozen=True, kw_only=True):
    """What one plugin brings to the manifest."""

    handlers: Mapping[str, DeskHandler] = {}
    handler_code: Mapping[str, str] = {}
    workflows: tuple[Workflow, ...] = ()
    finished_hooks: tuple[FinishedHook, ...] = ()
    web_mount: WebMount | None = None


def _brought_by(root: Path, plugin: Plugin) -> _Brought:
    match plugin.kind:
        case PluginKind.WORKFLOWS:
            loaded = load_workflows_plugin(root, plugin)
            hooks = tuple(
                FinishedHook(name=hook.mark.name, workflow_id=hook.mark.workflow_id, call=hook.call)
                for hook in loaded.finished_hooks
            )
            return _Brought(
                handlers=loaded.handlers,
                handler_code=dict.fromkeys(loaded.handlers, loaded.code),
                workflows=loaded.workflows,
                finished_hooks=hooks,
            )
        case PluginKind.WEB:
            module = module_of(plugin)
            if module is None:
                return _Brought()
            mount = WebMount(plugin_id=plugin.plugin_id, dir_name=plugin.dir_name, module_path=module)
            return _Brought(web_mount=mount)
        case PluginKind.TOOLKIT | PluginKind.AGENT | PluginKind.API:
            return _Brought()  # recognised; they bring nothing to the host


class _Parts:
    """The growing composition, and who owns which name in it."""

    def __init__(self) -> None:
        self.handlers: dict[str, DeskHandler] = {}
        self.handler_code: dict[str, str] = {}
        self.workflows: list[Workflow] = []
        self.web_mounts: list[WebMount] = []
        self.finished_hooks: list[FinishedHook] = []
        self.faults: list[PluginFault] = []
        self._owners: dict[str, str] = {f"capability {CAPABILITY} of plugins/workflows": "rawr itself"}

    def add(self, plugin: Plugin, brought: _Brought) -> None:
        """All of what a plugin brings, or nothing of it.

        Raises:
            PluginNameClashError: naming both owners of a name.
        """
        names = list(_names(plugin, brought))
        for name in names:
            if name in self._owners:
                raise PluginNameClashError(
                    f"{name} belongs to {self._owners[name]} already; {plugin.plugin_id} was left out",
                    details={"name": name, "pluginIds": [self._owners[name], plugin.plugin_id]},
                )
        self._owners.update(dict.fromkeys(names, str(plugin.plugin_id)))
        self.handlers.update(brought.handlers)
        self.handler_code.update(brought.handler_code)
        self.workflows.extend(brought.workflows)
        self.finished_hooks.extend(brought.finished_hooks)
        if brought.web_mount is not None:
            self.web_mounts.append(brought.web_mount)


def _names(plugin: Plugin, brought: _Brought) -> Iterator[str]:
    """What only one plugin of an instance may own."""
    yield f"capability {plugin.metadata.capability} of plugins/{plugin.root}"
    yield from (f"desk handler {name}" for name in brought.handlers)
    yield from (f"finished hook {hook.name}" for hook in brought.finished_hooks)
    yield from (f"workflow {workflow.workflow_id}" for workflow in brought.workflows)


def _manifest_function(path: Path) -> Callable[[Path], object]:
    """The `manifest` of a `rawr_hq.py`, imported anew under a name of its own. Raises whatever the file raises."""
    place = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(f"rawr_hq_{place}", path)
    assert spec is not None
    module = _executed(spec)
    function: object = getattr(module, "manifest", None)
    if not callable(function):
        raise ManifestLoadError(f"{path} defines no function manifest(root)", details={"path": str(path)}, fix=_FIX)
    return function


def _executed(spec: ModuleSpec) -> ModuleType:
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and structs look their module up here
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _problems(manifest: Manifest) -> Iterator[str]:
    """Why a manifest that somebody wrote cannot be mounted."""
    declared = (*manifest.procedures, *manifest.streams)
    yield from _twice("procedure", (procedure.rpc_path for procedure in declared))
    yield from _twice("route", (f"{procedure.method} {procedure.path}" for procedure in manifest.procedures))
    yield from _twice("capability", (capability.name for capability in manifest.capabilities))
    yield from _twice("path prefix", (capability.path_prefix for capability in manifest.capabilities))
    yield from _twice("function", (function.function_id for function in manifest.functions))
    yield from _twice("workflow", (workflow.workflow_id for workflow in manifest.workflows))
    yield from _twice("finished hook", (hook.name for hook in manifest.finished_hooks))
    yield from _twice("web mount", (mount.dir_name for mount in manifest.web_mounts))
    for capability in manifest.capabilities:
        if not capability.path_prefix.startswith("/"):
            yield f"path prefix {capability.path_prefix} of capability {capability.name} must begin with /"
        for procedure in capability.procedures:
            if not f"{procedure.path}/".startswith(f"{capability.path_prefix}/"):
                yield f"procedure {procedure.rpc_path} is not below {capability.path_prefix} of {capability.name}"


def _twice(what: str, names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield f"{what} {name} is there twice"
        seen.add(name)


def _explained(path: Path, error: BaseException) -> str:
    """`<path>:<line>: <what>`, with the innermost line in that file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    where = f"{path}:{lines[-1]}" if lines else str(path)
    return f"{where}: {type(error).__name__}: {error}"
