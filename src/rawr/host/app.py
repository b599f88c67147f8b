"""The route families of one instance, mounted in the locked order: what the manifest holds and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from rawr.clock import Clock
from rawr.execution.ports import Ingress
from rawr.host import console, ingest, openapi, plugins_web, rpc, workflows
from rawr.host.access import AccessLog
from rawr.host.dispatch import FamilyDeps
from rawr.host.guard import Answer, Guard
from rawr.host.ingress import Mac
from rawr.host.plugins_web import EnabledPlugins
from rawr.host.request import Request
from rawr.host.responses import Response, json_response, text_response
from rawr.host.settings import HostSettings
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.procedures.markers import Dedupe

Readiness = Callable[[], Awaitable[str | None]]
"""What is still missing before calls can be served, or None when nothing is."""


class AppParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the app of one instance is made of, besides its manifest and settings."""

    instance_id: InstanceId
    base_url: str
    families: FamilyDeps
    ingress: Ingress
    signing_keys: tuple[str, ...]
    mac: Mac
    enabled_plugins: EnabledPlugins
    readiness: Readiness
    console: console.ConsoleParts
    clock: Clock


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    route: str
    """What the log says of a path below it, unless the family knows better."""
    covers: Callable[[str], bool]
    answer: Answer


def build_app(manifest: Manifest, settings: HostSettings, parts: AppParts, *, access_log: AccessLog) -> Guard:
    """The ASGI application. Its order of mounts is fixed: the families, web plugins, health, console."""
    return Guard(Router(mounts(manifest, settings, parts)), settings, clock=parts.clock, access_log=access_log)


def mounts(manifest: Manifest, settings: HostSettings, parts: AppParts) -> tuple[Mount, ...]:
    ingress = ingest.IngestFamily(
        parts.ingress,
        parts.families.authority,
        keys=parts.signing_keys,
        mac=parts.mac,
        clock=parts.clock,
        limits=settings.limits,
        base_url=parts.base_url,
    )
    health = _Health(parts.instance_id, parts.readiness)
    pages = console.ConsoleFamily(
        parts.console,
        manifest,
        authority=parts.families.authority,
        instance_id=parts.instance_id,
        enabled_plugins=parts.enabled_plugins,
        clock=parts.clock,
    )
    return (
        Mount(name="ingress", route=ingest.PATH, covers=_exactly(ingest.PATH), answer=ingress),
        Mount(
            name="workflows",
            route=f"{workflows.PREFIX}/*",
            covers=_below(workflows.PREFIX),
            answer=workflows.WorkflowsFamily(manifest.capabilities, parts.families, base_url=parts.base_url),
        ),
        Mount(
            name="rpc",
            route=f"{rpc.PREFIX}/*",
            covers=_at_or_below(rpc.PREFIX),
            answer=rpc.RpcFamily((*manifest.procedures, *manifest.streams), parts.families),
        ),
        Mount(
            name="orpc",
            route=f"{openapi.PREFIX}/*",
            covers=_at_or_below(openapi.PREFIX),
            answer=openapi.OpenApiFamily(manifest.procedures, parts.families, base_url=parts.base_url),
        ),
        Mount(
            name="web-plugin",
            route=f"{plugins_web.PREFIX}/*",
            covers=_below(plugins_web.PREFIX),
            answer=plugins_web.WebPluginFamily(manifest.web_mounts, parts.enabled_plugins),
        ),
        Mount(name="health", route="/health", covers=_exactly("/health"), answer=health.alive),
        Mount(name="ready", route="/ready", covers=_exactly("/ready"), answer=health.ready),
        Mount(name="console", route=f"{console.PREFIX}/*", covers=console.covers, answer=pages),
    )


_MOUNT: Final = Dedupe[Mount](key="app.mount")


class Router:
    """The first mount that covers the raw path answers; no mount gives the host's own 404."""

    def __init__(self, known: tuple[Mount, ...]) -> None:
        self._mounts = known

    def __call__(self, request: Request) -> Awaitable[Response]:
        marks = request.head.marks
        mount = marks.find(_MOUNT)
        if mount is None:
            mount = next((mount for mount in self._mounts if mount.covers(request.path)), None)
            if mount is None:
                return _nowhere()
            marks.keep(_MOUNT, mount)
        notes = request.notes
        notes.family, notes.route = mount.name, mount.route
        return mount.answer(request)


class _Health:
    def __init__(self, instance_id: InstanceId, readiness: Readiness) -> None:
        self._instance_id = instance_id
        self._readiness = readiness

    async def alive(self, request: Request) -> Response:
        if request.method not in _READS:
            return _no_such_path()
        return json_response({"ok": True, "instanceId": self._instance_id})

    async def ready(self, request: Request) -> Response:
        if request.method not in _READS:
            return _no_such_path()
        missing = await self._readiness()
        if missing is None:
            return json_response({"ok": True, "instanceId": self._instance_id})
        return json_response({"ok": False, "instanceId": self._instance_id, "reason": missing}, status=503)


_READS: Final = ("GET", "HEAD")


async def _nowhere() -> Response:
    return _no_such_path()


def _no_such_path() -> Response:
    return text_response(404, "NOT_FOUND")


def _exactly(path: str) -> Callable[[str], bool]:
    return lambda given: given in (path, f"{path}/")


def _below(prefix: str) -> Callable[[str], bool]:
    return lambda given: given.startswith(f"{prefix}/")


def _at_or_below(prefix: str) -> Callable[[str], bool]:
    return lambda given: given == prefix or given.startswith(f"{prefix}/")
