"""The RPC envelope against answers that oRPC's own codec gave, hostile ones included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.errors import BadInputError
from rawr.host.multipart import Field
from rawr.host.orpc_codec import MalformedEnvelopeError, decode_envelope, encode_envelope, form_envelope
from rawr.host.orpc_values import File, Kind, Tagged, plain
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


def value_of(shown: Any) -> Any:
    """The value that the notation of the vectors stands for."""
    if not isinstance(shown, dict):
        return shown
    inner: Any = shown.get("v")
    match shown["$"]:
        case "object":
            return {key: value_of(child) for key, child in inner.items()}
        case "array":
            return [value_of(child) for child in inner]
        case "set":
            return Tagged(Kind.SET, [value_of(child) for child in inner])
        case "map":
            return Tagged(Kind.MAP, [[value_of(part) for part in pair] for pair in inner])
        case "regexp":
            return Tagged(Kind.REGEXP, f"/{inner[0]}/{inner[1]}")
        case scalar:
            return Tagged(Kind[scalar.upper()], inner)


@pytest.mark.parametrize("vector", VECTORS["codec"], ids=lambda vector: str(vector["name"]))
def test_a_value_encodes_as_orpc_encodes_it(vector: dict[str, Any]) -> None:
    value = msgspec.UNSET if vector["value"] == {"$": "undefined"} else value_of(vector["value"])
    assert json.loads(encode_envelope(value)) == vector["wire"]


def test_a_value_that_is_neither_json_nor_tagged_is_a_fault_of_ours() -> None:
    with pytest.raises(TypeError):
        encode_envelope({"a": object()})


TEXT = File("a.txt", "text/plain", b"hi")


def form(document: object, *files: str | File) -> list[Field]:
    numbered = [Field(name=str(number), value=file) for number, file in enumerate(files)]
    return [Field(name="data", value=encode(document).decode()), *numbered]


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"json": {}, "maps": [[]]}, TEXT),
        ({"json": {"a": {}}, "maps": [["a"]]}, {"a": TEXT}),
        ({"json": {"a": [1, {}]}, "maps": [["a", 1]]}, {"a": [1, TEXT]}),
        ({"json": {"a": [{}, "1"]}, "meta": [[0, "a", 1], [6, "a"]], "maps": [["a", 0]]}, None),
        ({"json": 5, "maps": []}, 5),
        ({"json": 5}, 5),
    ],
)
def test_the_files_of_a_form_stand_where_maps_says(document: object, expected: object) -> None:
    value = form_envelope(form(document, TEXT)).value
    assert value == (expected or {"a": Tagged(Kind.SET, [TEXT, Tagged(Kind.BIGINT, "1")])})


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [Field(name="data", value=TEXT)],
        form(None, TEXT),
        form({"json": {}, "maps": [[]]}),
        form({"json": {}, "maps": [[]]}, "not a file"),
        form({"json": {}, "maps": [[], []]}, TEXT),
        form({"json": {}, "maps": [["a"]]}, TEXT),
        form({"json": {}, "maps": [["__proto__"]]}, TEXT),
        form({"json": {}, "maps": [["constructor", "prototype", "p"]]}, TEXT),
        form({"json": {"a": {}}, "maps": [["a"], ["a", "name"]]}, TEXT, TEXT),
        form({"json": {"a": {}}, "maps": [["a"]], "meta": [[1, "a", "name"]]}, TEXT),
        form({"json": {"a": {}}, "maps": [["a"]], "meta": [[1, "a"]]}, TEXT),
        form({"json": [], "maps": [[0]]}, TEXT),
        form({"json": [1], "maps": [[True]]}, TEXT),
        form({"json": {}, "maps": "all"}, TEXT),
        form({"json": {}, "maps": [0]}, TEXT),
        form({"json": {}, "maps": [[]] * 10_001}, TEXT),
    ],
)
def test_a_form_that_puts_files_where_nothing_is_is_refused(fields: list[Field]) -> None:
    with pytest.raises(MalformedEnvelopeError):
        form_envelope(fields)


def test_the_first_field_of_a_name_counts() -> None:
    twice = [*form({"json": 1}), Field(name="data", value='{"json":2}')]
    assert form_envelope(twice).value == 1


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


def test_files_become_plain_json_where_anything_is_allowed() -> None:
    assert plain([TEXT]) == [{"name": "a.txt", "type": "text/plain", "base64": "aGk="}]


def test_regular_expressions_are_kept_as_text_and_never_compiled() -> None:
    catastrophic = "/(a+)+$/"
    value = decode_envelope(encode({"json": catastrophic, "meta": [[5]]})).value
    assert value == Tagged(Kind.REGEXP, catastrophic)


def test_a_value_goes_out_in_an_envelope() -> None:
    assert encode_envelope({"b": 1, "a": None}) == b'{"json":{"b":1,"a":null}}'
