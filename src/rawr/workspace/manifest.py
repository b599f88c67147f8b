"""The contract of a plugin's own metadata. Pure; the wording of the errors is part of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from rawr.errors import RawrError


class PluginKind(StrEnum):
    TOOLKIT = "toolkit"
    AGENT = "agent"
    WEB = "web"
    API = "api"
    WORKFLOWS = "workflows"


KIND_OF_ROOT: Final[Mapping[str, PluginKind]] = {
    "cli": PluginKind.TOOLKIT,
    "agents": PluginKind.AGENT,
    "web": PluginKind.WEB,
    "api": PluginKind.API,
    "workflows": PluginKind.WORKFLOWS,
}
"""The folders below `plugins/` and the kind that each may hold."""

FORBIDDEN_KEYS: Final = ("templateRole", "channel", "publishTier", "published")
"""They once gave plugins meaning from metadata. Meaning comes from root, kind, capability and registration."""


class ManifestError(RawrError):
    code = "PLUGIN_MANIFEST_INVALID"

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"Plugin manifest contract violation at {path}: {why}", details={"path": path})


class PluginMetadata(msgspec.Struct, frozen=True, kw_only=True):
    kind: PluginKind
    capability: str
    entry: str | None = None
    """Where a workflows plugin's code is, relative to the plugin; None for the default."""


def parse_metadata(section: Any, *, path: str, root: str) -> PluginMetadata:
    """The metadata in `section`, the `rawr` object of a manifest at `path` below `plugins/<root>`.

    Raises:
        ManifestError: the first violation found.
    """
    if not isinstance(section, dict):
        raise ManifestError(path, "required rawr object is missing")
    for key in FORBIDDEN_KEYS:
        if key in section:
            raise ManifestError(path, f"forbidden rawr.{key} is present")
    kind = _kind(section, path, root)
    capability = section.get("capability")
    if not isinstance(capability, str) or not capability.strip():
        raise ManifestError(path, "required rawr.capability is missing")
    entry = section.get("entry")
    if entry is not None and (not isinstance(entry, str) or not entry.strip()):
        raise ManifestError(path, "rawr.entry must be the path of a file or package in the plugin")
    return PluginMetadata(kind=kind, capability=capability.strip(), entry=entry)


def _kind(section: dict[str, Any], path: str, root: str) -> PluginKind:
    stated = section.get("kind")
    if stated is None or stated == "":
        raise ManifestError(path, "required rawr.kind is missing")
    if not isinstance(stated, str) or stated not in set(PluginKind):
        raise ManifestError(path, f'invalid rawr.kind "{stated}"')
    expected = KIND_OF_ROOT[root]
    if stated != expected:
        raise ManifestError(path, f'rawr.kind must be "{expected.value}" for plugins/{root}/*')
    return expected
