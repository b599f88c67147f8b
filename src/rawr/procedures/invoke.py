"""Calling a procedure with a JSON value: the one place where input is checked. Knows no transport."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from rawr.procedures.context import Context
from rawr.procedures.contract import Procedure, ProcedureFailedError, StreamEvent, StreamProcedure
from rawr.procedures.schema_issues import SchemaIssue, first_fit, schema_issues
from rawr.wire import JsonValue


async def invoke(procedure: Procedure, context: Context, value: JsonValue | msgspec.UnsetType) -> Any:
    """Check `value`, run the procedure, and return its output. UNSET stands for an absent input.

    Raises:
        ProcedureFailedError: BAD_REQUEST with every issue of the input, or what the procedure documents.
    """
    return await procedure.handle(context, parsed_input(procedure.input_type, value))


async def open_stream(
    procedure: StreamProcedure, context: Context, value: JsonValue | msgspec.UnsetType
) -> AsyncGenerator[StreamEvent, None]:
    """Check `value` and open the stream. Raises as `invoke` does; what fails later is raised by the stream."""
    return await procedure.open(context, parsed_input(procedure.input_type, value))


def parsed_input(input_type: type[Any], value: JsonValue | msgspec.UnsetType) -> Any:
    """The input of a procedure. Raises BAD_REQUEST, with every issue."""
    try:
        return first_fit(value, input_type)
    except msgspec.ValidationError as error:
        check_input(input_type, value)
        raise input_refused((SchemaIssue(message=str(error)),)) from error


def check_input(input_type: type[Any], value: JsonValue | msgspec.UnsetType) -> None:
    """Raise BAD_REQUEST with every issue of the input, if there are any."""
    issues = schema_issues(value, input_type)
    if issues:
        raise input_refused(issues)


def input_refused(issues: tuple[SchemaIssue, ...]) -> ProcedureFailedError:
    return ProcedureFailedError(
        "BAD_REQUEST", 400, "Input validation failed", data={"issues": [msgspec.to_builtins(issue) for issue in issues]}
    )
