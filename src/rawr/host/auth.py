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


def gives_bearer(headers: Headers) -> bool:
    """Whether there is a bearer credential of any kind. Who gives one is not looked for by a cookie."""
    return any(value.lower().startswith(b"bearer") for value in header_values(headers, b"authorization"))


def session_cookie(port: int, *, scheme: str) -> str:
    """The name of the cookie of the server on this port: cookies of one host name do not know ports.

    Under TLS a browser takes one of this name only from this very host, over TLS: no other can plant it.
    """
    return f"__Host-rawr_session_{port}" if scheme == "https" else f"rawr_session_{port}"


def cookie_values(headers: Headers, name: str) -> list[str]:
    """Every value of the cookie. Another server on this machine can add some, so there may be several."""
    pairs = (
        pair.strip().partition("=")
        for header in header_values(headers, b"cookie")
        for pair in header.decode("latin-1").split(";")
    )
    return [value for given, _, value in pairs if given == name and value]


def comes_from_elsewhere(headers: Headers, *, scheme: str) -> bool:
    """Whether a page that is not ours sends this. A program that is no browser says nothing, and is believed."""
    origins = header_values(headers, b"origin")
    if origins and [origin.lower() for origin in origins] != [_own_origin(headers, scheme)]:
        return True
    # Another port of this machine is `same-site`, and another site all the same.
    return not all(site in (b"same-origin", b"none") for site in header_values(headers, b"sec-fetch-site"))


def comes_from_our_page(headers: Headers, *, scheme: str) -> bool:
    """Whether a browser says that a page of ours sends this. Needed wherever a cookie is what lets a caller in."""
    if comes_from_elsewhere(headers, scheme=scheme):
        return False
    return bool(header_values(headers, b"origin")) or b"same-origin" in header_values(headers, b"sec-fetch-site")


def sends_json(headers: Headers) -> bool:
    content_type = header_text(headers, b"content-type") or ""
    return content_type.partition(";")[0].strip().lower() == "application/json"


def _own_origin(headers: Headers, scheme: str) -> bytes | None:
    host = header_text(headers, b"host")
    return None if host is None else f"{scheme}://{host}".lower().encode("latin-1")
