"""From the configuration of an instance to the settings of its host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from rawr.execution.ports import InngestServer
from rawr.host.settings import HostSettings, Limits, Rates
from rawr.security.inngest_keys import read_inngest_keys
from rawr.workspace.config import Config, EngineConfig


def host_settings(
    config: Config, *, port: int | None, secrets: Path, environ: Mapping[str, str], drain_s: float | None = None
) -> HostSettings:
    """`port`, when given, goes before the configured one. `secrets` is the folder with the keys of an Inngest server.

    Raises:
        RawrError: mode `inngest`, and a key is missing or wrong.
    """
    limits = Limits(body_bytes=config.limits.body_bytes)
    if drain_s is not None:
        limits = Limits(body_bytes=config.limits.body_bytes, drain_s=drain_s)
    return HostSettings(
        bind_host=config.server.host,
        port=config.server.port if port is None else port,
        base_url=config.server.base_url,
        trusted_hosts=config.server.trusted_hosts,
        inngest=inngest_server(config.engine, secrets, environ),
        engine_calls=config.engine.concurrency,
        limits=limits,
        rates=Rates(**msgspec.structs.asdict(config.rates)),
    )


def inngest_server(engine: EngineConfig, secrets: Path, environ: Mapping[str, str]) -> InngestServer | None:
    """The Inngest server that is configured, with its keys; None in mode `embedded`, where no key is looked at."""
    if engine.mode == "embedded":
        return None
    assert engine.base_url is not None, "the configuration was checked"
    keys = read_inngest_keys(secrets, environ)
    return InngestServer(
        api_url=engine.base_url,
        event_url=engine.event_url or engine.base_url,
        trace_url=engine.trace_url or engine.base_url,
        event_key=keys.event_key,
        signing_key=keys.signing_key,
        signing_key_fallback=keys.signing_key_fallback,
    )
