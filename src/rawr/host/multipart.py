"""`multipart/form-data` bodies as a list of fields, as browsers and Node write them. Pure.

The whole body is in memory already and bounded, so this splits instead of streaming. Nothing is guessed: a body
that does not end with its closing boundary, or a part without a name, refuses the whole request.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.host.orpc_values import File

PARTS_MAX: Final = 1000
PART_HEADERS_MAX: Final = 4096

_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"\\\r\n]{1,70})"|([^\s;"]{1,70}))\s*(?:;|\Z)', re.IGNORECASE)
_NAME: Final = re.compile(r';\s*name="([^"]*)"', re.IGNORECASE)
_FILENAME: Final = re.compile(r';\s*filename="([^"]*)"', re.IGNORECASE)
_ESCAPES: Final = (("%0D", "\r"), ("%0A", "\n"), ("%22", '"'))


class MalformedFormError(BadInputError):
    code = "MALFORMED_FORM"


class Field(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    value: str | File


def parse_multipart(body: bytes, content_type: str) -> list[Field]:
    """The fields in order. A part with a file name is a `File`; any other is UTF-8 text.

    Raises:
        MalformedFormError: no boundary, an unfinished body, or a part that says no name.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise MalformedFormError("the content type names no boundary")
    # The first boundary may stand at the very start; with a line break before it, all are alike.
    pieces = (b"\r\n" + body).split(b"\r\n--" + (found[1] or found[2]).encode("latin-1"))
    parts, end = pieces[1:-1], pieces[-1]
    if len(pieces) < 2 or not end.startswith(b"--"):
        raise MalformedFormError("the form does not end with its boundary")
    if len(parts) > PARTS_MAX:
        raise MalformedFormError(f"the form has more than {PARTS_MAX} parts")
    return [_field(part) for part in parts]


def _field(part: bytes) -> Field:
    head, separator, content = part.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"\r\n") or len(head) > PART_HEADERS_MAX:
        raise MalformedFormError("a part of the form has no usable headers")
    headers = _headers(head)
    disposition = headers.get("content-disposition", "")
    name, filename = _NAME.search(disposition), _FILENAME.search(disposition)
    if name is None or not disposition.lower().startswith("form-data"):
        raise MalformedFormError("a part of the form has no name")
    if filename is not None:
        media_type = headers.get("content-type", "application/octet-stream")
        return Field(name=_unescaped(name[1]), value=File(_unescaped(filename[1]), media_type, content))
    return Field(name=_unescaped(name[1]), value=_text(content))


def _headers(head: bytes) -> dict[str, str]:
    lines = (_text(line).partition(":") for line in head.split(b"\r\n") if line)
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedFormError("a text of the form is not UTF-8") from error


def _unescaped(name: str) -> str:
    """The three characters that would break the header are escaped, and nothing else is."""
    for escape, char in _ESCAPES:
        name = name.replace(escape, char)
    return name
