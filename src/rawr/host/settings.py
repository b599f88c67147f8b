"""What the host needs to know before it starts, as one frozen value. Reads nothing itself."""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.execution.ports import InngestServer

LOCAL_HOSTS: Final = ("localhost", "127.0.0.1", "::1")

MIB: Final = 1024 * 1024


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    body_bytes: int = 10 * MIB
    ingress_body_bytes: int = 32 * MIB
    """Calls of the engine carry the memory of a run's steps."""
    header_bytes: int = 64 * 1024
    header_count: int = 100
    body_s: float = 30.0
    """How long a caller may take to send its body."""
    streams: int = 100
    """How many callers may follow something at the same time."""
    stream_ping_s: float = 5.0
    """How long a stream may be silent before it says that it is alive."""
    batch_size: int = 10
    """Calls in one batch; the client splits at the same number."""
    drain_s: float = 10.0
    """How long a stopping server waits for calls that are under way."""


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
    inngest: InngestServer | None = None
    """The real Inngest server that is the engine; None for the embedded one."""
    engine_calls: int = 64
    """Calls of durable functions, so desks at work, at the same time."""
    limits: Limits = Limits()
    rates: Rates = Rates()

    @property
    def allowed_hosts(self) -> frozenset[str]:
        return frozenset((*LOCAL_HOSTS, *(host.lower() for host in self.trusted_hosts)))

    def url_for(self, port: int) -> str:
        return (self.base_url or f"http://localhost:{port}").rstrip("/")

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
        return f"http://{host}:{port}"
