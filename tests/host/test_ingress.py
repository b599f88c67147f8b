"""Which calls into `/api/inngest` count as signed."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from rawr.execution.signing import mac, sign
from rawr.host.ingress import Signature, in_window, is_signed, parse_signature

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
