"""The head of a request, and what follows from it alone.

A caller that keeps its connection sends the same head again and again. Where it leads, which key it names and why it
goes no further is worked out for the first of them; the server hands what is known to every request of the connection
whose head is the same. Nothing in here is shared between connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from rawr.host.auth import Headers
from rawr.host.peers import Peer
from rawr.host.responses import Response
from rawr.procedures.markers import Marks

Fields = Mapping[bytes, bytes]
"""Headers by name. One that was sent more than once has all its values, joined by a comma, and so is none of ours."""


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A request before its body."""

    method: str
    path: str
    """As it came over the wire, without the query."""
    query: str
    http_version: str
    headers: Headers
    fields: Fields
    repeated: frozenset[bytes]
    """The names that came more than once."""
    header_bytes: int
    peer: Peer
    """The caller's address and scheme, as far as they can be known; no address for a call from within this process."""
    marks: Marks = msgspec.field(default_factory=Marks)
    """What was worked out from the head and never changes. Whatever depends on a file, a clock or a body is not."""

    def __repr__(self) -> str:
        return "Head(...)"  # paths, queries and headers hold secrets

    def text(self, name: bytes) -> str | None:
        """The trimmed value of a header that is there exactly once and not blank."""
        value = self.fields.get(name)
        if value is None or name in self.repeated:
            return None
        return value.decode("latin-1").strip() or None


class KnownHead:
    """What the guard knows of a head: nothing before it has seen it for the first time."""

    __slots__ = ("correlation_id", "head", "refusal", "request_id")

    def __init__(self) -> None:
        self.head: Head | None = None
        self.refusal: Response | None = None
        """Why a request with it goes no further."""
        self.request_id: str | None = None
        """The one that the caller gives, if it gives one; likewise the other."""
        self.correlation_id: str | None = None


class Exchange(Protocol):
    """One request and its answer, where server and app can pass each in one piece: our extension of ASGI."""

    known: KnownHead

    def body(self) -> bytes | None:
        """The whole body, when all of it has arrived."""
        ...

    def answer(self, status: int, headers: bytes, body: bytes, *, is_last: bool) -> bool:
        """Send the whole answer; False when it must be sent as ASGI has it, because nothing was sent.

        `headers` are lines as they go over the wire, with the length of the body; `is_last` says that one of them
        ends the connection. Nobody looks through them again.
        """
        ...


EXCHANGE: Final = "rawr.exchange"
"""The name of the extension in a scope."""


def head_of(
    *, method: str, path: str, query: str, http_version: str, headers: Headers, peer_of: Callable[[Fields], Peer]
) -> Head:
    """The head with these headers; `peer_of` says who sent it, which headers have a say in."""
    fields: dict[bytes, bytes] = {}
    repeated: set[bytes] = set()
    size = 0
    for name, value in headers:
        size += len(name) + len(value)
        if name in fields:
            repeated.add(name)
            fields[name] += b", " + value
        else:
            fields[name] = value
    return Head(
        method=method,
        path=path,
        query=query,
        http_version=http_version,
        headers=headers,
        fields=fields,
        repeated=frozenset(repeated),
        header_bytes=size,
        peer=peer_of(fields),
    )
