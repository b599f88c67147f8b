"""`GET /rawr/plugins/web/<dirName>`: the module of an enabled web plugin, as it is on disk now.

Whether a plugin is enabled is read for every request, so that enabling and disabling need no restart. A
disabled plugin, an unknown one and one without a module look the same from outside.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from rawr.host.request import Request
from rawr.host.responses import Response, not_found
from rawr.hq import WebMount

PREFIX: Final = "/rawr/plugins/web"

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]*\Z")

EnabledPlugins = Callable[[], Awaitable[frozenset[str]]]
"""The ids of the plugins that are enabled at this moment."""


class WebPluginFamily:
    def __init__(self, mounts: Iterable[WebMount], enabled: EnabledPlugins) -> None:
        self._mounts = {mount.dir_name: mount for mount in mounts}
        self._enabled = enabled

    async def __call__(self, request: Request) -> Response:
        name = request.path.removeprefix(f"{PREFIX}/")
        if request.method not in ("GET", "HEAD") or _NAME.match(name) is None:
            return not_found()
        request.notes.operation = name
        mount = self._mounts.get(name)
        if mount is None or not {mount.plugin_id, mount.dir_name} & await self._enabled():
            return not_found()
        try:
            module = await asyncio.to_thread(mount.module_path.read_bytes)
        except OSError:
            return not_found()
        return Response(
            status=200,
            content_type=b"text/javascript; charset=utf-8",
            body=module,
            headers=((b"cache-control", b"no-store"),),
        )
