"""One synchronous caller of any procedure of a running HQ, over `/rpc` with the instance's CLI key.

Built on `http.client`, which starts quickly, follows no redirects and knows no proxies: this talks to our own
server on this machine. It checks nothing that the server says beyond its form.
"""

from __future__ import annotations

import http.client
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from rawr.errors import RawrError
from rawr.wire import JsonValue, MalformedJsonError, decode, encode

T = TypeVar("T")


class ServerNotRunningError(RawrError):
    """Nothing answers at the address, or what answered went away before it had."""

    code = "SERVER_NOT_RUNNING"


class ServerTimeoutError(RawrError):
    """The server was there and did not answer in time. Whether it acted is not known."""

    code = "SERVER_TIMEOUT"


class ServerAnswerError(RawrError):
    """What answers at the address is not an HQ, or not ours."""

    code = "SERVER_ANSWER_INVALID"


class RemoteError(RawrError):
    """An error that the server answered with, as it stood on the wire."""

    code = "REMOTE_ERROR"

    def __init__(self, code: str, status: int, message: str, *, data: JsonValue = None) -> None:
        super().__init__(message, details=data if isinstance(data, dict) else None)
        # The error *is* the one of the server, so it carries that code, not a code of its own.
        vars(self)["code"] = code
        self.status = status
        self.data = data


class _WireError(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    status: int
    message: str
    data: Any = None


class HqClient:
    """Calls procedures at `base_url` (`http://127.0.0.1:3000`). Each call is one connection."""

    def __init__(self, base_url: str, cli_key: str, *, timeout_s: float = 30.0) -> None:
        address = urlsplit(base_url)
        assert address.scheme == "http" and address.hostname, base_url  # noqa: PT018 - one thing: a usable address
        self._host = address.hostname
        self._port = address.port or 80
        self._key = cli_key
        self._timeout_s = timeout_s

    def call(self, procedure: str, given: object, expected: type[T]) -> T:
        """Run `coordination/listWorkflows` or another procedure with input `given`; its output as `expected`.

        Raises:
            ServerNotRunningError: nothing answers at the address.
            ServerTimeoutError: no answer within the timeout.
            ServerAnswerError: the answer is not one of ours.
            RemoteError: the procedure ended with an error.
        """
        body = b'{"json":' + encode(given) + b"}"
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        status, raw = self._exchange("POST", f"/rpc/{procedure}", body, headers)
        value = _value(status, raw)
        try:
            if status == 200:
                return msgspec.convert(value, expected)
            error = msgspec.convert(value, _WireError)
        except msgspec.ValidationError as problem:
            raise ServerAnswerError(
                f"{self._address} answered {procedure} in a form that this version does not know: {problem}"
            ) from problem
        raise RemoteError(error.code, error.status, error.message, data=error.data)

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
        _, raw = self._exchange("GET", path, b"", {})
        try:
            report = decode(raw)
        except MalformedJsonError as error:
            raise ServerAnswerError(f"what answers at {self._address} is not an HQ") from error
        if not isinstance(report, dict):
            raise ServerAnswerError(f"what answers at {self._address} is not an HQ")
        return report

    def _exchange(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            connection.request(method, path, body=body or None, headers={**headers, "connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        except TimeoutError as error:
            raise ServerTimeoutError(f"no answer from {self._address} within {self._timeout_s:g} s") from error
        except http.client.BadStatusLine as error:
            raise _unreachable_or_foreign(error, self._address) from error
        except OSError as error:
            raise ServerNotRunningError(f"no HQ answers at {self._address}: {error}", fix="rawr up") from error
        except http.client.HTTPException as error:
            raise ServerAnswerError(f"what answers at {self._address} does not speak HTTP properly") from error
        finally:
            connection.close()


def _unreachable_or_foreign(error: http.client.BadStatusLine, address: str) -> RawrError:
    if isinstance(error, http.client.RemoteDisconnected):
        return ServerNotRunningError(f"the server at {address} closed the connection without an answer", fix="rawr up")
    return ServerAnswerError(f"what answers at {address} does not speak HTTP")


def _value(status: int, raw: bytes) -> JsonValue:
    """The value in the envelope of an answer; plain texts (403, 404, 421) become errors with the same code."""
    try:
        envelope = decode(raw)
    except MalformedJsonError as error:
        raise RemoteError(_TEXT_CODES.get(status, "SERVER_ANSWER_INVALID"), status, _text(raw)) from error
    if not isinstance(envelope, dict) or "json" not in envelope:
        raise ServerAnswerError(f"the server answered {status} without an envelope")
    return envelope["json"]


_TEXT_CODES = {403: "FORBIDDEN", 404: "NOT_FOUND", 421: "MISDIRECTED_REQUEST"}


def _text(raw: bytes) -> str:
    return raw[:200].decode("utf-8", "replace")
