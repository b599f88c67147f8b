"""The least that a Python server can do: one constant struct, encoded by msgspec for each request, as plain ASGI.

`python -m bench.httpload.bare PORT`; it serves as rawr's server is configured, until it is ended.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import uvicorn


class State(msgspec.Struct, rename="camel"):
    version: int
    enabled: list[str]
    last_updated_at: str


STATE = State(version=1, enabled=["mfe-demo", "hello-web"], last_updated_at="2026-01-01T00:00:00.000Z")


async def app(scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]) -> None:
    if scope["method"] == "POST":
        while (await receive()).get("more_body"):
            pass
    body = msgspec.json.encode(STATE)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
    )
