"""The OpenAPI document of published procedures, made from the contract and nothing else. Pure.

The server's URL carries the family's prefix, so that `servers[0].url + path` is where a call really goes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from rawr.procedures.contract import Procedure, ProcedureError
from rawr.procedures.openapi_errors import REF, error_name, error_responses, error_schema, errors_of
from rawr.security.policy import Evidence, Family, evidence_for
from rawr.wire import JsonValue

TITLE: Final = "RAWR HQ ORPC API"
VERSION: Final = "1.0.0"

_PARAMETER: Final = re.compile(r"\{([A-Za-z]+)\}")
_SCHEMES: Final[Mapping[Evidence, tuple[str, dict[str, JsonValue]]]] = {
    Evidence.API_KEY: (
        "bearer",
        {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key of this HQ, made by `rawr token create`. "
            "An operation names the scope that it needs.",
        },
    ),
}
"""How each evidence that opens a published family is shown."""


def openapi_document(
    procedures: Iterable[Procedure],
    *,
    title: str,
    server_url: str,
    family: Family,
    scope_of: Callable[[Procedure], str],
) -> dict[str, JsonValue]:
    """The document of `procedures` below `server_url`; `scope_of` says what an API key needs for one of them."""
    known = tuple(procedures)
    schemes = dict(_SCHEMES[evidence] for evidence in evidence_for(family))
    components = _Components(known)
    paths: dict[str, dict[str, JsonValue]] = {}
    for procedure in known:
        operation = _operation(procedure, components, [{name: [scope_of(procedure)]} for name in schemes])
        paths.setdefault(procedure.path, {})[procedure.method.lower()] = operation
    return {
        "openapi": "3.1.1",
        "info": {"title": title, "version": VERSION},
        "servers": [{"url": server_url}],
        "tags": [{"name": name} for name in dict.fromkeys(procedure.namespace for procedure in known)],
        "paths": paths,
        "components": {"schemas": components.schemas, "securitySchemes": schemes},
    }


class _Components:
    """The schemas of every type and error of `procedures`. Inputs are not among them: each is used in one place."""

    def __init__(self, procedures: Sequence[Procedure]) -> None:
        inputs = [procedure.input_type for procedure in procedures]
        errors = {error.code: error for procedure in procedures for error in errors_of(procedure)}
        with_data = [error for error in errors.values() if error.data is not None]
        types = [*inputs, *(procedure.output_type for procedure in procedures), *(error.data for error in with_data)]
        refs, self.schemas = msgspec.json.schema_components(types, ref_template=REF)
        self._refs = dict(zip(types, refs, strict=True))
        self._inputs = {known: self.schemas.pop(_name(self._refs[known])) for known in dict.fromkeys(inputs)}
        for error in errors.values():
            self.schemas[error_name(error)] = self._error(error)

    def input_of(self, procedure: Procedure) -> dict[str, Any]:
        schema: dict[str, Any] = self._inputs[procedure.input_type]
        return schema

    def output_of(self, procedure: Procedure) -> JsonValue:
        return self._refs[procedure.output_type]

    def _error(self, error: ProcedureError) -> dict[str, JsonValue]:
        return error_schema(error, None if error.data is None else self._refs[error.data])


def _name(ref: dict[str, Any]) -> str:
    name: str = ref["$ref"].rpartition("/")[2]
    return name


def _operation(procedure: Procedure, components: _Components, security: JsonValue) -> dict[str, JsonValue]:
    given = components.input_of(procedure)
    example = msgspec.to_builtins(procedure.example.given)
    in_path = _PARAMETER.findall(procedure.path)
    in_body = [name for name in given["properties"] if name not in in_path] if procedure.method != "GET" else []
    operation: dict[str, JsonValue] = {
        "operationId": procedure.operation_id,
        "summary": procedure.summary,
        "tags": [procedure.namespace],
        "security": security,
        "parameters": [
            _parameter(name, given, example, place="path" if name in in_path else "query")
            for name in given["properties"]
            if name not in in_body
        ],
    }
    if in_body:
        operation["requestBody"] = _request_body(given, example, in_body)
    operation["responses"] = {"200": _answer(procedure, components), **error_responses(errors_of(procedure))}
    return operation


def _parameter(name: str, given: dict[str, Any], example: dict[str, JsonValue], *, place: str) -> dict[str, JsonValue]:
    """One input of the path or, for a GET, of the query. What the path says need not be repeated anywhere."""
    parameter = {"name": name, "in": place, "required": name in given.get("required", ())}
    shown = {"example": example[name]} if name in example else {}
    return {**parameter, "schema": given["properties"][name], **shown}


def _request_body(given: dict[str, Any], example: dict[str, JsonValue], names: Sequence[str]) -> dict[str, JsonValue]:
    """The input without what the path already says. A body that may be empty need not be sent."""
    required = [name for name in given.get("required", ()) if name in names]
    schema: dict[str, JsonValue] = {
        "type": "object",
        "properties": {name: given["properties"][name] for name in names},
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    shown = {name: value for name, value in example.items() if name in names}
    return {"required": bool(required), "content": {"application/json": {"schema": schema, "example": shown}}}


def _answer(procedure: Procedure, components: _Components) -> dict[str, JsonValue]:
    example = msgspec.to_builtins(procedure.example.answer)
    schema = components.output_of(procedure)
    return {"description": "OK", "content": {"application/json": {"schema": schema, "example": example}}}
