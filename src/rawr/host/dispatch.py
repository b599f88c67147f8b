"""What the families share: matching paths, reading input, calling a procedure, refusing who is not let in.

Two dialects meet here: `/rpc` puts everything into an envelope, the OpenAPI families use plain JSON, path
parameters and query strings. Neither parses anything before the caller has been let in.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from rawr.errors import BadInputError
from rawr.host.authority import Authority, admitted
from rawr.host.bracket_notation import parse_bracketed
from rawr.host.errors import ErrorBody, error_body, scope_missing, too_many_requests, unauthorized
from rawr.host.head import Head
from rawr.host.multipart import parse_multipart
from rawr.host.orpc_codec import Envelope
from rawr.host.orpc_values import plain
from rawr.host.request import BodyPace, Request
from rawr.host.responses import Response, after, json_response, not_found, plain_error
from rawr.host.settings import Limits
from rawr.host.streams import OpenStreams
from rawr.procedures.context import Context
from rawr.procedures.contract import Procedure
from rawr.procedures.invoke import check_input, input_refused, parsed_input
from rawr.procedures.markers import Dedupe
from rawr.procedures.schema_issues import SchemaIssue
from rawr.security.policy import Caller, Decision, Family, Verdict, scope_name
from rawr.wire import JsonValue, decode, encode

FIELDS_MAX: Final = 10_000

_ESCAPES: Final = re.compile(r"(?:[^%]|%[0-9A-Fa-f]{2})*\Z")


ContextSource = Callable[[Request, Caller], Context]


class FamilyDeps(msgspec.Struct, frozen=True, kw_only=True):
    """What every procedure family is built from."""

    authority: Authority
    context: ContextSource
    limits: Limits
    streams: OpenStreams

    def read(self, request: Request) -> Awaitable[bytes]:
        """The body of the request. Raises what `Request.body` raises."""
        limits = self.limits
        return request.body(limit_bytes=limits.body_bytes, timeout_s=limits.body_s, pace=body_pace(limits))


def body_pace(limits: Limits) -> BodyPace:
    return BodyPace(bytes_per_s=limits.body_bytes_per_s, grace_s=limits.head_s)


class Match(msgspec.Struct, frozen=True, kw_only=True):
    procedure: Procedure
    params: Mapping[str, str]
    part: str
    """The part of the family that a scope must open."""
    operation: str
    """What the log calls the procedure."""
    route: str
    """And what it says of the path: the names of parameters, not what they are."""


class _Call(msgspec.Struct, kw_only=True):
    """What is known of the calls with one head."""

    match: Match | None
    opened_by: Decision | None = None
    """The last decision that was found to open it."""
    given: Any = msgspec.UNSET
    """The input, where it is made of the texts in the path and of nothing else: as constant as the head is."""


_CALL: Final = Dedupe[_Call](key="dispatch.call")


class OpenApiTable:
    """Procedures by method and OpenAPI path. A path parameter is one non-empty segment, decoded once."""

    def __init__(self, procedures: Iterable[Procedure], *, family: Family, part_of: Callable[[Procedure], str]) -> None:
        self._family = family
        self._part_of = part_of
        self._routes: dict[tuple[str, int], list[tuple[tuple[str, ...], Procedure]]] = {}
        for procedure in procedures:
            segments = tuple(procedure.path.split("/"))
            self._routes.setdefault((procedure.method, len(segments)), []).append((segments, procedure))

    def match(self, method: str, path: str) -> Match | None:
        """`path` below the family's prefix, with its leading slash; one trailing slash does not count."""
        given = path.removesuffix("/").split("/")
        for segments, procedure in self._routes.get((method, len(given)), ()):
            params = _params(segments, given)
            if params is not None:
                return Match(
                    procedure=procedure,
                    params=params,
                    part=self._part_of(procedure),
                    operation=procedure.rpc_path,
                    route=f"/api/{self._family.value}{procedure.path}",
                )
        return None


class PublishedFamily:
    """A published family: the procedures that `find` knows by method and path, and documents of them by path."""

    def __init__(
        self,
        family: Family,
        deps: FamilyDeps,
        *,
        find: Callable[[str, str], Match | None],
        documents: Mapping[str, JsonValue],
    ) -> None:
        self._family = family
        self._deps = deps
        self._find = find
        self._documents = {path: _document(document) for path, document in documents.items()}

    async def __call__(self, request: Request) -> Response:
        """Decide, then route, then check the scope, then run."""
        authority = self._deps.authority
        try:
            decision = authority.at_once(request, self._family)
            if not isinstance(decision, Decision):
                decision = await authority.decision(request, self._family)
            if not decision.is_admitted:
                return _refused(decision)
            call = request.head.marks.find(_CALL) or self._call_of(request.head)
            match = call.match
            if match is None:
                return self._document_at(request.head) or not_found()
            if call.opened_by is not decision:
                if not decision.opens(match.part):
                    return plain_error(scope_missing(scope_name(self._family, match.part)))
                call.opened_by = decision
            notes = request.notes
            notes.operation, notes.route = match.operation, match.route
            given = call.given if call.given is not msgspec.UNSET else await _given(request, self._deps, call, match)
            return json_response(await match.procedure.handle(self._deps.context(request, admitted(request)), given))
        except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong, the caller gets an answer
            return plain_error(error_body(error))

    def _call_of(self, head: Head) -> _Call:
        call = _Call(match=self._find(head.method, head.path))
        head.marks.keep(_CALL, call)
        return call

    def _document_at(self, head: Head) -> Response | None:
        """No scope is needed to know what there is."""
        return self._documents.get(head.path) if head.method in ("GET", "HEAD") else None


