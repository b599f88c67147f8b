"""Reading credentials and labels out of headers, and what they make of a caller. Pure.

Whether a secret is right is decided by the caller of these functions; nothing here grants by a label. A header
that is given twice is no header at all: which of the two counts would be up to whoever parsed it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rawr.security.policy import CallerClass

Headers = Sequence[tuple[bytes, bytes]]

SURFACE_HEADER: Final = b"x-rawr-caller-surface"

_LABELS: Final = {
    "first-party": CallerClass.FIRST_PARTY,
    "internal": CallerClass.INTERNAL,
    "trusted-service": CallerClass.TRUSTED_SERVICE,
    "in-process": CallerClass.INTERNAL,
    "cli": CallerClass.CLI,
    "external": CallerClass.EXTERNAL,
    "third-party": CallerClass.EXTERNAL,
    "runtime-ingress": CallerClass.RUNTIME_INGRESS,
}
_ON_RPC: Final = frozenset(
    {CallerClass.FIRST_PARTY, CallerClass.INTERNAL, CallerClass.TRUSTED_SERVICE, CallerClass.CLI}
)


def header_values(headers: Headers, name: bytes) -> list[bytes]:
    """Every value of the header; `name` in lower case, as ASGI gives names."""
    return [value for key, value in headers if key == name]


def header_text(headers: Headers, name: bytes) -> str | None:
    """The trimmed value of a header that is there exactly once and not blank."""
    values = header_values(headers, name)
    if len(values) != 1:
        return None
    return values[0].decode("latin-1").strip() or None


def bearer_secret(headers: Headers) -> str | None:
    """The credential of the one `Authorization: Bearer …` header."""
    value = header_text(headers, b"authorization")
    if value is None:
        return None
    scheme, _, secret = value.partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def surface_label(headers: Headers) -> CallerClass | None:
    """What the caller says it is: None without a label, UNLABELED for a label that means nothing."""
    if not header_values(headers, SURFACE_HEADER):
        return None
    return label_of(header_text(headers, SURFACE_HEADER) or "")


def label_of(text: str | None) -> CallerClass | None:
    """What the text of a label says: None without one, UNLABELED for one that means nothing."""
    return None if text is None else _LABELS.get(text.strip().lower(), CallerClass.UNLABELED)


def label_keeps_rpc(label: CallerClass | None) -> bool:
    """Whether a caller with the right secret stays on `/rpc` under its own label: a label can only narrow."""
    return label is None or label in _ON_RPC
