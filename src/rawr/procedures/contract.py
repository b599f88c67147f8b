"""The contract of a procedure: declared once, served on every route family that admits it. Pure.

`/rpc`, `/api/orpc`, `/api/workflows`, the OpenAPI document and the client all read these values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from rawr.errors import RawrError
from rawr.wire import JsonValue

Method = Literal["GET", "POST"]


class ProcedureError(msgspec.Struct, frozen=True, kw_only=True):
    """An error that a procedure documents."""

    code: str
    status: int


class Procedure(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str
    name: str
    method: Method
    path: str
    """OpenAPI path below the family's prefix, `{camelCase}` for parameters: `/coordination/runs/{runId}`."""
    summary: str
    input_type: type[Any]
    output_type: type[Any]
    errors: tuple[ProcedureError, ...]
    handle: Callable[[Any, Any], Awaitable[Any]]
    """`handle(context, input) -> output`, where context is a `procedures.context.Context`."""

    @property
    def rpc_path(self) -> str:
        """`coordination/listWorkflows`."""
        return f"{self.namespace}/{self.name}"

    @property
    def operation_id(self) -> str:
        """`coordinationListWorkflows`."""
        return self.namespace + self.name[0].upper() + self.name[1:]


class Capability(msgspec.Struct, frozen=True, kw_only=True):
    """A caller-facing workflow boundary: `/api/workflows<path_prefix>/*` serves `procedures` and nothing else."""

    name: str
    path_prefix: str
    """With a leading slash: `/coordination`. The procedures' own paths start with it."""
    procedures: tuple[Procedure, ...]


class ProcedureFailedError(RawrError):
    """A documented error of a procedure, with the code, status, message and data that go on the wire."""

    code = "PROCEDURE_FAILED"

    def __init__(
        self, code: str, status: int, message: str, *, data: Mapping[str, JsonValue] | msgspec.Struct | None = None
    ) -> None:
        super().__init__(message)
        self.wire_code = code
        self.status = status
        self.data = data
