"""What no request may be, whoever sends it and wherever it leads: the checks, in their order, and their answers.

`docs/reference/http.md` lists them. What is wrong with the message itself is answered with a line of text, because
nothing in such a message can be relied on; the rest in the words of the family that the path names.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from rawr.host.errors import ErrorBody
from rawr.host.head import Head
from rawr.host.peers import is_loopback
from rawr.host.responses import CLOSE, Response, advice, enveloped_error, forbidden, plain_error, text_response
from rawr.host.settings import HostSettings

INGRESS_PATH: Final = "/api/inngest"
"""Whatever is wrong with a request there, it is forbidden."""

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"})

_HOST: Final = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9.-]{1,253}))(?::[0-9]{1,5})?\Z")
_LENGTH: Final = re.compile(rb"[0-9]{1,19}\Z")
_OVERRIDES: Final = (b"x-http-method-override", b"x-http-method", b"x-method-override")
_RARE: Final = frozenset(
    {b"origin", b"sec-fetch-site", b"upgrade", b"expect", b"content-encoding", b"transfer-encoding", *_OVERRIDES}
)
"""Most requests of programs have none of these."""


class Refusals:
    """The checks of one host."""

    def __init__(self, settings: HostSettings) -> None:
        self._limits = settings.limits
        self._hosts = settings.allowed_hosts
        self._is_exposed = settings.is_exposed

    def of(self, head: Head) -> Response | None:
        """Why this request goes no further, or None when it may."""
        return self._of_message(head) or self._of_request(head)

    def _of_message(self, head: Head) -> Response | None:
        limits, fields = self._limits, head.fields
        if len(head.headers) > limits.header_count or head.header_bytes > limits.header_bytes:
            return text_response(431, "request header fields too large", headers=(CLOSE,))
        if not _names_one_of(self._hosts, fields.get(b"host", b"")):
            return text_response(421, "misdirected request")
        length, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        if length is not None and (coding is not None or _LENGTH.match(length) is None):
            return text_response(400, "ambiguous request length", headers=(CLOSE,))
        if coding is not None and (coding.lower() != b"chunked" or head.http_version != "1.1"):
            return text_response(400, "ambiguous request length", headers=(CLOSE,))
        return None

    def _of_request(self, head: Head) -> Response | None:
        if head.method not in METHODS:
            return _refused(head, 405, "METHOD_NOT_SUPPORTED", f"{head.method[:20]} is not a method of this server")
        if len(head.path) + len(head.query) >= self._limits.url_bytes:
            return _refused(head, 414, "URI_TOO_LONG", f"the URL is longer than {self._limits.url_bytes} bytes")
        if "&" in head.query and head.query.count("&") >= self._limits.fields:
            return _refused(head, 400, "BAD_REQUEST", f"the query has more than {self._limits.fields} fields")
        if self._is_exposed and is_console(head.path) and not is_loopback(head.peer.address):
            message = "the console is not shown to other machines without TLS: its session would travel in the clear"
            return _refused(head, 403, "TLS_REQUIRED", message)
        if _RARE.isdisjoint(head.fields):
            return None
        return _of_rare_header(head) or _of_origin(head)


def in_dialect_of(path: str, error: ErrorBody) -> Response:
    """The error as the family at `path` says it."""
    if path == "/rpc" or path.startswith("/rpc/"):
        return enveloped_error(error)
    if path == INGRESS_PATH:
        return text_response(error.status, error.message, headers=advice(error))
    return plain_error(error)


def is_console(path: str) -> bool:
    return path in ("/", "/console") or path.startswith("/console/")


def _refused(head: Head, status: int, code: str, message: str) -> Response:
    """Without reading the body, so the connection cannot go on when there is one."""
    error = ErrorBody(code=code, status=status, message=message)
    response = forbidden() if head.path == INGRESS_PATH else in_dialect_of(head.path, error)
    return msgspec.structs.replace(response, headers=(*response.headers, CLOSE)) if has_body(head) else response


def has_body(head: Head) -> bool:
    return head.fields.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in head.fields


def _names_one_of(hosts: frozenset[str], given: bytes) -> bool:
    """Whether the one Host header names us. Forwarded headers are not looked at: anybody can send them."""
    match = _HOST.match(given)
    return match is not None and (match[1] or match[2]).decode().lower() in hosts


def _of_rare_header(head: Head) -> Response | None:
    fields = head.fields
    if b"upgrade" in fields:
        return _refused(head, 400, "BAD_REQUEST", "this server has no websockets and no other protocol to upgrade to")
    if fields.get(b"expect", b"100-continue").lower() != b"100-continue":
        return _refused(head, 417, "EXPECTATION_FAILED", "the only expectation that can be met is 100-continue")
    if any(name in fields for name in _OVERRIDES):
        return _refused(head, 400, "BAD_REQUEST", "a header cannot override the method")
    if fields.get(b"content-encoding", b"identity").lower() != b"identity":
        return _refused(head, 415, "UNSUPPORTED_MEDIA_TYPE", "a body must not be compressed or otherwise encoded")
    return None


def _of_origin(head: Head) -> Response | None:
    """A page of another origin, also of another port of this machine, has no business here."""
    origin, site = head.fields.get(b"origin"), head.fields.get(b"sec-fetch-site")
    own = f"{head.peer.scheme}://".encode() + head.fields[b"host"].lower()
    if origin is not None and origin.lower() != own:
        return _refused(head, 403, "FORBIDDEN", "the request comes from another origin")
    if site in (None, b"same-origin", b"none") or _is_visit(head):
        return None
    return _refused(head, 403, "FORBIDDEN", "the request comes from another site")


def _is_visit(head: Head) -> bool:
    """A person who follows a link to a page, in a tab of its own: it shows, and cannot act."""
    return (
        head.method in ("GET", "HEAD")
        and is_console(head.path)
        and head.fields.get(b"sec-fetch-mode") == b"navigate"
        and head.fields.get(b"sec-fetch-dest") == b"document"
    )
