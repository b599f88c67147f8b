"""The contract of a procedure: declared once, served on every route family that admits it. Pure.

`/rpc`, `/api/orpc`, `/api/workflows`, the OpenAPI document and the client all read these values.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec

from rawr.errors import RawrError
from rawr.wire import JsonValue

Method = Literal["GET", "POST"]


class ProcedureError(msgspec.Struct, frozen=True, kw_only=True):
    """An error that a procedure documents."""

    code: str
    status: int
    meaning: str
    data: type[Any] | None = None
    """What the error tells besides its message; None for nothing that callers may rely on."""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One call as it may go, in the types of the procedure."""

    given: Any
    answer: Any


class Declared(msgspec.Struct, frozen=True, kw_only=True):
    """What every procedure says of itself, however it answers."""

    namespace: str
    name: str
    method: Method
    summary: str
    input_type: type[Any]
    errors: tuple[ProcedureError, ...]

    @property
    def rpc_path(self) -> str:
        """`coordination/listWorkflows`."""
        return f"{self.namespace}/{self.name}"


class Procedure(Declared, frozen=True, kw_only=True):
    """A procedure that answers once. Published, and served on every family that admits it."""

    path: str
    """OpenAPI path below the family's prefix, `{camelCase}` for parameters: `/coordination/runs/{runId}`."""
    output_type: type[Any]
    example: Example
    handle: Callable[[Any, Any], Awaitable[Any]]
    """`handle(context, input) -> output`, where context is a `procedures.context.Context`."""

    @property
    def operation_id(self) -> str:
        """`coordinationListWorkflows`."""
        return self.namespace + self.name[0].upper() + self.name[1:]


class StreamProcedure(Declared, frozen=True, kw_only=True):
    """A procedure that answers with values as they come. Served on `/rpc` only: it is not part of what is published."""

    event_type: type[Any]
    open: Callable[[Any, Any], Awaitable[AsyncGenerator[StreamEvent, None]]]
    """`open(context, input) -> events`. What is wrong with the call is raised here, before there is a stream."""


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a stream. A caller that lost the stream says the last `event_id` it saw and goes on after it."""

    value: Any
    event_id: str


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
