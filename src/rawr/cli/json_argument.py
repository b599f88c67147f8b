"""JSON on the command line: in the argument itself, in a file, or from stdin."""

from __future__ import annotations

import sys
from pathlib import Path

from rawr.errors import BadInputError
from rawr.wire import JsonValue, MalformedJsonError, decode


class InvalidInputJsonError(BadInputError):
    """What was given is no JSON."""

    code = "INVALID_INPUT_JSON"


class InputUnreadableError(BadInputError):
    """The file that was named cannot be read."""

    code = "INPUT_UNREADABLE"


class InputTooLargeError(BadInputError):
    code = "PAYLOAD_TOO_LARGE"


def json_argument(given: str, *, name: str, limit_bytes: int) -> JsonValue:
    """The JSON in an option's value: JSON itself, `@FILE`, or `@-` for stdin.

    Raises:
        InvalidInputJsonError, InputUnreadableError, InputTooLargeError
    """
    raw = _raw_input(given, name, limit_bytes)
    if len(raw) > limit_bytes:
        raise InputTooLargeError(
            f"{name} is larger than {limit_bytes} bytes",
            details={"limitBytes": limit_bytes},
            fix="pass a path instead, or raise [limits] body_bytes in rawr.toml",
        )
    try:
        return decode(raw)
    except MalformedJsonError as error:
        raise _not_json(given, name, raw, error) from error


def _raw_input(given: str, name: str, limit_bytes: int) -> bytes:
    if not given.startswith("@"):
        return given.encode("utf-8", "surrogateescape")
    path = given[1:]
    try:
        if path == "-":
            return sys.stdin.buffer.read(limit_bytes + 1)
        with Path(path).expanduser().open("rb") as file:
            return file.read(limit_bytes + 1)
    except OSError as error:
        raise InputUnreadableError(
            f"{name} {given}: {error.strerror or error}", details={"path": path}, fix="name a file that can be read"
        ) from error


def _not_json(given: str, name: str, raw: bytes, error: MalformedJsonError) -> InvalidInputJsonError:
    source = given if given.startswith("@") else name
    place = _place(raw)
    at = f" (line {place['line']}, column {place['column']})" if place else ""
    return InvalidInputJsonError(
        f"{source} is no JSON{at}: {error.message.removeprefix('not valid JSON: ')}",
        details={"source": source, **place},
        fix=f'quote it for the shell: {name} \'{{"key": "value"}}\'',
    )


def _place(raw: bytes) -> dict[str, int]:
    """Where reading stopped; empty when that is not one place (too deep, not finite)."""
    import json

    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        return {"line": error.lineno, "column": error.colno, "offset": error.pos}
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        return {
            "line": before.count(b"\n") + 1,
            "column": len(before) - (before.rfind(b"\n") + 1) + 1,
            "offset": error.start,
        }
    except RecursionError:
        return {}
    return {}
