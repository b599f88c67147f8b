"""The errors of an operation as the published document tells them: one schema for each code. Pure.

Codes below 500 are a closed set, and a code means the same wherever it comes. Above, the machine may fail in ways
that no contract lists, so those codes are open.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from rawr.procedures.contract import Procedure, ProcedureError
from rawr.procedures.schema_issues import SchemaIssue
from rawr.wire import JsonValue, Wire

REF: Final = "#/components/schemas/{name}"


class InputIssuesData(Wire, frozen=True, kw_only=True):
    issues: tuple[SchemaIssue, ...]


# What an operation can answer, whatever it does.
_ALWAYS: Final = (
    ProcedureError(
        code="BAD_REQUEST",
        status=400,
        meaning="The request is malformed, or its input does not fit; then the data have every misfit.",
        data=InputIssuesData,
    ),
    ProcedureError(code="UNAUTHORIZED", status=401, meaning="There is no valid API key."),
    ProcedureError(code="FORBIDDEN", status=403, meaning="The API key does not have the scope of this operation."),
    ProcedureError(
        code="TOO_MANY_REQUESTS", status=429, meaning="Too often: for this API key, or without a valid one."
    ),
    ProcedureError(code="INTERNAL_SERVER_ERROR", status=500, meaning="Something broke; the log of the HQ says what."),
    ProcedureError(code="SERVICE_UNAVAILABLE", status=503, meaning="Not now: the disk or a lock. Ask again."),
    ProcedureError(code="GATEWAY_TIMEOUT", status=504, meaning="No answer in time; the call may have happened."),
)
# And what it can answer when it takes a body.
_WITH_A_BODY: Final = (
    ProcedureError(code="REQUEST_TIMEOUT", status=408, meaning="The body did not arrive in time."),
    ProcedureError(code="PAYLOAD_TOO_LARGE", status=413, meaning="The body is larger than this HQ takes."),
)
_MAY_HAVE_DATA: Final = frozenset({"BAD_REQUEST"})
_RETRY_AFTER: Final[dict[str, JsonValue]] = {
    "Retry-After": {"description": "Seconds to wait before asking again.", "schema": {"type": "string"}}
}
_HEADERS: Final[dict[int, dict[str, JsonValue]]] = {
    401: {"WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string", "const": "Bearer"}}},
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}


def errors_of(procedure: Procedure) -> tuple[ProcedureError, ...]:
    """Every error of the operation: its own, and those that any operation may end with."""
    with_a_body = () if procedure.method == "GET" else _WITH_A_BODY
    return (*_ALWAYS, *with_a_body, *procedure.errors)


def error_responses(errors: Iterable[ProcedureError]) -> dict[str, JsonValue]:
    """The `responses` for `errors`, by status."""
    by_status: dict[int, list[ProcedureError]] = {}
    for error in errors:
        by_status.setdefault(error.status, []).append(error)
    return {str(status): _response(status, by_status[status]) for status in sorted(by_status)}


def error_schema(error: ProcedureError, data_schema: JsonValue | None) -> dict[str, JsonValue]:
    """The five keys of the error. `data_schema` describes its data; None for data that callers cannot rely on."""
    code: dict[str, JsonValue] = {"type": "string", "const": error.code}
    if error.status >= 500 and data_schema is None:
        code = {"type": "string", "description": "Open: the faults of a machine.", "examples": [error.code]}
    properties: dict[str, Any] = {
        "defined": {"type": "boolean", "const": False},
        "code": code,
        "status": {"type": "integer", "const": error.status},
        "message": {"type": "string"},
    }
    required = list(properties)
    if data_schema is not None:
        properties["data"] = data_schema
        required += [] if error.code in _MAY_HAVE_DATA else ["data"]
    return {
        "title": error_name(error),
        "description": error.meaning,
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def error_name(error: ProcedureError) -> str:
    """`WorkflowNotFoundError` for `WORKFLOW_NOT_FOUND`."""
    return error.code.title().replace("_", "").removesuffix("Error") + "Error"


def _response(status: int, errors: list[ProcedureError]) -> dict[str, JsonValue]:
    refs: list[JsonValue] = [{"$ref": REF.format(name=error_name(error))} for error in errors]
    schema = refs[0] if len(refs) == 1 else {"anyOf": refs}
    response: dict[str, JsonValue] = {
        "description": " ".join(f"`{error.code}`: {error.meaning}" for error in errors),
        "content": {"application/json": {"schema": schema}},
    }
    if status in _HEADERS:
        response["headers"] = _HEADERS[status]
    return response
