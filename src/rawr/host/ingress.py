"""Whether a call into `/api/inngest` is signed by our engine: strict parse, time window, constant-time compare. Pure.

The MAC itself is computed by a function that is passed in, over the canonical form of the body, so that no
framework comes in here. Anything but exactly one well-formed header is a refusal, not a fallback; and so is anything
that is said twice, because two readers may believe different ones.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from rawr.host.auth import Headers, header_values

SIGNATURE_AGE_MAX_S: Final = 300
METHODS: Final = frozenset({"GET", "POST", "PUT"})
HEADERS: Final = (b"x-inngest-signature", b"inngest-signature")
QUERY_FIELDS_MAX: Final = 16
_OF_ENGINES: Final = b"x-inngest-"

# `\Z`, ASCII digits and lower-case hex only: `179…junk` and `…zz` are not signatures.
_SIGNATURE: Final = re.compile(rb"t=([0-9]{1,12})&s=([0-9a-f]{64})\Z")

Mac = Callable[[bytes, str, int], str]
"""`mac(body, key, t)`: the hex MAC of the body's canonical form and the time, under the key."""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    at_s: int
    mac: str


def parse_signature(headers: Headers) -> Signature | None:
    """The signature of the request, when it carries exactly one and that one is well formed."""
    values = [value for name in HEADERS for value in header_values(headers, name)]
    if len(values) != 1:
        return None
    match = _SIGNATURE.match(values[0])
    return None if match is None else Signature(at_s=int(match[1]), mac=match[2].decode())


def query_fields(text: str) -> dict[str, str] | None:
    """The fields of a query string, or None when one comes twice or there are more than any engine sends."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        return None
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else None


def has_repeated_header(headers: Headers) -> bool:
    """Whether a header that engines speak by comes twice."""
    names = [name for name, _ in headers if name.startswith(_OF_ENGINES)]
    return len(names) != len(set(names))


def in_window(signature: Signature, *, now_s: int) -> bool:
    """Whether the signature is at most `SIGNATURE_AGE_MAX_S` old, and at most as much ahead of our clock."""
    return abs(now_s - signature.at_s) <= SIGNATURE_AGE_MAX_S


def is_signed(signature: Signature, body: bytes, keys: Sequence[str], *, mac: Mac) -> bool:
    """Whether any of `keys` (there are two while a key is rotated) made this signature over this body.

    All keys are tried, so that the time taken does not tell which one matched.
    """
    matched = False
    for key in keys:
        matched |= hmac.compare_digest(mac(body, key, signature.at_s), signature.mac)
    return matched
