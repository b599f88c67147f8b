"""What the engine server needs to know before it starts, as one frozen value. Reads nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.execution.embedded.app_sync import checked_url
from rawr.host.settings import HostSettings, Limits

PORT: Final = 8288
DEV_WARNING: Final = (
    "DEV MODE: nothing is signed and nobody is asked for a key. Every program of this machine can send events, "
    "register apps and read what runs did."
)


class DevNotLocalError(BadInputError):
    code = "ENGINE_DEV_NOT_LOCAL"


class EngineServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str = "127.0.0.1"
    port: int = PORT
    data: Path
    """The folder of `engine.sqlite`. Two servers on one folder share its work."""
    event_keys: tuple[str, ...] = ()
    signing_keys: tuple[str, ...] = ()
    """The first signs; all are accepted. None at all: dev mode."""
    apps: tuple[str, ...] = ()
    """Addresses of apps that are asked for their functions; others register by themselves."""
    trusted_hosts: tuple[str, ...] = ()
    retention_ms: int | None = None
    retry_ms: int | None = None
    """Between two attempts; None for Inngest's own times."""
    limits: Limits = Limits()

    @property
    def is_dev(self) -> bool:
        return not self.signing_keys

    @property
    def kind(self) -> str:
        """What SDKs call it."""
        return "dev" if self.is_dev else "cloud"

    @property
    def http(self) -> HostSettings:
        """As the guard knows it."""
        hosts = (*self.trusted_hosts, *(() if self.is_dev else (self.host,)))
        return HostSettings(bind_host=self.host, port=self.port, trusted_hosts=hosts, limits=self.limits)

    def __repr__(self) -> str:
        return f"EngineServerSettings({self.data})"  # never a key into a log


def checked(settings: EngineServerSettings) -> EngineServerSettings:
    """`settings`, if they may be served.

    Raises:
        DevNotLocalError: without keys it may listen on this machine only.
        AppRefusedError: the address of an app is none that may be called.
    """
    if settings.is_dev and (settings.host not in ("127.0.0.1", "::1", "localhost") or settings.trusted_hosts):
        raise DevNotLocalError(
            f"--dev listens on this machine only, not on {settings.host}",
            fix="leave --host and --trusted-host out, or run it with keys",
        )
    for url in settings.apps:
        checked_url(url, only_loopback=settings.is_dev)
    return settings
