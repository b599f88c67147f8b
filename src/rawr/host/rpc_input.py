"""The input of a call of `/rpc`, wherever in the request it stands and in whichever version of the protocol."""

from __future__ import annotations

from typing import Final

from rawr.host.dispatch import FamilyDeps, query_pairs
from rawr.host.head import Head
from rawr.host.multipart import parse_multipart
from rawr.host.orpc_codec import Envelope, MalformedEnvelopeError, decode_envelope, form_envelope
from rawr.host.orpc_values import File
from rawr.host.request import Request
from rawr.host.rpc_protocol import RpcProtocol

_HINT: Final = b"standard-server"


async def read_input(request: Request, deps: FamilyDeps, asked: RpcProtocol | None, kind: str) -> Envelope:
    """The input of a request, whose head says `kind` of it. Raises what reading the body and decoding it raise."""
    if request.method == "GET":
        return query_input(request.query, asked)
    body = await deps.read(request)
    protocol = asked or RpcProtocol.V1
    if kind == "json":
        return decode_envelope(body, asked) if body else Envelope(protocol=protocol)
    content_type = request.header(b"content-type")
    match kind:
        case "form-data":
            return form_envelope(parse_multipart(body, content_type or ""), asked)
        case "file" | "octet-stream":
            file = File("blob", content_type or "application/octet-stream", body)
            return Envelope(value=file, is_rich=True, protocol=protocol)
        case "nothing" | "none" | "url-search-params" | "event-stream":
            return Envelope(protocol=protocol)
        case _:
            raise MalformedEnvelopeError("the header standard-server names no kind of body")


def kind_of_input(head: Head, asked: RpcProtocol | None) -> str:
    """What the body of a request with this head is."""
    content_type = head.text(b"content-type") or ""
    return _kind_of_v1(head, content_type) if asked is not RpcProtocol.V2 else _kind_of_v2(head, content_type)


def query_input(query: str, asked: RpcProtocol | None) -> Envelope:
    data = last_of(query, "data")
    return decode_envelope(data.encode(), asked) if data else Envelope(protocol=asked or RpcProtocol.V1)


def last_of(query: str, name: str) -> str:
    """The last of the fields with this name; empty when there is none."""
    found = [value for given, value in query_pairs(query) if given == name]
    return found[-1] if found else ""


def _kind_of_v1(head: Head, content_type: str) -> str:
    """A file has no envelope in it, and neither has a text."""
    if head.text(b"content-disposition") is not None:
        return "nothing"
    if content_type.lower().startswith("multipart/form-data"):
        return "form-data"
    return "json" if not content_type or content_type.lower().startswith("application/json") else "nothing"


def _kind_of_v2(head: Head, content_type: str) -> str:
    """What the caller says it is, else what the type of the body says; anything else is a file."""
    hint = head.text(_HINT)
    if hint is not None:
        return hint
    media_type = content_type.partition(";")[0].strip().lower()
    return {
        "": "json",
        "application/json": "json",
        "multipart/form-data": "form-data",
        "application/x-www-form-urlencoded": "url-search-params",
        "text/event-stream": "event-stream",
    }.get(media_type, "file")
