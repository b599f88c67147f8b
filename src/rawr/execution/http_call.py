"""The engine's way to apps in other processes: HTTP to the address that an app has registered with.

It follows no redirect, knows no proxy, and takes no more of an answer than an answer can have. The engine's half of
httpx; the callers' half is `client.aio`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import httpx

from rawr.errors import RawrError
from rawr.execution.ports import AppUnreachableError, EngineCall, IngressResponse

CONNECT_S: Final = 5.0
KEEP_S: Final = 2.0
"""Less than servers keep an idle connection, so that none is used in the moment in which it is closed."""
SYNCS_MAX: Final = 16
"""Connections besides those of the calls."""
ANSWER_MAX_BYTES: Final = 24 * 1024 * 1024
"""The largest output of a step, written as text inside of a streamed answer, and then some."""


class AnswerTooLargeError(RawrError):
    code = "APP_ANSWER_TOO_LARGE"


class CallBrokenError(RawrError):
    """The connection to the app ended in the middle of a call; what has run there is not known."""

    code = "APP_CALL_BROKEN"


class HttpApps:
    """Calls apps over pooled connections. To be closed."""

    def __init__(self, *, call_timeout_s: float, max_calls: int, answer_max_bytes: int = ANSWER_MAX_BYTES) -> None:
        """`call_timeout_s` is how long an app may be silent: as long as a step may take."""
        self._answer_max_bytes = answer_max_bytes
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(call_timeout_s, connect=CONNECT_S),
            limits=httpx.Limits(
                max_connections=max_calls + SYNCS_MAX, max_keepalive_connections=max_calls, keepalive_expiry=KEEP_S
            ),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._http.aclose()

    def at(self, url: str) -> EngineCall:
        """The app at this address."""

        async def call(
            method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
        ) -> IngressResponse:
            return await self._call(url, method, query, headers, body)

        return call

    async def _call(
        self, url: str, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        target = httpx.URL(url).copy_merge_params(dict(query))
        try:
            given = {**headers, "accept-encoding": "identity"}  # what is small here must not be large unpacked
            async with self._http.stream(method, target, headers=given, content=body) as response:
                return IngressResponse(
                    status=response.status_code,
                    headers=dict(response.headers),
                    body=await self._body(response),
                )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise AppUnreachableError(f"the app at {_shown(url)} cannot be reached: {error or 'no answer'}") from error
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise CallBrokenError(f"the call to {_shown(url)} broke: {type(error).__name__} {error}") from error

    async def _body(self, response: httpx.Response) -> bytes:
        chunks: list[bytes] = []
        size_bytes = 0
        async for chunk in response.aiter_raw():
            size_bytes += len(chunk)
            if size_bytes > self._answer_max_bytes:
                raise AnswerTooLargeError(f"the answer has more than {self._answer_max_bytes} bytes")
            chunks.append(chunk)
        return b"".join(chunks)


def _shown(url: str) -> str:
    """The address without its query, which may hold a secret."""
    return url.partition("?")[0]
