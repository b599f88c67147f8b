"""Which calls into `/api/inngest` count as signed."""

from __future__ import annotations

import hashlib
import hmac
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.execution.signing import mac, sign
from rawr.host.ingress import QUERY_FIELDS_MAX, Signature, in_window, is_signed, parse_signature, query_fields

NOW_S = 1_795_347_464
KEY = "0123456789abcdef0123456789abcdef"
OLD_KEY = "ffffffffffffffffffffffffffffffff"
BODY = b'{"ctx":{},"event":{"b":1,"a":[1.0,2]},"events":[]}'
MAC = "a" * 64


def header(value: str, name: str = "x-inngest-signature") -> tuple[bytes, bytes]:
    return name.encode(), value.encode()


def test_one_well_formed_header_is_a_signature() -> None:
    expected = Signature(at_s=NOW_S, mac=MAC)
    assert parse_signature([header(f"t={NOW_S}&s={MAC}")]) == expected
    assert parse_signature([header(f"t={NOW_S}&s={MAC}", "inngest-signature")]) == expected


@pytest.mark.parametrize(
    "value",
    [
        "",
        "zzz",
        f"s={MAC}",
        f"t={NOW_S}",
        f"t={NOW_S}&s=",
        f"t={NOW_S}junk&s={MAC}",
        f"t={NOW_S}&s={MAC}zz",
        f"t={NOW_S}&s={MAC[:-1]}",
        f"t={NOW_S}&s={MAC.upper()}",
        f"t=-{NOW_S}&s={MAC}",
        f"t={NOW_S}.0&s={MAC}",
        f"t=+{NOW_S}&s={MAC}",
        f" t={NOW_S}&s={MAC}",
        f"t={NOW_S}&s={MAC}\n",
        f"t={NOW_S}&t={NOW_S}&s={MAC}",
        f"t={NOW_S}&s={MAC}&s={MAC}",
        f"t={NOW_S}&s={MAC}&x=1",
        f"s={MAC}&t={NOW_S}",
        f"t=٣&s={MAC}",
    ],
)
def test_a_header_with_anything_else_in_it_is_no_signature(value: str) -> None:
    assert parse_signature([header(value)]) is None


def test_two_headers_are_no_signature_under_one_name_or_two() -> None:
    good = f"t={NOW_S}&s={MAC}"
    assert parse_signature([header(good), header(good)]) is None
    assert parse_signature([header(good), header(good, "inngest-signature")]) is None


@given(st.binary(max_size=120) | st.from_regex(rb"t=[0-9]{1,14}&s=[0-9a-fA-F]{60,66}", fullmatch=True))
def test_whatever_is_taken_for_a_signature_says_exactly_what_was_sent(value: bytes) -> None:
    signature = parse_signature([(b"x-inngest-signature", value)])
    if signature is not None:
        digits = value[2:].partition(b"&")[0].decode()
        assert value == f"t={digits}&s={signature.mac}".encode()
        assert signature.at_s == int(digits)
        assert bytes.fromhex(signature.mac).hex() == signature.mac


@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=20))
def test_a_query_is_taken_only_as_what_every_reader_makes_of_it(pairs: list[tuple[str, str]]) -> None:
    fields = query_fields(urlencode(pairs))
    is_plain = len({name for name, _ in pairs}) == len(pairs) <= QUERY_FIELDS_MAX
    assert fields == (dict(pairs) if is_plain else None)


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_no_query_breaks_the_reading_of_queries(text: str) -> None:
    query_fields(text)


@given(st.integers(0, len(BODY) - 1), st.integers(1, 255))
def test_no_changed_byte_of_a_body_passes_unless_it_means_the_same(at: int, flip: int) -> None:
    changed = BODY[:at] + bytes([BODY[at] ^ flip]) + BODY[at + 1 :]
    signature = parse_signature([header(sign(BODY, KEY, NOW_S))])
    assert signature is not None
    try:
        means_the_same = json.loads(changed) == json.loads(BODY)
    except ValueError:
        means_the_same = False
    assert is_signed(signature, changed, [KEY], mac=mac) is means_the_same


@pytest.mark.parametrize(
    ("offset_s", "accepted"),
    [(0, True), (-300, True), (300, True), (-301, False), (301, False), (10 * 365 * 86400, False)],
)
def test_the_window_is_five_minutes_both_ways(offset_s: int, accepted: bool) -> None:
    assert in_window(Signature(at_s=NOW_S + offset_s, mac=MAC), now_s=NOW_S) is accepted


def test_the_right_key_over_the_canonical_body_is_accepted() -> None:
    signature = parse_signature([header(sign(BODY, KEY, NOW_S))])
    assert signature is not None
    assert is_signed(signature, BODY, [KEY], mac=mac)
    assert is_signed(signature, b' {"events":[], "event":{"a":[1,2],"b":1}, "ctx":{}}', [KEY], mac=mac)


def test_any_of_the_keys_of_a_rotation_may_match() -> None:
    signature = parse_signature([header(sign(BODY, OLD_KEY, NOW_S))])
    assert signature is not None
    assert is_signed(signature, BODY, [KEY, OLD_KEY], mac=mac)
    assert not is_signed(signature, BODY, [KEY], mac=mac)
    assert not is_signed(signature, BODY, [], mac=mac)


@pytest.mark.parametrize("body", [BODY + b" x", b'{"ctx":{}}', b"", b"not json", b"\xff"])
def test_another_body_is_not_signed(body: bytes) -> None:
    signature = parse_signature([header(sign(BODY, KEY, NOW_S))])
    assert signature is not None
    assert not is_signed(signature, body, [KEY], mac=mac)


def test_another_time_is_not_signed() -> None:
    text = sign(BODY, KEY, NOW_S).removeprefix(f"t={NOW_S}")
    signature = parse_signature([header(f"t={NOW_S + 1}{text}")])
    assert signature is not None
    assert not is_signed(signature, BODY, [KEY], mac=mac)


def test_a_call_without_a_body_signs_its_time() -> None:
    text = hmac.new(KEY.encode(), str(NOW_S).encode(), hashlib.sha256).hexdigest()
    assert is_signed(Signature(at_s=NOW_S, mac=text), b"", [KEY], mac=mac)
