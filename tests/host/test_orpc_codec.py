"""The RPC envelope against answers that oRPC's own codec gave, hostile ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.errors import BadInputError
from rawr.host.orpc_codec import Kind, MalformedEnvelopeError, Tagged, decode_envelope, encode_envelope, plain
from rawr.wire import encode

VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "data" / "orpc_vectors.json").read_text()
)


def described(value: Any) -> Any:
    """A decoded value in the notation of the vectors."""
    match value:
        case msgspec.UnsetType():
            return {"$": "undefined"}
        case Tagged(kind=Kind.NAN):
            return {"$": "nan"}
        case Tagged(kind=Kind.REGEXP, value=text):
            source, _, flags = text[1:].rpartition("/")
            return {"$": "regexp", "v": [source, flags]}
        case Tagged(kind=Kind.SET | Kind.MAP as kind, value=items):
            shown = [[described(part) for part in item] if kind is Kind.MAP else described(item) for item in items]
            return {"$": kind.name.lower(), "v": shown}
        case Tagged(kind=kind, value=inner):
            return {"$": kind.name.lower(), "v": inner}
        case dict():
            return {"$": "object", "v": {key: described(child) for key, child in value.items()}}
        case list():
            return {"$": "array", "v": [described(child) for child in value]}
        case _:
            return value


def without_undefined_items(value: Any) -> Any:
    """JSON has no undefined; inside a list or set we read it as null, as JSON.stringify writes it."""
    if isinstance(value, dict):
        if value == {"$": "undefined"}:
            return None
        return {key: without_undefined_items(child) for key, child in value.items()}
    if isinstance(value, list):
        return [without_undefined_items(child) for child in value]
    return value


@pytest.mark.parametrize("vector", VECTORS["codec"], ids=lambda vector: str(vector["name"]))
def test_an_envelope_decodes_as_orpc_decodes_it(vector: dict[str, Any]) -> None:
    expected = vector["decoded"]
    if expected != {"$": "undefined"}:
        expected = without_undefined_items(expected)
    assert described(decode_envelope(encode(vector["wire"])).value) == expected


@pytest.mark.parametrize("vector", VECTORS["hostile"], ids=lambda vector: str(vector["name"]))
def test_a_hostile_envelope_is_refused_where_orpc_refuses_it(vector: dict[str, Any]) -> None:
    raw = encode(vector["wire"])
    if "error" in vector:
        with pytest.raises(MalformedEnvelopeError):
            decode_envelope(raw)
    else:
        assert described(decode_envelope(raw).value) == vector["decoded"]


@pytest.mark.parametrize(
    "wire",
    [
        {"json": [1], "meta": [[3, True]]},
        {"json": ["5"], "meta": [[0, "00"]]},
        {"json": {"a": "5"}, "meta": [[0, 0]]},
        {"json": "5", "meta": "[[0]]"},
        {"json": "5", "meta": [0]},
        {"json": "1" * 4301, "meta": [[0]]},
        {"json": "/a/gg", "meta": [[5]]},
        {"json": "/a/uv", "meta": [[5]]},
        {"json": None, "meta": [[2]] * 10_001},
        {"json": {"a": None}, "meta": [[3, "a"], [3, "a"]]},
        {"json": {"a": 1}, "meta": [[6, *["a"] * 100]]},
    ],
)
def test_tags_that_break_a_rule_refuse_the_whole_request(wire: object) -> None:
    with pytest.raises(MalformedEnvelopeError):
        decode_envelope(encode(wire))


@pytest.mark.parametrize(
    "raw", [b"null", b"", b"{", b"\xff\xfe", b'{"json":NaN}', b'{"json":' + b"[" * 100 + b"]" * 100 + b"}"]
)
def test_what_is_not_an_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInputError):
        decode_envelope(raw)


@pytest.mark.parametrize("raw", [b"[]", b"5", b'"text"', b"{}", b'{"other":1}'])
def test_a_document_without_json_holds_no_value(raw: bytes) -> None:
    assert decode_envelope(raw).value is msgspec.UNSET


def test_tagged_values_become_plain_json_where_anything_is_allowed() -> None:
    raw = encode(
        {"json": {"a": ["1", "2009-02-13T23:31:30.123Z"], "b": 1}, "meta": [[0, "a", 0], [1, "a", 1], [6, "a"]]}
    )
    assert plain(decode_envelope(raw).value) == {"a": ["1", "2009-02-13T23:31:30.123Z"], "b": 1}


def test_regular_expressions_are_kept_as_text_and_never_compiled() -> None:
    catastrophic = "/(a+)+$/"
    value = decode_envelope(encode({"json": catastrophic, "meta": [[5]]})).value
    assert value == Tagged(kind=Kind.REGEXP, value=catastrophic)


def test_a_value_goes_out_in_an_envelope() -> None:
    assert encode_envelope({"b": 1, "a": None}) == b'{"json":{"b":1,"a":null}}'
