"""From the configuration of an instance to the settings of its host."""

from __future__ import annotations

from rawr.host.settings import HostSettings, Limits
from rawr.workspace.config import Config


def host_settings(config: Config, *, port: int | None, drain_s: float | None = None) -> HostSettings:
    """`port`, when given, goes before the configured one."""
    limits = Limits(body_bytes=config.limits.body_bytes)
    if drain_s is not None:
        limits = Limits(body_bytes=config.limits.body_bytes, drain_s=drain_s)
    return HostSettings(
        bind_host=config.server.host,
        port=config.server.port if port is None else port,
        base_url=config.server.base_url,
        trusted_hosts=config.server.trusted_hosts,
        engine_calls=config.engine.concurrency,
        limits=limits,
    )
