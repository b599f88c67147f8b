"""`/rpc/<namespace>/<procedure>`: the first-party family, oRPC's own envelope, the instance's CLI key.

There is no other transport of procedures below it: `/rpc/workflows/…` leads nowhere. Who calls is decided once,
on the request itself; the calls of a batch are that caller's, whatever they say.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec

from rawr.host.auth import bearer_secret, label_keeps_rpc, label_of, surface_label
from rawr.host.dispatch import FamilyDeps, answered, plain_input, query_pairs
from rawr.host.event_stream import EventStream, frame
from rawr.host.multipart import parse_multipart
from rawr.host.orpc_codec import Envelope, decode_envelope, encode_envelope, envelope_of, form_envelope
from rawr.host.request import Request
from rawr.host.responses import Response, enveloped, enveloped_error, event_stream, forbidden, not_found
from rawr.host.rpc_batch import (
    HEADER,
    STATUS,
    BatchItem,
    BatchMode,
    BatchTooLargeError,
    InvalidBatchError,
    answer_of,
    batch_items,
    batch_mode,
    buffered,
    refused,
    stream_refused,
    unmatched,
)
from rawr.procedures.contract import Procedure, ProcedureFailedError, StreamEvent, StreamProcedure
from rawr.procedures.invoke import invoke, open_stream
from rawr.security.policy import Caller, CallerClass, PrincipalKind
from rawr.wire import MalformedJsonError, decode, encode

PREFIX: Final = "/rpc"

_CLI: Final = Caller(caller_class=CallerClass.CLI, principal=PrincipalKind.PERSON)

Input = Callable[[], Awaitable[Envelope]]


class RpcFamily:
    def __init__(self, procedures: Iterable[Procedure | StreamProcedure], deps: FamilyDeps) -> None:
        self._table = {f"{PREFIX}/{procedure.rpc_path}": procedure for procedure in procedures}
        self._deps = deps

    async def __call__(self, request: Request) -> Response:
        if not self._admits(request):
            return forbidden()
        request.notes.caller_class = _CLI.caller_class
        mode = request.header(HEADER)
        if mode is not None:
            request.notes.operation = "batch"
            return await answered(self._batch(request, batch_mode(mode)), enveloped_error)
        procedure = self._table.get(request.path.removesuffix("/"))
        if procedure is None:
            return not_found()
        request.notes.operation = procedure.rpc_path
        request.notes.route = f"{PREFIX}/{procedure.rpc_path}"
        work = self._call(request, procedure, request.method, lambda: self._input(request))
        return await answered(work, enveloped_error)

    def _admits(self, request: Request) -> bool:
        secret = bearer_secret(request.headers)
        is_ours = secret is not None and self._deps.credentials.is_cli_key(secret)
        return is_ours and label_keeps_rpc(surface_label(request.headers))

    async def _call(
        self, request: Request, procedure: Procedure | StreamProcedure, method: str, given: Input
    ) -> Response:
        envelope = await given()
        if method == "GET" and procedure.method != "GET":
            # After decoding and before validation, as oRPC does it.
            raise ProcedureFailedError("METHOD_NOT_SUPPORTED", 405, "Method Not Supported")
        value = plain_input(procedure.input_type, envelope)
        context = self._deps.context(request, _CLI)
        if isinstance(procedure, Procedure):
            return enveloped(await invoke(procedure, context, value))
        events = self._deps.streams.opened(await open_stream(procedure, context, value))
        # A stream that returns nothing is done with an empty envelope.
        end = frame("done", encode_envelope(msgspec.UNSET))
        ping_s = self._deps.limits.stream_ping_s
        return event_stream(EventStream(events, ping_s=ping_s, encode=encode_envelope, end=end))

    async def _input(self, request: Request) -> Envelope:
        if request.method == "GET":
            return _query_input(request.query)
        content_type = request.header(b"content-type") or ""
        body = await self._deps.read(request)
        if request.header(b"content-disposition") is not None:
            return Envelope()  # a file has no `json` in it
        kind = content_type.lower()
        if kind.startswith("multipart/form-data"):
            return form_envelope(parse_multipart(body, content_type))
        if body and (not kind or kind.startswith("application/json")):
            return decode_envelope(body)
        return Envelope()  # and neither has a text

    async def _batch(self, request: Request, mode: BatchMode) -> Response:
        try:
            items = await self._batch_items(request)
        except (InvalidBatchError, MalformedJsonError, BatchTooLargeError) as error:
            return refused(error)
        answers = self._answers(request, items)
        if mode is BatchMode.STREAMING:
            stream = EventStream(answers, ping_s=self._deps.limits.stream_ping_s, encode=encode)
            return event_stream(stream, status=STATUS)
        return buffered([answer.value async for answer in answers])

    async def _batch_items(self, request: Request) -> Sequence[BatchItem]:
        raw = _last(request.query, "batch") if request.method == "GET" else await self._deps.read(request)
        return batch_items(decode(raw), method=request.method, most=self._deps.limits.batch_size)

    async def _answers(self, request: Request, items: Sequence[BatchItem]) -> AsyncGenerator[StreamEvent, None]:
        """What each call came to, in the order in which they end."""
        tasks = [asyncio.create_task(self._item(request, index, item)) for index, item in enumerate(items)]
        try:
            for answer in asyncio.as_completed(tasks):
                yield StreamEvent(value=await answer, event_id="")
        finally:
            # As with a call of its own: what has begun is not cut off because the caller left.
            await asyncio.gather(*tasks)

    async def _item(self, request: Request, index: int, item: BatchItem) -> dict[str, Any]:
        return answer_of(index, await self._item_answer(request, item))

    async def _item_answer(self, request: Request, item: BatchItem) -> Response:
        if not label_keeps_rpc(label_of(item.label)):
            return forbidden()
        procedure = self._table.get(item.path.removesuffix("/"))
        if procedure is None:
            return unmatched()
        if isinstance(procedure, StreamProcedure):
            return stream_refused()
        return await answered(self._call(request, procedure, item.method, lambda: _item_input(item)), enveloped_error)


async def _item_input(item: BatchItem) -> Envelope:
    if item.method == "GET":
        return _query_input(item.query)
    return Envelope() if item.body is msgspec.UNSET else envelope_of(item.body)


def _query_input(query: str) -> Envelope:
    data = _last(query, "data")
    return decode_envelope(data.encode()) if data else Envelope()


def _last(query: str, name: str) -> str:
    """The last of the fields with this name; empty when there is none."""
    found = [value for given, value in query_pairs(query) if given == name]
    return found[-1] if found else ""
