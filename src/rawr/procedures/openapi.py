"""The OpenAPI document of the published procedures, made from the contract and nothing else. Pure.

The server's URL carries the family's prefix, so that `servers[0].url + path` is where a call really goes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from rawr.procedures.contract import Procedure, ProcedureError
from rawr.wire import JsonValue

TITLE: Final = "RAWR HQ ORPC API"
VERSION: Final = "1.0.0"

_PARAMETER: Final = re.compile(r"\{([A-Za-z]+)\}")
_REF: Final = "#/components/schemas/{name}"

# What every operation can answer, whatever it does. The details are in the error body.
_ALWAYS: Final = (
    ProcedureError(code="BAD_REQUEST", status=400),
    ProcedureError(code="UNAUTHORIZED", status=401),
    ProcedureError(code="FORBIDDEN", status=403),
    ProcedureError(code="PAYLOAD_TOO_LARGE", status=413),
    ProcedureError(code="INTERNAL_SERVER_ERROR", status=500),
)


def openapi_document(procedures: Iterable[Procedure], *, server_url: str) -> dict[str, JsonValue]:
    known = tuple(procedures)
    types = [known_type for procedure in known for known_type in (procedure.input_type, procedure.output_type)]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, dict[str, JsonValue]] = {}
    for index, procedure in enumerate(known):
        input_schema = _resolved(schemas[2 * index], components)
        paths.setdefault(procedure.path, {})[procedure.method.lower()] = _operation(
            procedure, input_schema, schemas[2 * index + 1]
        )
    return {
        "openapi": "3.1.1",
        "info": {"title": TITLE, "version": VERSION},
        "servers": [{"url": server_url}],
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of this HQ, made by `rawr token create`.",
                }
            },
        },
    }


def _operation(procedure: Procedure, input_schema: dict[str, Any], output_schema: JsonValue) -> dict[str, JsonValue]:
    in_path = _PARAMETER.findall(procedure.path)
    operation: dict[str, JsonValue] = {
        "operationId": procedure.operation_id,
        "summary": procedure.summary,
        "tags": [procedure.namespace],
        "parameters": _parameters(procedure, input_schema, in_path),
    }
    if procedure.method != "GET":
        operation["requestBody"] = _request_body(input_schema, in_path)
    operation["responses"] = {
        "200": {"description": "OK", "content": {"application/json": {"schema": output_schema}}},
        **_error_responses((*_ALWAYS, *procedure.errors)),
    }
    return operation


def _parameters(procedure: Procedure, input_schema: dict[str, Any], in_path: Sequence[str]) -> list[JsonValue]:
    """What the path says, and for a GET what the query may say."""
    required = input_schema.get("required", ())
    return [
        {
            "name": name,
            "in": "path" if name in in_path else "query",
            "required": name in required,
            "schema": schema,
        }
        for name, schema in input_schema["properties"].items()
        if name in in_path or procedure.method == "GET"
    ]


def _request_body(input_schema: dict[str, Any], in_path: Sequence[str]) -> dict[str, JsonValue]:
    """The input without what the path already says. A body that may be empty need not be sent."""
    properties = {name: schema for name, schema in input_schema["properties"].items() if name not in in_path}
    required = [name for name in input_schema.get("required", ()) if name not in in_path]
    schema: dict[str, JsonValue] = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        schema["required"] = required
    return {"required": bool(required), "content": {"application/json": {"schema": schema}}}


def _error_responses(errors: Iterable[ProcedureError]) -> dict[str, JsonValue]:
    codes: dict[int, list[str]] = {}
    for error in errors:
        listed = codes.setdefault(error.status, [])
        if error.code not in listed:
            listed.append(error.code)
    return {str(status): _error_response(status, codes[status]) for status in sorted(codes)}


def _error_response(status: int, codes: Sequence[str]) -> dict[str, JsonValue]:
    schema = {
        "type": "object",
        "required": ["defined", "code", "status", "message"],
        "properties": {
            "defined": {"const": False},
            "code": {"type": "string", "enum": list(codes)},
            "status": {"const": status},
            "message": {"type": "string"},
            "data": {},
        },
        "additionalProperties": False,
    }
    return {"description": ", ".join(codes), "content": {"application/json": {"schema": schema}}}


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    """An input's own schema; inputs are closed objects and appear nowhere else."""
    name = schema["$ref"].rpartition("/")[2]
    resolved: dict[str, Any] = components[name]
    return resolved
