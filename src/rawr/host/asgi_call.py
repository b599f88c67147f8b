"""The engine's way into its own host: one ASGI call in this process, through the same guard as any other call.

No socket and no client library; the signature is verified as if the call had come over the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from rawr.execution.ports import IngressResponse
from rawr.host.request import AsgiApp, Message, Scope

PATH: Final = "/api/inngest"


async def asgi_call(
    app: AsgiApp, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
) -> IngressResponse:
    """One call into `/api/inngest` of `app`; with the app bound, this is an `EngineCall`."""
    exchange = _Exchange(body)
    await app(_scope(method, query, headers, body), exchange.receive, exchange.send)
    return exchange.response()


def _scope(method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes) -> Scope:
    given = {name.lower(): value for name, value in headers.items()}
    given["host"] = "127.0.0.1"
    given["content-length"] = str(len(body))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": PATH,
        "raw_path": PATH.encode(),
        "query_string": urlencode(query).encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in given.items()],
        "client": None,
        "server": None,
    }


class _Exchange:
    def __init__(self, body: bytes) -> None:
        self._pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._start: Message = {}
        self._chunks: list[bytes] = []

    async def receive(self) -> Message:
        if self._pending:
            return self._pending.pop()
        # The caller stays on the line: an app that waits for a disconnect waits until it is cancelled.
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
        else:
            self._chunks.append(message.get("body", b""))

    def response(self) -> IngressResponse:
        return IngressResponse(
            status=self._start["status"],
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._start["headers"]},
            body=b"".join(self._chunks),
        )
