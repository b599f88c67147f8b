"""The asynchronous caller of an HQ: over the network, or into an app of this process. The only importer of httpx.

Like its synchronous twin it follows no redirects and knows no proxies.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from rawr.client.answers import (
    ServerAnswerError,
    ServerNotRunningError,
    ServerTimeoutError,
    answer_of,
    body_of,
    pause_before_retry_s,
)
from rawr.client.events import Event, EventReader
from rawr.client.trust import trust_in
from rawr.errors import RawrError
from rawr.procedures.contract import Answer, Given, Operation, StreamOperation

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


class AsyncHqClient:
    """Invokes operations at `base_url`. To be closed, as an `async with` does. `certificate` as with `HqClient`."""

    def __init__(
        self,
        base_url: str,
        cli_key: str,
        *,
        timeout_s: float = 30.0,
        certificate: Path | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._pause = pause
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {cli_key}", "content-type": "application/json"},
            timeout=timeout_s,
            transport=transport,
            verify=True if certificate is None else trust_in(certificate),
            trust_env=False,
        )

    @classmethod
    def in_process(cls, app: AsgiApp, cli_key: str) -> AsyncHqClient:
        """A client of an app in this process: no socket, and the same gate and the same answers as over one.

        A stream gives its events only when it has ended.
        """
        return cls("http://127.0.0.1", cli_key, transport=httpx.ASGITransport(app=app, raise_app_exceptions=False))

    async def __aenter__(self) -> AsyncHqClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def invoke(self, operation: Operation[Given, Answer], given: Given) -> Answer:
        """Run the operation with its input and return its output.

        A server that says to come again later is asked again, up to three times.

        Raises:
            ServerNotRunningError: nothing answers at the address.
            ServerTimeoutError: no answer within the timeout.
            ServerAnswerError: the answer is not one of ours.
            RemoteError: the procedure ended with an error.
        """
        for attempt in itertools.count(1):
            response = await self._posted(operation.rpc_path, body_of(given))
            headers = dict(response.headers)
            pause_s = pause_before_retry_s(response.status_code, headers, attempt=attempt, now_s=time.time())
            if pause_s is None:
                source = self._source(operation.rpc_path)
                return answer_of(response.status_code, response.content, operation.output_type, source=source)
            await self._pause(pause_s)
        raise AssertionError("unreachable")

    async def watch(
        self, operation: StreamOperation[Given, Answer], given: Given, *, last_event_id: str | None = None
    ) -> AsyncGenerator[Event[Answer], None]:
        """The events of a stream as they come, after `last_event_id`. The timeout is for silence, pings included.

        Raises:
            What `invoke` raises; ServerNotRunningError also when the stream broke off. It goes on by calling again
            with the id of the last event that was given.
        """
        source = self._source(operation.rpc_path)
        reader = EventReader(operation.event_type, source=source)
        headers = {} if last_event_id is None else {"last-event-id": last_event_id}
        path = f"/rpc/{operation.rpc_path}"
        try:
            async with self._http.stream("POST", path, content=body_of(given), headers=headers) as response:
                if response.status_code != 200:
                    answer_of(response.status_code, await response.aread(), operation.event_type, source=source)
                async for line in response.aiter_lines():
                    event = reader.feed(line)
                    if event is not None:
                        yield event
        except httpx.HTTPError as error:
            raise self._fault(error) from error
        reader.check_end()

    async def _posted(self, procedure: str, body: bytes) -> httpx.Response:
        try:
            return await self._http.post(f"/rpc/{procedure}", content=body)
        except httpx.HTTPError as error:
            raise self._fault(error) from error

    def _fault(self, error: httpx.HTTPError) -> RawrError:
        match error:
            case httpx.TimeoutException():
                return ServerTimeoutError(f"no answer from {self._base_url} within {self._timeout_s:g} s")
            case httpx.NetworkError() | httpx.RemoteProtocolError():
                return ServerNotRunningError(f"no HQ answers at {self._base_url}: {error}", fix="rawr up")
            case _:
                return ServerAnswerError(f"what answers at {self._base_url} does not speak HTTP properly: {error}")

    def _source(self, procedure: str) -> str:
        return f"{self._base_url} {procedure}"
