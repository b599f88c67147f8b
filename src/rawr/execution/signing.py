"""Inngest's signatures: HMAC-SHA256 over the RFC 8785 form of a body and a time. The only place that knows JCS.

What is signed is the canonical text; what is sent is the plain text. JCS writes every number as a double, so
sending the canonical text would silently change integers above 2^53.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from typing import Final

import jcs
import msgspec

from rawr.errors import BadInputError, RawrError
from rawr.wire import JsonValue, encode_canonical

HEADER: Final = "x-inngest-signature"
AGE_MAX_S: Final = 300

_DOUBTFUL: Final = re.compile(rb"[:\[,]-?(?:[0-9]+[.eE]|[0-9]{16})")
_NUMBER_BEGINS: Final = tuple(b"-0123456789"[at : at + 1] for at in range(11))
_RARE: Final = re.compile(rb"[\xee-\xff]")
"""In UTF-8: what UTF-16 sorts otherwise, and what is not in the basic plane."""

_KEY_PREFIX: Final = re.compile(r"signkey-\w+-")
_SIGNATURE: Final = re.compile(r"t=([0-9]{1,12})&s=([0-9a-f]{64})\Z")


class NotCanonicalError(BadInputError):
    """The value has no RFC 8785 form: NaN, an infinity, an integer beyond a double, a lone surrogate."""

    code = "NOT_CANONICAL"


class SignatureMismatchError(RawrError):
    """The signature is missing, malformed, or made by another key."""

    code = "SIGNATURE_MISMATCH"


def canonical(value: JsonValue) -> bytes:
    """The RFC 8785 text of a JSON value.

    Raises:
        NotCanonicalError: such a value can never be part of a signed call.
    """
    try:
        text = jcs.canonicalize(value)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise NotCanonicalError(f"cannot be signed as JSON: {error}") from error
    assert isinstance(text, bytes)
    return text


def canonical_text(body: bytes) -> bytes:
    """The RFC 8785 text of JSON text; nothing stays nothing.

    It is read as the verifier in the SDK reads it, so that both see the same numbers.
    """
    if not body:
        return b""
    plain = _plain_text(body)
    if plain is not None:
        return plain
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotCanonicalError(f"not JSON: {error}") from error
    return canonical(value)


def is_plainly_canonical(text: bytes) -> bool:
    """Whether `encode_canonical` wrote what RFC 8785 wants, for sure: no number that is not a small integer.

    The two differ in floats and big integers, and in the order of keys beyond the basic plane. It costs a fraction of
    making the canonical text; of texts that only look like such (`":1.5"` in a string) it says no.
    """
    if text[:1] in _NUMBER_BEGINS or _DOUBTFUL.search(text) is not None:
        return False
    return text.isascii() or _RARE.search(text) is None


def _plain_text(body: bytes) -> bytes | None:
    try:
        text = encode_canonical(msgspec.json.decode(body))
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return text if is_plainly_canonical(text) else None


def mac_of_canonical(text: bytes, key: str, t: int) -> str:
    """The hex MAC of an already canonical text. The HMAC key is the text of the key, not the bytes it spells."""
    made = hmac.new(bare_key(key).encode(), text, hashlib.sha256)
    made.update(str(t).encode())  # a long text is not copied for this
    return made.hexdigest()


def mac(body: bytes, key: str, t: int) -> str:
    """The hex MAC of a body at `t` (Unix seconds); for verifiers.

    A body without a canonical form has no valid signature, hence a MAC that no signature equals.
    """
    try:
        return mac_of_canonical(canonical_text(body), key, t)
    except NotCanonicalError:
        return ""


def sign_canonical(text: bytes, key: str, t: int) -> str:
    """The signature header's value for a body whose canonical form is `text`. The order of the two matters."""
    return f"t={t}&s={mac_of_canonical(text, key, t)}"


def sign(body: bytes, key: str, t: int) -> str:
    """The signature header's value `t=<unix seconds>&s=<hex>` for a JSON body."""
    return sign_canonical(canonical_text(body), key, t)


def bare_key(text: str) -> str:
    """A signing key, or the token of one, without the prefix that says for which environment it is."""
    prefix = _KEY_PREFIX.match(text)
    return text[prefix.end() :] if prefix else text


def api_token(key: str) -> str:
    """How a signing key is shown to the API of an Inngest server: the hash of the bytes that its text spells."""
    return hashlib.sha256(bytes.fromhex(bare_key(key))).hexdigest()


def verify_response(body: bytes, header: str | None, keys: Sequence[str], *, now_s: int | None = None) -> None:
    """Accept the answer to a call that we made, or raise.

    Answers are signed over their raw bytes. With `now_s` they must have been signed around now, so that whoever sits
    between us and the app cannot give an old one again; within this process nobody does.

    Raises:
        SignatureMismatchError
    """
    match = _SIGNATURE.match(header or "")
    if match is None:
        raise SignatureMismatchError("the answer is not signed")
    if now_s is not None and abs(now_s - int(match[1])) > AGE_MAX_S:
        raise SignatureMismatchError("the answer was not signed now; do the clocks differ?")
    matched = False
    for key in keys:
        matched |= hmac.compare_digest(mac_of_canonical(body, key, int(match[1])), match[2])
    if not matched:
        raise SignatureMismatchError("the answer is signed by another key")
