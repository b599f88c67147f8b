"""The envelope of `/rpc`: `{"json": …, "meta": [[type, …path], …]}` to values and back. Pure.

`meta` tags places in `json` that hold what JSON cannot say (dates, big integers, sets …). It comes from the
caller, so a tag may only touch a place that exists in the document itself; anything else refuses the whole
request. Version 1 of the protocol numbers the types and version 2 names them; that is all that differs here. Regular
expressions are carried as text and never compiled. Files come beside the document, as parts of a form, and `maps` says
where each belongs; the same rule holds for it. No procedure answers with a file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rawr.errors import BadInputError
from rawr.host.multipart import Field
from rawr.host.orpc_values import File, Kind, Tagged
from rawr.host.rpc_protocol import RpcProtocol
from rawr.wire import DEPTH_MAX, JsonValue, decode, encode

META_MAX: Final = 10_000
BIGINT_DIGITS_MAX: Final = 4300

_BIGINT: Final = re.compile(r"-?[0-9]+\Z")
_DATE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S")
_BY_NAME: Final = {kind.name.lower(): kind for kind in Kind}
_INDEX: Final = re.compile(r"(0|[1-9][0-9]{0,8})\Z")


class MalformedEnvelopeError(BadInputError):
    code = "MALFORMED_ENVELOPE"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    value: JsonValue | msgspec.UnsetType = msgspec.UNSET
    """UNSET when the envelope holds no value."""
    is_rich: bool = False
    """Whether there may be `Tagged` places or files in the value."""
    protocol: RpcProtocol = RpcProtocol.V1
    """What was asked for, or else what its tags are written in."""


def decode_envelope(raw: bytes, asked: RpcProtocol | None = None) -> Envelope:
    """The value in an envelope, with its tagged places as `Tagged`.

    Raises:
        MalformedEnvelopeError: `meta` breaks a rule, or the document is `null`.
        MalformedJsonError: not JSON as we accept it.
    """
    return envelope_of(decode(raw), asked)


def envelope_of(document: JsonValue, asked: RpcProtocol | None = None) -> Envelope:
    """The same for a document that is parsed already, as the items of a batch are. The document is used up."""
    return _opened(document, {}, asked)


def form_envelope(fields: Sequence[Field], asked: RpcProtocol | None = None) -> Envelope:
    """The value of a form whose field `data` is the envelope, and whose fields `0`, `1` … are its files.

    Raises:
        MalformedEnvelopeError: `data`, `maps` or `meta` breaks a rule, or a file that `maps` names is not there.
        MalformedJsonError: `data` is not JSON as we accept it.
    """
    named: dict[str, str | File] = {}
    for field in fields:
        named.setdefault(field.name, field.value)
    data = named.get("data")
    if not isinstance(data, str):
        raise MalformedEnvelopeError("the form has no field data")
    return _opened(decode(data), named, asked)


def encode_envelope(value: object, protocol: RpcProtocol = RpcProtocol.V1) -> bytes:
    """`{"json":…}`, with `meta` when there are `Tagged` places in the lists and dicts of `value`; UNSET is `{}`."""
    if value is msgspec.UNSET:
        return b"{}"
    try:
        return b'{"json":' + encode(value) + b"}"
    except TypeError:  # only a tagged place is no JSON; looking for one beforehand would cost every answer
        meta: list[list[Any]] = []
        json = _untagged(value, (), meta, protocol)
        return encode({"json": json, "meta": meta} if meta else {"json": json})


def _opened(document: JsonValue, form: dict[str, str | File], asked: RpcProtocol | None) -> Envelope:
    if document is None:
        raise MalformedEnvelopeError("the envelope is null")
    if not isinstance(document, dict):
        return Envelope(protocol=asked or RpcProtocol.V1)  # a bare value has no `json` in it
    maps = _tags("maps", document) if form else []
    meta = _tags("meta", document)
    protocol = asked or _written_in(meta)
    if not maps and not meta:
        return Envelope(value=document.get("json", msgspec.UNSET), protocol=protocol)
    # The holder makes the root an ordinary place, so that a tag without a path needs no case of its own.
    holder: dict[str, JsonValue] = {"json": document.get("json", msgspec.UNSET)}
    for number, path in enumerate(maps):
        _put_file(holder, path, form.get(str(number)))
    for tag in meta:
        _apply_tag(holder, tag, protocol)
    return Envelope(value=holder.get("json", msgspec.UNSET), is_rich=True, protocol=protocol)


def _written_in(meta: Sequence[JsonValue]) -> RpcProtocol:
    if not meta:
        return RpcProtocol.V1
    types = [tag[0] for tag in meta if tag]
    if not any(isinstance(one, str) and one in _BY_NAME for one in types):
        return RpcProtocol.V1
    if any(type(one) is int for one in types):
        raise MalformedEnvelopeError("meta has tags of both versions of the protocol")
    return RpcProtocol.V2


def _tags(name: str, document: dict[str, JsonValue]) -> list[JsonValue]:
    tags = document.get(name)
    if tags is None:
        return []
    if not isinstance(tags, list) or len(tags) > META_MAX or not all(isinstance(tag, list) for tag in tags):
        raise MalformedEnvelopeError(f"{name} is not a list of at most {META_MAX} lists")
    return tags


def _put_file(holder: dict[str, JsonValue], path: list[JsonValue], file: str | File | None) -> None:
    if not isinstance(file, File):
        raise MalformedEnvelopeError("a place in maps has no file in the form")
    parent, last = _place(holder, path)
    parent[last] = file


def _apply_tag(holder: dict[str, JsonValue], tag: list[JsonValue], protocol: RpcProtocol) -> None:
    kind = _kind(tag[0], protocol) if tag else None
    if kind is None:
        return  # a tag of a kind we do not know says nothing about our values
    parent, last = _place(holder, tag[1:])
    if kind is Kind.UNDEFINED and isinstance(parent, dict):
        _tagged_value(kind, parent[last])
        del parent[last]
        return
    parent[last] = _tagged_value(kind, parent[last])


def _kind(of_type: JsonValue, protocol: RpcProtocol) -> Kind | None:
    if protocol is RpcProtocol.V2:
        if not isinstance(of_type, str) or of_type not in _BY_NAME:
            raise MalformedEnvelopeError("meta names a type that does not exist")  # as its readers have it
        return _BY_NAME[of_type]
    is_known = type(of_type) is int and 0 <= of_type <= Kind.MAP
    return Kind(of_type) if is_known else None


def _place(holder: dict[str, JsonValue], path: list[JsonValue]) -> tuple[JsonValue, JsonValue]:
    """The container and the key of the tagged place. Every step must exist as an own key or index."""
    if len(path) > DEPTH_MAX:
        raise MalformedEnvelopeError(f"a path in meta is longer than {DEPTH_MAX}")
    parent: JsonValue = holder
    key: JsonValue = "json"
    for segment in path:
        parent = parent[key]
        key = _own_key(parent, segment)
    return parent, key


def _own_key(node: JsonValue, segment: JsonValue) -> JsonValue:
    if isinstance(node, dict) and isinstance(segment, str) and segment in node:
        return segment
    if isinstance(node, list):
        # `type`, not `isinstance`: True is an int and must not be an index.
        index = int(segment) if isinstance(segment, str) and _INDEX.match(segment) else segment
        if type(index) is int and 0 <= index < len(node):
            return index
    raise MalformedEnvelopeError("a path in meta leads to no place in json")


def _tagged_value(kind: Kind, value: JsonValue) -> JsonValue:
    if not _fits(kind, value):
        raise MalformedEnvelopeError(f"a place that meta tags as {kind.name.lower()} holds something else")
    match kind:
        case Kind.UNDEFINED:
            return None
        case Kind.DATE:
            is_date = isinstance(value, str) and _DATE.match(value) is not None
            return Tagged(kind, value if is_date else None)
        case _:
            return Tagged(kind, value)


def _fits(kind: Kind, value: JsonValue) -> bool:
    match kind:
        case Kind.BIGINT:
            return isinstance(value, str) and len(value) <= BIGINT_DIGITS_MAX and _BIGINT.match(value) is not None
        case Kind.DATE:
            return value is None or isinstance(value, str)
        case Kind.NAN | Kind.UNDEFINED:
            return value is None
        case Kind.URL:
            return isinstance(value, str) and _URL.match(value) is not None
        case Kind.REGEXP:
            return isinstance(value, str) and _is_regexp(value)
        case Kind.SET:
            return isinstance(value, list)
        case Kind.MAP:
            return isinstance(value, list) and all(isinstance(entry, list) for entry in value)


def _is_regexp(text: str) -> bool:
    flags = text.rpartition("/")[2]
    return (
        text.startswith("/")
        and text.rfind("/") > 0
        and len(set(flags)) == len(flags)
        and set(flags) <= set("dgimsuvy")
        and not {"u", "v"} <= set(flags)
    )


def _untagged(value: JsonValue, path: tuple[str | int, ...], meta: list[list[Any]], protocol: RpcProtocol) -> JsonValue:
    """`value` in JSON, its tags added to `meta`: those of the parts before that of the whole, as readers need them."""
    match value:
        case Tagged(kind, inner):
            json = _untagged(inner, path, meta, protocol)
            meta.append([kind.value if protocol is RpcProtocol.V1 else kind.name.lower(), *path])
            return json
        case dict():
            return {
                key: _untagged(child, (*path, key), meta, protocol)
                for key, child in value.items()
                if not (isinstance(child, Tagged) and child.kind is Kind.UNDEFINED)
            }
        case list() | tuple():
            return [_untagged(child, (*path, index), meta, protocol) for index, child in enumerate(value)]
        case _:
            return value
