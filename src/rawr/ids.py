"""Identifiers: their types, their rules and how they are made from a time and entropy. Pure.

The clock and the randomness that make fresh ones live in `rawr.clock`.
"""

from __future__ import annotations

import re
from typing import Final, NewType

WorkflowId = NewType("WorkflowId", str)
RunId = NewType("RunId", str)
DeskId = NewType("DeskId", str)
HandoffId = NewType("HandoffId", str)
PluginId = NewType("PluginId", str)
InstanceId = NewType("InstanceId", str)
EventId = NewType("EventId", str)

ID_LENGTH_MAX: Final = 128
# `\Z`, not `$`: with `$` an id may end in a newline.
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@/+=-]{0,127}\Z")
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_BASE36: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


def is_id(text: str) -> bool:
    """Whether `text` is a workflow, run, desk or handoff id: 1 to 128 of `A-Za-z0-9._-`, first alphanumeric."""
    return _ID.match(text) is not None


def is_request_id(text: str) -> bool:
    """Whether a request or correlation id may be what a caller says: safe in a header, in a log and in a text."""
    return _REQUEST_ID.match(text) is not None


def normalized_id(text: str) -> str | None:
    """`text` without surrounding white space when that is an id, else None."""
    trimmed = text.strip()
    return trimmed if is_id(trimmed) else None


def run_id_from(now_ms: int, entropy: int) -> RunId:
    """`run-<ms>-<8 base-36 digits>`, the form of run ids that callers did not choose themselves."""
    digits = ""
    for _ in range(8):
        entropy, digit = divmod(entropy, 36)
        digits = _BASE36[digit] + digits
    return RunId(f"run-{now_ms}-{digits}")


def ulid(ms: int, entropy: bytes) -> str:
    """The 26 characters of a ULID from 48 bits of milliseconds and 10 bytes of entropy."""
    assert len(entropy) == 10
    value = (ms << 80) | int.from_bytes(entropy, "big")
    return "".join(_CROCKFORD[(value >> shift) & 31] for shift in range(125, -1, -5))
