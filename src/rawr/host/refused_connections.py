"""What is sent and written down when bytes on a connection never became a request."""

from __future__ import annotations

from http import HTTPStatus

from rawr.clock import Clock, UlidSource
from rawr.host.access import AccessLog, AccessNotes, Answered
from rawr.host.responses import CLOSE, NO_STORE, Response, header_lines


class RefusedConnections:
    def __init__(self, clock: Clock, access_log: AccessLog) -> None:
        self._clock = clock
        self._ids = UlidSource(clock)
        self._access_log = access_log

    def __call__(self, response: Response, *, address: str) -> bytes:
        """Write down the refusal; the bytes to send for it. Nothing of what was received is repeated in either."""
        request_id = self._ids.next()
        self._access_log(
            Answered(
                request_id=request_id,
                correlation_id=request_id,
                address=address,
                method=None,
                notes=AccessNotes(status=response.status, bytes_out=len(response.body)),
                at_ms=self._clock.now_ms(),
                took_s=0.0,
            )
        )
        return raw_response(response, request_id)


def raw_response(response: Response, request_id: str) -> bytes:
    """The whole answer as it goes over the wire, the last of its connection."""
    headers = (
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        *response.protection.pairs,
        NO_STORE,
        (b"x-request-id", request_id.encode()),
        (b"x-correlation-id", request_id.encode()),
        *response.headers,
        CLOSE,
    )
    status = f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}\r\n".encode()
    return status + header_lines(headers) + b"\r\n" + response.body
