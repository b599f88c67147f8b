"""From a fault to what the caller is told: one table from codes to HTTP statuses, one body with five keys.

Faults of the world keep their code and message. Anything else is our own mistake: the caller learns only that
it happened, and the log gets the rest, once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import msgspec

from rawr.errors import BadInputError, RawrError
from rawr.host.multipart import MalformedFormError
from rawr.host.orpc_codec import MalformedEnvelopeError
from rawr.procedures.contract import ProcedureFailedError
from rawr.wire import MalformedJsonError

_log: Final = logging.getLogger("rawr.host")

MALFORMED_REQUEST: Final = (
    "Malformed request. Ensure the request body is properly formatted and the 'Content-Type' header is set correctly."
)

STATUS_BY_CODE: Final[Mapping[str, int]] = {
    "BAD_REQUEST": 400,
    "UNAUTHORIZED": 401,
    "FORBIDDEN": 403,
    "NOT_FOUND": 404,
    "METHOD_NOT_SUPPORTED": 405,
    "REQUEST_TIMEOUT": 408,
    "CONFLICT": 409,
    "RUN_ID_CONFLICT": 409,
    "WORKFLOW_VERSION_CONFLICT": 409,
    "PAYLOAD_TOO_LARGE": 413,
    "TOO_MANY_REQUESTS": 429,
    "CLIENT_CLOSED_REQUEST": 499,
    "INTERNAL_SERVER_ERROR": 500,
    "CREDENTIALS_UNAVAILABLE": 503,
    "SERVICE_UNAVAILABLE": 503,
    "TOO_MANY_STREAMS": 503,
    "LOCK_TIMEOUT": 503,
    "STATE_LOCK_TIMEOUT": 503,
    "STORAGE_FULL": 503,
    "STORAGE_READ_ONLY": 503,
    "DATABASE_BUSY": 503,
    "STORAGE_FAILED": 503,
    "GATEWAY_TIMEOUT": 504,
}


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """The error of every family, in this key order. `defined` says whether a contract declares the code; ours none."""

    defined: bool = False
    code: str
    status: int
    message: str
    data: object | msgspec.UnsetType = msgspec.UNSET


def error_body(error: Exception) -> ErrorBody:
    """What the caller is told about `error`. Logs it when it is a fault of ours or of the machine."""
    match error:
        case ProcedureFailedError():
            data = msgspec.UNSET if error.data is None else error.data
            return ErrorBody(code=error.wire_code, status=error.status, message=error.message, data=data)
        case MalformedJsonError() | MalformedEnvelopeError() | MalformedFormError():
            return ErrorBody(code="BAD_REQUEST", status=400, message=MALFORMED_REQUEST)
        case RawrError():
            return _rawr_error_body(error)
        case _:
            _log.error("unexpected %s", type(error).__name__, exc_info=error)
            return ErrorBody(code="INTERNAL_SERVER_ERROR", status=500, message="Internal server error")


def _rawr_error_body(error: RawrError) -> ErrorBody:
    status = STATUS_BY_CODE.get(error.code, 400 if isinstance(error, BadInputError) else 500)
    if status >= 500:
        _log.error("%s: %s", error.code, error.message, exc_info=error)
    return ErrorBody(code=error.code, status=status, message=error.message)


def unauthorized() -> ErrorBody:
    return ErrorBody(
        code="UNAUTHORIZED",
        status=401,
        message="an API key is required: Authorization: Bearer <token>; rawr token create makes one",
    )


def scope_missing(needed: str) -> ErrorBody:
    return ErrorBody(code="FORBIDDEN", status=403, message=f"this API key does not have the scope {needed}")


def too_many_requests() -> ErrorBody:
    message = "too many requests; the header Retry-After says how many seconds to wait"
    return ErrorBody(code="TOO_MANY_REQUESTS", status=429, message=message)


def json_required() -> ErrorBody:
    """A form of another site could be sent without asking; JSON cannot."""
    return ErrorBody(code="UNSUPPORTED_MEDIA_TYPE", status=415, message="the body must be application/json")
