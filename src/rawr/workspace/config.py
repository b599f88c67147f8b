"""`rawr.toml`, read once into a frozen value. Unknown keys and wrong types are errors that name them."""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

import msgspec

from rawr.errors import RawrError

CONFIG_FILE: Final = "rawr.toml"
PORT_VARIABLE: Final = "RAWR_SERVER_PORT"
PORT_MAX: Final = 65535
_FIX: Final = "see docs/reference/configuration.md"
_HOST_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?\Z")


PerMinute = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]


class ConfigError(RawrError):
    code = "CONFIG_INVALID"


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    """The address to listen on. Any but a loopback one needs `tls_cert` and `tls_key`, or `--insecure-bind`."""
    port: Annotated[int, msgspec.Meta(ge=0, le=PORT_MAX)] = 3000
    """0 takes a free one."""
    base_url: str | None = None
    """How callers reach the server, when not by its own address."""
    trusted_hosts: tuple[str, ...] = ()
    """Further host names that requests may carry."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed."""
    tls_cert: str | None = None
    """A PEM file with the certificate and its chain, relative to the instance."""
    tls_key: str | None = None
    """A PEM file with the private key, mode 600."""


class LimitsConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request, one address and all of them together may take. `docs/reference/http.md` has the same table."""

    body_bytes: Annotated[int, msgspec.Meta(ge=1024, le=64 << 20)] = 4 << 20
    ingress_body_bytes: Annotated[int, msgspec.Meta(ge=1 << 20, le=256 << 20)] = 32 << 20
    url_bytes: Annotated[int, msgspec.Meta(ge=256, le=60_000)] = 16 << 10
    header_bytes: Annotated[int, msgspec.Meta(ge=1024, le=1 << 20)] = 64 << 10
    header_count: Annotated[int, msgspec.Meta(ge=10, le=1000)] = 100
    fields: Annotated[int, msgspec.Meta(ge=10, le=10_000)] = 1000
    batch_size: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    requests: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    requests_per_address: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 128
    connections: Annotated[int, msgspec.Meta(ge=4, le=10_000)] = 800
    connections_per_address: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 400
    streams: Annotated[int, msgspec.Meta(ge=1, le=5000)] = 100
    head_s: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 10.0
    body_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 30.0
    body_bytes_per_s: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 1024
    idle_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 15.0
    handler_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 60.0
    drain_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 10.0


class RatesConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key_per_minute: PerMinute = 60_000
    """Calls with a key that has no rate of its own."""
    address_per_minute: PerMinute = 600
    """Calls without a right credential, from one address."""
    tracked: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 10_000
    """How many keys and how many addresses are counted at once."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=256)] = 64
    """Calls of durable functions, so desks at work, at the same time."""
    mode: Literal["embedded", "inngest"] = "embedded"
    """Our own engine, or a real Inngest server."""
    base_url: str | None = None
    """Where the Inngest server is. Required in mode `inngest`, without effect in mode `embedded`."""
    event_url: str | None = None
    """Where it takes events, when that is elsewhere."""
    trace_url: str | None = None
    """Where its pages begin, when that is elsewhere."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: ServerConfig = ServerConfig()
    limits: LimitsConfig = LimitsConfig()
    rates: RatesConfig = RatesConfig()
    engine: EngineConfig = EngineConfig()


def load_config(root: Path, *, environ: Mapping[str, str]) -> Config:
    """The configuration of the instance at `root`: `rawr.toml`, over it `RAWR_SERVER_PORT`, else defaults.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a value of the wrong type or out of range.
    """
    path = root / CONFIG_FILE
    document = _document(path)
    if port := environ.get(PORT_VARIABLE):
        document = _with_port(document, port)
    try:
        config = msgspec.convert(document, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {error}", details={"path": str(path)}, fix=_FIX) from error
    for problem in _problems(config):
        raise ConfigError(f"{path}: {problem}", details={"path": str(path)}, fix=_FIX)
    return config


def _problems(config: Config) -> Iterator[str]:
    """What the types cannot say."""
    yield from _server_problems(config.server)
    yield from _engine_problems(config.engine)


def _server_problems(server: ServerConfig) -> Iterator[str]:
    if server.base_url is not None and not _is_http_url(server.base_url):
        yield f"server.base_url is {server.base_url!r}, which is no http or https URL"
    for host in server.trusted_hosts:
        if _HOST_NAME.match(host) is None:
            yield f"server.trusted_hosts has {host!r}, which is no host name (no scheme, no port)"
    if _HOST_NAME.match(server.host) is None and not _is_network(server.host):
        yield f"server.host is {server.host!r}, which is no address and no host name"
    for network in server.trusted_proxies:
        if not _is_network(network):
            yield f"server.trusted_proxies has {network!r}, which is no address and no network such as 10.0.0.0/8"
    if (server.tls_cert is None) != (server.tls_key is None):
        given, missing = ("tls_cert", "tls_key") if server.tls_key is None else ("tls_key", "tls_cert")
        yield f"server.{missing} is missing: server.{given} is of no use without it"


def _engine_problems(engine: EngineConfig) -> Iterator[str]:
    for key in ("base_url", "event_url", "trace_url"):
        url: str | None = getattr(engine, key)
        if url is not None and not _is_http_url(url):
            yield f"engine.{key} is {url!r}, which is no http or https URL"
    if engine.mode == "inngest" and engine.base_url is None:
        yield "engine.base_url is missing: in mode 'inngest' it says where the Inngest server is"


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_http_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        return False


def _document(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", details={"path": str(path)}) from error


def _with_port(document: dict[str, object], port: str) -> dict[str, object]:
    if re.fullmatch(r"[0-9]{1,5}", port) is None or int(port) > PORT_MAX:
        raise ConfigError(
            f"{PORT_VARIABLE} is {port[:40]!r}, which is no port number", fix=f"unset it, or give 0 to {PORT_MAX}"
        )
    server = document.get("server", {})
    return {**document, "server": {**server, "port": int(port)} if isinstance(server, dict) else server}
