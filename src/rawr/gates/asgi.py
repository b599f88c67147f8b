"""Asks an ASGI application as a caller would, without a socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

Application = Callable[[Any, Any, Any], Awaitable[None]]
ANSWER_S: Final = 15.0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    body: bytes


async def ask(app: Application, method: str, target: str, *, headers: Mapping[str, str], body: bytes = b"") -> Asked:
    """The answer to one request. `target` is a raw path with an optional query."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 1),
    }
    status = 0
    chunks: list[bytes] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            chunks.append(message.get("body", b""))

    async with asyncio.timeout(ANSWER_S):
        await app(scope, receive, send)
    return Asked(status=status, body=b"".join(chunks))
