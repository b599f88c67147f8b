"""The contract of a procedure: declared once, served on every route family that admits it. Pure.

`/rpc`, `/api/orpc`, `/api/workflows`, the OpenAPI document and the client all read these values.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, Generic, Literal, TypeVar

import msgspec

from rawr.errors import RawrError
from rawr.wire import JsonValue

Method = Literal["GET", "POST"]
Given = TypeVar("Given")
Answer = TypeVar("Answer")


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


class Operation(Declared, Generic[Given, Answer], frozen=True, kw_only=True):
    """What a procedure that answers once promises, without the code that keeps the promise. All that a client needs."""

    path: str
    """OpenAPI path below the family's prefix, `{camelCase}` for parameters: `/coordination/runs/{runId}`."""
    output_type: type[Answer]
    example: Example

    @property
    def operation_id(self) -> str:
        """`coordinationListWorkflows`."""
        return self.namespace + self.name[0].upper() + self.name[1:]

    def handled_by(self, handle: Callable[[Any, Given], Awaitable[Answer]]) -> Procedure:
        """The procedure that keeps the promise by `handle(context, input) -> output`."""
        return Procedure(**msgspec.structs.asdict(self), handle=handle)


class Procedure(Operation[Any, Any], frozen=True, kw_only=True):
    """A procedure that answers once. Published, and served on every family that admits it."""

    handle: Callable[[Any, Any], Awaitable[Any]]
    """`handle(context, input) -> output`, where context is a `procedures.context.Context`."""


class StreamEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a stream. A caller that lost the stream says the last `event_id` it saw and goes on after it."""

    value: Any
    event_id: str


class StreamOperation(Declared, Generic[Given, Answer], frozen=True, kw_only=True):
    """What a procedure that answers with values as they come promises."""

    event_type: type[Answer]

    def opened_by(
        self, open_events: Callable[[Any, Given], Awaitable[AsyncGenerator[StreamEvent, None]]]
    ) -> StreamProcedure:
        """The procedure that keeps the promise by `open_events(context, input) -> events`."""
        return StreamProcedure(**msgspec.structs.asdict(self), open=open_events)


class StreamProcedure(StreamOperation[Any, Any], frozen=True, kw_only=True):
    """A procedure that answers with values as they come. Served on `/rpc` only: it is not part of what is published."""

    open: Callable[[Any, Any], Awaitable[AsyncGenerator[StreamEvent, None]]]
    """What is wrong with the call is raised here, before there is a stream."""


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
