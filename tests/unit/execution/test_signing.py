"""Signatures against the SDK's own verifier, an independent RFC 8785 implementation, and forgeries."""

from __future__ import annotations

import json

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

import rawr.execution.ingest  # noqa: F401 - first: it imports the SDK without its deprecation warnings
from rawr.execution import signing
from rawr.execution.embedded.fragment import fragment, frame, read_fragment
from rawr.wire import JsonValue, encode, encode_canonical

from inngest._internal import net, server_lib  # isort: skip

KEY = "signkey-prod-" + "ab" * 32

texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
safe_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def accepted_by_sdk(body: bytes, header: str) -> bool:
    verdict = net.validate_request_sig(
        body=body,
        headers={signing.HEADER: header},
        mode=server_lib.ServerKind.CLOUD,
        signing_key=KEY,
        signing_key_fallback=None,
    )
    return verdict == KEY


@given(values)
def test_the_sdk_accepts_what_we_sign(value: JsonValue) -> None:
    body = json.dumps(value).encode()
    assert accepted_by_sdk(body, signing.sign(body, KEY, 1_700_000_000))


@given(safe_values)
def test_the_canonical_form_is_that_of_another_implementation(value: JsonValue) -> None:
    assert signing.canonical(value) == rfc8785.dumps(value)


@given(st.lists(values, max_size=4))
def test_a_frame_of_fragments_is_signed_as_if_it_had_been_canonicalised_whole(parts: list[JsonValue]) -> None:
    framed = frame({"b": [fragment(part) for part in parts], "a": {"n": 7, "inner": fragment(parts)}})
    assert framed.signed == signing.canonical_text(framed.text)
    assert accepted_by_sdk(framed.text, signing.sign_canonical(framed.signed, KEY, 1_700_000_000))


@given(values)
def test_what_is_plainly_canonical_is_what_the_other_way_gives(value: JsonValue) -> None:
    text = encode_canonical(value)
    if signing.is_plainly_canonical(text):
        assert text == signing.canonical(json.loads(text))
    assert signing.canonical_text(json.dumps(value).encode()) == signing.canonical(value)
    assert read_fragment(value) == fragment(value)


def test_most_texts_are_plainly_canonical_and_doubtful_numbers_never() -> None:
    every_ascii = {chr(code): [chr(code), code, -code, None, True] for code in range(128)}
    plain: list[JsonValue] = [every_ascii, {"caf\u00e9": "\u20ac"}, ["v1.2", "1e5"], 10**14, "x", [], {}]
    for value in plain:
        text = encode_canonical(value)
        assert text == signing.canonical(value)
        assert signing.is_plainly_canonical(text) or isinstance(value, int)
    doubtful: list[JsonValue] = [
        1.0,
        [1.0],
        {"a": 1e300},
        [1, 2.5],
        2**53 + 1,
        [10**15],
        [-1e-9],
        {"\ue000": 1, "\U0001f600": 2},
    ]
    for value in doubtful:
        assert not signing.is_plainly_canonical(encode_canonical(value))


@pytest.mark.parametrize("body", [b'{"a":1,"a":2}', b"[-0,-0.0]", b" [ 1 ] ", b'"\\u00e9"', b"1", b"[1E3]"])
def test_a_canonical_text_is_read_as_the_sdk_reads_it(body: bytes) -> None:
    assert signing.canonical_text(body) == signing.canonical(json.loads(body))


def test_the_empty_body_is_signed_as_nothing() -> None:
    assert accepted_by_sdk(b"", signing.sign(b"", KEY, 1_700_000_000))


def test_big_integers_are_sent_as_they_are_although_their_signature_covers_a_double() -> None:
    framed = frame({"x": fragment(2**53 + 1)})
    assert framed.text == b'{"x":9007199254740993}'
    assert framed.signed == b'{"x":9007199254740992}'


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, "\ud800", {"\udfff": 1}, object()])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(signing.NotCanonicalError):
        fragment(value)


@pytest.mark.parametrize("body", [b"{", b"\xff", b'"\\ud800"', b"NaN", b"1e999"])
def test_a_body_without_canonical_form_has_no_valid_signature(body: bytes) -> None:
    assert signing.mac(body, KEY, 1) == ""


def test_an_answer_is_accepted_with_any_of_the_keys_and_refused_otherwise() -> None:
    body = encode({"a": 1})
    header = str(net.sign_response(body, KEY))
    signing.verify_response(body, header, ["signkey-prod-00", KEY])
    for forged_body, forged_header in [
        (body + b" ", header),
        (body, None),
        (body, ""),
        (body, header.replace("t=", "t=1")),
        (body, header + "0"),
        (body, header.split("&")[1]),
        (body, header.upper()),
    ]:
        with pytest.raises(signing.SignatureMismatchError):
            signing.verify_response(forged_body, forged_header, [KEY])
    with pytest.raises(signing.SignatureMismatchError):
        signing.verify_response(body, header, ["signkey-prod-00"])