def _document(document: JsonValue) -> Response:
    return Response(
        status=200,
        content_type=b"application/json; charset=utf-8",
        body=encode(document),
        headers=((b"cache-control", b"no-store"),),
    )


async def _given(request: Request, deps: FamilyDeps, call: _Call, match: Match) -> Any:
    """The input of this call, checked."""
    input_type = match.procedure.input_type
    if request.method == "GET" and not request.query:
        call.given = parsed_input(input_type, dict(match.params))
        return call.given
    data = await _published_data(request, deps)
    envelope = Envelope(value=_merged(match.params, data.value), is_rich=data.is_rich)
    return parsed_input(input_type, plain_input(input_type, envelope))


def _refused(decision: Decision) -> Response:
    if decision.verdict is Verdict.TOO_MANY:
        return after(decision.retry_after_s, plain_error(too_many_requests()))
    # Whatever was wrong with a key: outside it is as if there were none.
    return plain_error(unauthorized())


async def answered(work: Awaitable[Response], render: Callable[[ErrorBody], Response]) -> Response:
    """The response of `work`, or the error that it ended with in the family's shape."""
    try:
        return await work
    except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong, the caller gets an answer
        return render(error_body(error))


def plain_input(input_type: type[Any], given: Envelope) -> JsonValue | msgspec.UnsetType:
    """The input in plain JSON. Tagged places and files fit only where the type takes anything.

    Raises:
        ProcedureFailedError: BAD_REQUEST, one of them stands elsewhere.
    """
    if not given.is_rich:
        return given.value
    check_input(input_type, given.value)
    return plain(given.value)


async def _published_data(request: Request, deps: FamilyDeps) -> Envelope:
    """What the query of a GET or the body of anything else holds; no value for an empty body."""
    if request.method == "GET":
        return Envelope(value=parse_bracketed(query_pairs(request.query)))
    content_type = (request.header(b"content-type") or "").lower()
    body = await deps.read(request)
    if request.header(b"content-disposition") is not None:
        return Envelope(value={})  # a file has no fields
    if not content_type or content_type.startswith("application/json"):
        return Envelope(value=decode(body)) if body else Envelope()
    if content_type.startswith("application/x-www-form-urlencoded"):
        pairs = query_pairs(body.decode("utf-8", "replace"), most=deps.limits.fields)
        return Envelope(value=parse_bracketed(pairs))
    if content_type.startswith("text/plain"):
        return Envelope(value=body.decode("utf-8", "replace"))
    if content_type.startswith("multipart/form-data"):
        fields = parse_multipart(body, request.header(b"content-type") or "")
        return Envelope(value=parse_bracketed((field.name, field.value) for field in fields), is_rich=True)
    return Envelope(value={})


def query_pairs(query: str, *, most: int = FIELDS_MAX) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query, keep_blank_values=True, max_num_fields=most)
    except ValueError as error:
        raise BadInputError(f"more than {most} fields") from error


def _merged(params: Mapping[str, str], data: JsonValue | msgspec.UnsetType) -> JsonValue | msgspec.UnsetType:
    """Path parameters and data as one input. What is given twice must be given alike.

    The original lets the data win over the path, so that a call can act on another thing than its URL says.
    """
    if data is msgspec.UNSET:
        return dict(params) if params else msgspec.UNSET
    if not isinstance(data, dict):
        return data
    clashing = [name for name, value in params.items() if data.get(name, value) != value]
    if clashing:
        message = "must be equal to the path parameter"
        raise input_refused(tuple(SchemaIssue(message=message, path=(name,)) for name in clashing))
    return {**params, **data}


def _params(segments: tuple[str, ...], given: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for segment, text in zip(segments, given, strict=True):
        if segment.startswith("{"):
            if not text:
                return None
            params[segment[1:-1]] = _decoded(text)
        elif segment != text:
            return None
    return params


def _decoded(segment: str) -> str:
    """The segment percent-decoded once, or as it is when its escapes are not valid UTF-8."""
    if _ESCAPES.match(segment) is None:
        return segment
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        return segment
