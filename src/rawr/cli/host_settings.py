"""From the configuration of an instance to the settings of its host."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from rawr.execution.ports import InngestServer
from rawr.host.settings import HostSettings, Limits, Rates, TlsFiles
from rawr.instance.layout import InstanceLayout
from rawr.security.inngest_keys import read_inngest_keys
from rawr.workspace.config import Config, EngineConfig, ServerConfig


def host_settings(
    config: Config,
    *,
    root: Path,
    environ: Mapping[str, str],
    port: int | None = None,
    host: str | None = None,
    insecure_bind: bool = False,
    drain_s: float | None = None,
) -> HostSettings:
    """`port` and `host`, when given, go before the configured ones. `root` is the instance.

    Raises:
        InsecureBindError: other machines could reach the address, in the clear.
        RawrError: mode `inngest`, and a key is missing or wrong.
    """
    server = config.server
    limits = Limits(**msgspec.structs.asdict(config.limits))
    return HostSettings(
        bind_host=server.host if host is None else host,
        port=server.port if port is None else port,
        base_url=server.base_url,
        trusted_hosts=server.trusted_hosts,
        trusted_proxies=server.trusted_proxies,
        tls=_tls_files(server, root),
        insecure_bind=insecure_bind,
        inngest=inngest_server(config.engine, InstanceLayout(root).secrets, environ),
        engine_calls=config.engine.concurrency,
        limits=limits if drain_s is None else msgspec.structs.replace(limits, drain_s=drain_s),
        rates=Rates(**msgspec.structs.asdict(config.rates)),
    )


def _tls_files(server: ServerConfig, root: Path) -> TlsFiles | None:
    if server.tls_cert is None or server.tls_key is None:
        return None
    return TlsFiles(certificate=root / server.tls_cert, key=root / server.tls_key)


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
