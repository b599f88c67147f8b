"""`/rpc/<namespace>/<procedure>`: the first-party family, oRPC's own envelope, the instance's CLI key.

There is no other transport of procedures below it: `/rpc/workflows/…` leads nowhere. Who calls is decided once,
on the request itself; the calls of a batch are that caller's, whatever they say.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from rawr.host import rpc_batch, rpc_batch_v2
from rawr.host.auth import label_of, sends_json
from rawr.host.authority import CredentialsUnavailableError, admitted, decided
from rawr.host.dispatch import FamilyDeps, plain_input
from rawr.host.errors import ErrorBody, error_body, json_required, scope_missing, too_many_requests
from rawr.host.event_stream import EventStream, frame
from rawr.host.head import Head
from rawr.host.orpc_codec import Envelope, encode_envelope, envelope_of
from rawr.host.request import Request
from rawr.host.responses import (
    Response,
    after,
    enveloped,
    enveloped_error,
    error_in,
    event_stream,
    forbidden,
    not_found,
    streamed,
)
from rawr.host.rpc_batch import BatchItem, BatchMode, BatchTooLargeError, InvalidBatchError, batch_mode
from rawr.host.rpc_input import kind_of_input, last_of, query_input, read_input
from rawr.host.rpc_protocol import AmbiguousProtocolError, RpcProtocol, asked_protocol
from rawr.procedures.context import Context
from rawr.procedures.contract import Procedure, ProcedureFailedError, StreamEvent, StreamProcedure
from rawr.procedures.invoke import invoke, open_stream
from rawr.procedures.markers import Dedupe
from rawr.security.policy import CallerClass, Decision, Family, Verdict, opens, scope_name
from rawr.wire import JsonValue, MalformedJsonError, decode, encode

PREFIX: Final = "/rpc"

_NOT_FOUND: Final = ErrorBody(code="NOT_FOUND", status=404, message="No procedure matched")
_FORBIDDEN: Final = ErrorBody(code="FORBIDDEN", status=403, message="Forbidden")
_NO_STREAMS: Final = ErrorBody(
    code="NOT_IMPLEMENTED", status=501, message="A stream is no answer in a batch: call it on its own"
)

Input = Callable[[], Awaitable[Envelope]]


class _Call(msgspec.Struct, kw_only=True):
    """What is known of the calls with one head."""

    asked: RpcProtocol | None
    batch_mode: str | None
    procedure: Procedure | StreamProcedure | None
    operation: str
    route: str
    kind: str
    """Of the input."""
    admitted_by: Decision | None = None
    """The last decision that let such a call in."""
    is_open: bool = False
    """Whether that decision covers the procedure."""


_CALL: Final = Dedupe[_Call](key="rpc.call")


class RpcFamily:
    def __init__(self, procedures: Iterable[Procedure | StreamProcedure], deps: FamilyDeps) -> None:
        self._table = {f"{PREFIX}/{procedure.rpc_path}": procedure for procedure in procedures}
        self._deps = deps

    async def __call__(self, request: Request) -> Response:
        head = request.head
        decision = self._deps.authority.at_once(request, Family.RPC)
        if not isinstance(decision, Decision):
            try:
                decision = await self._deps.authority.decision(request, Family.RPC)
            except CredentialsUnavailableError as error:
                return enveloped_error(error_body(error))
        try:
            call = head.marks.find(_CALL) or self._call_of(head)
        except AmbiguousProtocolError as error:
            # Only who is let in is told.
            return _refusal(request, decision, RpcProtocol.V1) or enveloped_error(error_body(error))
        protocol = call.asked or RpcProtocol.V1
        if call.admitted_by is not decision:
            refusal = _refusal(request, decision, protocol)
            if refusal is not None:
                return refusal
            call.admitted_by = decision
            call.is_open = call.procedure is not None and decision.opens(call.procedure.namespace)
        if call.batch_mode is not None:
            request.notes.operation = "batch"
            return await self._batch(request, batch_mode(call.batch_mode), protocol)
        procedure = call.procedure
        if procedure is None:
            return not_found() if protocol is RpcProtocol.V1 else enveloped_error(_NOT_FOUND, protocol)
        request.notes.operation, request.notes.route = call.operation, call.route
        given = partial(read_input, request, self._deps, call.asked, call.kind)
        return await self._answer(request, procedure, head.method, given, call.asked, is_open=call.is_open)

    def _call_of(self, head: Head) -> _Call:
        asked = asked_protocol(head.headers)
        procedure = self._table.get(head.path.removesuffix("/"))
        call = _Call(
            asked=asked,
            batch_mode=head.text((asked or RpcProtocol.V1).batch_header),
            procedure=procedure,
            operation="" if procedure is None else procedure.rpc_path,
            route="" if procedure is None else f"{PREFIX}/{procedure.rpc_path}",
            kind=kind_of_input(head, asked),
        )
        head.marks.keep(_CALL, call)
        return call

    async def _answer(
        self,
        request: Request,
        procedure: Procedure | StreamProcedure,
        method: str,
        given: Input,
        asked: RpcProtocol | None,
        *,
        is_open: bool,
    ) -> Response:
        """The answer in the protocol that was asked for, or else in the one that the input turns out to speak."""
        protocol = asked or RpcProtocol.V1
        try:
            if not is_open:
                return enveloped_error(scope_missing(scope_name(Family.RPC, procedure.namespace)), protocol)
            envelope = await given()
            protocol = envelope.protocol
            if method == "GET" and procedure.method != "GET":
                # After decoding and before validation, as oRPC does it.
                raise ProcedureFailedError("METHOD_NOT_SUPPORTED", 405, "Method Not Supported")
            value = plain_input(procedure.input_type, envelope)
            context = self._deps.context(request, admitted(request))
            if isinstance(procedure, Procedure):
                return enveloped(await invoke(procedure, context, value), protocol)
            return await self._stream(request, procedure, context, value, protocol)
        except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong, the caller gets an answer
            return enveloped_error(error_body(error), protocol)

    async def _stream(
        self,
        request: Request,
        procedure: StreamProcedure,
        context: Context,
        value: JsonValue | msgspec.UnsetType,
        protocol: RpcProtocol,
    ) -> Response:
        context = msgspec.structs.replace(context, last_event_id=request.header(b"last-event-id"))
        events = self._deps.streams.opened(await open_stream(procedure, context, value))
        return event_stream(_event_stream(events, self._deps.limits.stream_ping_s, protocol))

    async def _batch(self, request: Request, mode: BatchMode, protocol: RpcProtocol) -> Response:
        try:
            items = await self._batch_items(request, protocol)
        except (InvalidBatchError, MalformedJsonError, BatchTooLargeError) as error:
            return rpc_batch.refused(error)
        except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong, the caller gets an answer
            return enveloped_error(error_body(error), protocol)
        answers = self._answers(request, items, protocol)
        if mode is BatchMode.BUFFERED:
            return rpc_batch.buffered([answer.value async for answer in answers])
        if protocol is RpcProtocol.V2:
            return streamed(_frames(answers), rpc_batch_v2.STREAM_TYPE, status=rpc_batch.STATUS)
        stream = EventStream(answers, ping_s=self._deps.limits.stream_ping_s, encode=encode)
        return event_stream(stream, status=rpc_batch.STATUS)

    async def _batch_items(self, request: Request, protocol: RpcProtocol) -> Sequence[BatchItem]:
        field = "batch" if protocol is RpcProtocol.V1 else "data"
        raw = last_of(request.query, field) if request.method == "GET" else await self._deps.read(request)
        most = self._deps.limits.batch_size
        if protocol is RpcProtocol.V2:
            return rpc_batch_v2.batch_items(decode(raw), most=most)
        return rpc_batch.batch_items(decode(raw), method=request.method, most=most)

    async def _answers(
        self, request: Request, items: Sequence[BatchItem], protocol: RpcProtocol
    ) -> AsyncGenerator[StreamEvent, None]:
        """What each call came to, in the order in which they end."""
        answer_of = rpc_batch.answer_of if protocol is RpcProtocol.V1 else rpc_batch_v2.answer_of

        async def answered(item: BatchItem) -> dict[str, Any]:
            return answer_of(item, await self._item_answer(request, item, protocol))

        tasks = [asyncio.create_task(answered(item)) for item in items]
        try:
            for answer in asyncio.as_completed(tasks):
                yield StreamEvent(value=await answer, event_id="")
        finally:
            # As with a call of its own: what has begun is not cut off because the caller left.
            await asyncio.gather(*tasks)

    async def _item_answer(self, request: Request, item: BatchItem, protocol: RpcProtocol) -> Response:
        is_v1 = protocol is RpcProtocol.V1
        label = label_of(item.label)
        if label is not None and not opens(label, Family.RPC):
            return forbidden() if is_v1 else enveloped_error(_FORBIDDEN, protocol)
        procedure = self._table.get(item.path.removesuffix("/"))
        if procedure is None:
            return rpc_batch.unmatched() if is_v1 else enveloped_error(_NOT_FOUND, protocol)
        if isinstance(procedure, StreamProcedure):
            return rpc_batch.stream_refused() if is_v1 else enveloped_error(_NO_STREAMS, protocol)
        is_open = decided(request).opens(procedure.namespace)
        given = partial(_item_input, item, protocol)
        return await self._answer(request, procedure, item.method, given, protocol, is_open=is_open)


def _refusal(request: Request, decision: Decision, protocol: RpcProtocol) -> Response | None:
    """Why a request goes no further than the decision on it."""
    if decision.verdict is Verdict.TOO_MANY:
        return after(decision.retry_after_s, enveloped_error(too_many_requests(), protocol))
    if not decision.is_admitted:
        return forbidden()
    # A cookie comes along with whatever a browser sends. What it sends without asking us is never JSON.
    is_session = admitted(request).caller_class is CallerClass.FIRST_PARTY
    if is_session and request.method != "GET" and not sends_json(request.headers):
        return enveloped_error(json_required(), protocol)
    return None


def _event_stream(events: Any, ping_s: float, protocol: RpcProtocol) -> EventStream:
    """A stream that returns nothing ends in version 1 with an empty envelope, and in version 2 with no data."""
    return EventStream(
        events,
        ping_s=ping_s,
        encode=partial(encode_envelope, protocol=protocol),
        error=partial(error_in, protocol=protocol),
        end=frame("done", encode_envelope(msgspec.UNSET)) if protocol is RpcProtocol.V1 else frame("close", None),
    )


async def _frames(answers: AsyncGenerator[StreamEvent, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(answers):
        async for answer in answers:
            yield rpc_batch_v2.framed(answer.value)


async def _item_input(item: BatchItem, protocol: RpcProtocol) -> Envelope:
    if item.method == "GET":
        return query_input(item.query, protocol)
    return Envelope(protocol=protocol) if item.body is msgspec.UNSET else envelope_of(item.body, protocol)
