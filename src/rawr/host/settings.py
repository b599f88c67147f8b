"""What the host needs to know before it starts, as one frozen value. Reads nothing itself."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.execution.ports import InngestServer

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")

MIB: Final = 1024 * 1024

_ANY_ADDRESS: Final = ("", "0.0.0.0", "::")  # noqa: S104 - read, not bound


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults are those of `[limits]` in `rawr.toml`, which has every key but the last."""

    body_bytes: int = 4 * MIB
    """Largest body on `/rpc`, `/api/orpc` and `/api/workflows`."""
    ingress_body_bytes: int = 32 * MIB
    """Largest body on `/api/inngest`: calls of the engine carry the memory of a run's steps."""
    url_bytes: int = 16 * 1024
    """Longest path and query together."""
    header_bytes: int = 64 * 1024
    """Names and values of all headers together."""
    header_count: int = 100
    """Headers of one request."""
    fields: int = 1000
    """Fields of one query or form."""
    batch_size: int = 10
    """Calls in one batch; the client splits at ten."""
    requests: int = 256
    """Requests that are being answered at the same time; an open stream is not one of them."""
    requests_per_address: int = 128
    """How many of those may come from one address."""
    connections: int = 800
    """Open connections."""
    connections_per_address: int = 400
    """How many of those may come from one address."""
    streams: int = 100
    """How many callers may follow something at the same time."""
    head_s: float = 10.0
    """How long the line and headers of a request may take to arrive."""
    body_s: float = 30.0
    """How long a body may take to arrive."""
    body_bytes_per_s: int = 1024
    """How fast a body must arrive at least, on average, once `head_s` are over."""
    idle_s: float = 15.0
    """How long a connection stays open between two requests."""
    handler_s: float = 60.0
    """How long an answer may take to begin, the arrival of the body included; not on `/api/inngest`."""
    drain_s: float = 10.0
    """How long a stopping server waits for requests that are under way."""
    stream_ping_s: float = 5.0
    """How long a stream may be silent before it says that it is alive."""


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """PEM files of the server's certificate, with its chain, and of its private key."""

    certificate: Path
    key: Path


class InsecureBindError(RawrError):
    """More than this machine could reach the server, and would talk to it in the clear."""

    code = "INSECURE_BIND"


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """How often callers may call. Each may use ten seconds' worth at once."""

    key_per_minute: int = 60_000
    """For a key that has no rate of its own."""
    address_per_minute: int = 600
    """Calls without a right credential, from one address."""
    tracked: int = 10_000
    """How many keys, and how many addresses, are counted at the same time."""


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    bind_host: str = "127.0.0.1"
    port: int = 3000
    """0 lets the system choose; the true port is in `Host.base_url` and `.rawr/run/server.json`."""
    base_url: str | None = None
    """How callers reach us, when it is not `http://localhost:<port>`."""
    trusted_hosts: tuple[str, ...] = ()
    """Host names that the Host header may carry besides the local ones. Lower case, without a port."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks whose forwarded headers are believed."""
    tls: TlsFiles | None = None
    insecure_bind: bool = False
    """Listen on more than loopback without TLS, knowing what that means."""
    inngest: InngestServer | None = None
    """The real Inngest server that is the engine; None for the embedded one."""
    engine_calls: int = 64
    """Calls of durable functions, so desks at work, at the same time."""
    limits: Limits = Limits()
    rates: Rates = Rates()

    def __post_init__(self) -> None:
        if not self.is_local and self.tls is None and not self.insecure_bind:
            raise InsecureBindError(
                f"{self.bind_host} can be reached from other machines, and without TLS keys and answers would travel "
                "in the clear",
                details={"host": self.bind_host},
                fix="set [server] tls_cert and tls_key, put a reverse proxy in front of 127.0.0.1 "
                "(docs/runbooks/reverse-proxy.md), or say --insecure-bind",
            )

    @property
    def is_local(self) -> bool:
        """Whether nobody but this machine can reach the address that we listen on."""
        try:
            return ip_address(self.bind_host).is_loopback
        except ValueError:
            return self.bind_host == "localhost"

    @property
    def is_exposed(self) -> bool:
        """Whether other machines can reach us in the clear."""
        return not self.is_local and self.tls is None

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    @property
    def allowed_hosts(self) -> frozenset[str]:
        own = () if self.bind_host in _ANY_ADDRESS else (self.bind_host.lower(),)
        return frozenset((*LOCAL_HOSTS, *own, *(host.lower() for host in self.trusted_hosts)))

    def url_for(self, port: int) -> str:
        return (self.base_url or f"{self.scheme}://localhost:{port}").rstrip("/")

    def local_url_for(self, port: int) -> str:
        """How a process of this machine connects, whatever address we are bound to."""
        match self.bind_host:
            case "" | "0.0.0.0":  # noqa: S104 - read, not bound
                host = "127.0.0.1"
            case "::":
                host = "[::1]"
            case address if ":" in address:
                host = f"[{address}]"
            case address:
                host = address
        return f"{self.scheme}://{host}:{port}"
