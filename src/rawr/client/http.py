"""One synchronous caller of any procedure of a running HQ, over `/rpc` with the instance's CLI key.

Built on `http.client`, which starts quickly, follows no redirects and knows no proxies: this talks to our own
server on this machine. It checks nothing that the server says beyond its form.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from rawr.client.answers import (
    RemoteError,
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
from rawr.wire import JsonValue, MalformedJsonError, decode

__all__ = ["HqClient", "RemoteError", "ServerAnswerError", "ServerNotRunningError", "ServerTimeoutError"]

T = TypeVar("T")


class HqClient:
    """Calls procedures at `base_url` (`http://127.0.0.1:3000`). Each call is one connection.

    With `certificate`, a PEM file, an https server is the right one when it holds the key of that certificate; without
    one, when an authority of this machine's says so.
    """

    def __init__(
        self,
        base_url: str,
        cli_key: str,
        *,
        timeout_s: float = 30.0,
        certificate: Path | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        address = urlsplit(base_url)
        assert address.scheme in ("http", "https") and address.hostname, base_url  # noqa: PT018 - a usable address
        self._is_secure = address.scheme == "https"
        self._certificate = certificate
        self._host = address.hostname
        self._port = address.port or (443 if self._is_secure else 80)
        self._headers = {"authorization": f"Bearer {cli_key}", "content-type": "application/json"}
        self._timeout_s = timeout_s
        self._pause = pause

    def invoke(self, operation: Operation[Given, Answer], given: Given) -> Answer:
        """Run the operation with its input and return its output. Raises as `call` does."""
        return self.call(operation.rpc_path, given, operation.output_type)

    def call(self, procedure: str, given: object, expected: type[T]) -> T:
        """Run `coordination/listWorkflows` or another procedure with input `given`; its output as `expected`.

        A server that says to come again later is asked again, up to three times.

        Raises:
            ServerNotRunningError: nothing answers at the address.
            ServerTimeoutError: no answer within the timeout.
            ServerAnswerError: the answer is not one of ours.
            RemoteError: the procedure ended with an error.
        """
        for attempt in itertools.count(1):
            status, headers, raw = self._exchange("POST", f"/rpc/{procedure}", body_of(given), self._headers)
            pause_s = pause_before_retry_s(status, headers, attempt=attempt, now_s=time.time())
            if pause_s is None:
                return answer_of(status, raw, expected, source=f"{self._address} {procedure}")
            self._pause(pause_s)
        raise AssertionError("unreachable")

    def watch(
        self, operation: StreamOperation[Given, Answer], given: Given, *, last_event_id: str | None = None
    ) -> Iterator[Event[Answer]]:
        """The events of a stream as they come, after `last_event_id`. The timeout is for silence, pings included.

        Raises:
            What `call` raises; ServerNotRunningError also when the stream broke off. It goes on by calling again
            with the id of the last event that was given.
        """
        headers = self._headers if last_event_id is None else {**self._headers, "last-event-id": last_event_id}
        source = f"{self._address} {operation.rpc_path}"
        reader = EventReader(operation.event_type, source=source)
        with self._opened("POST", f"/rpc/{operation.rpc_path}", body_of(given), headers) as response:
            if response.status != 200:
                answer_of(response.status, response.read(), operation.event_type, source=source)
            for line in response:
                event = reader.feed(line.decode("utf-8", "replace").rstrip("\r\n"))
                if event is not None:
                    yield event
            reader.check_end()

    def health(self) -> dict[str, JsonValue]:
        """What `/health` says: `{"ok": true, "instanceId": …}`. Raises as `call` does."""
        return self._report("/health")

    def ready(self) -> dict[str, JsonValue]:
        """What `/ready` says; `ok` is false while the server cannot serve calls. Raises as `call` does."""
        return self._report("/ready")

    @property
    def _address(self) -> str:
        return f"{self._host}:{self._port}"

    def _report(self, path: str) -> dict[str, JsonValue]:
        _, _, raw = self._exchange("GET", path, b"", {})
        try:
            report = decode(raw)
        except MalformedJsonError as error:
            raise ServerAnswerError(f"what answers at {self._address} is not an HQ") from error
        if not isinstance(report, dict):
            raise ServerAnswerError(f"what answers at {self._address} is not an HQ")
        return report

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, dict[str, str], bytes]:
        with self._opened(method, path, body, headers) as response:
            given = {name.lower(): value for name, value in response.getheaders()}
            return response.status, given, response.read()

    @contextlib.contextmanager
    def _opened(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer, its body to be read within the block; every fault of the connection as one of ours."""
        connection = self._connection()
        try:
            connection.request(method, path, body=body or None, headers={**headers, "connection": "close"})
            yield connection.getresponse()
        except TimeoutError as error:
            raise ServerTimeoutError(f"no answer from {self._address} within {self._timeout_s:g} s") from error
        except http.client.BadStatusLine as error:
            raise _unreachable_or_foreign(error, self._address) from error
        except ssl.SSLError as error:
            raise ServerAnswerError(f"what answers at {self._address} is not who it should be: {error}") from error
        except OSError as error:
            raise ServerNotRunningError(f"no HQ answers at {self._address}: {error}", fix="rawr up") from error
        except http.client.HTTPException as error:
            raise ServerAnswerError(f"what answers at {self._address} does not speak HTTP properly") from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not self._is_secure:
            return http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        context = ssl.create_default_context() if self._certificate is None else trust_in(self._certificate)
        return http.client.HTTPSConnection(self._host, self._port, timeout=self._timeout_s, context=context)


def _unreachable_or_foreign(error: http.client.BadStatusLine, address: str) -> RawrError:
    if isinstance(error, http.client.RemoteDisconnected):
        return ServerNotRunningError(f"the server at {address} closed the connection without an answer", fix="rawr up")
    return ServerAnswerError(f"what answers at {address} does not speak HTTP")
