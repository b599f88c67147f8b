"""Texts from a repository made safe to show: valid Unicode, on one line, without control or direction characters."""

from __future__ import annotations

import re
from typing import Final

_HIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_MARKDOWN: Final = re.compile(r"([\\`*_{}\[\]<>#|~])")


def shown(raw: bytes, *, most: int = 300) -> str:
    """`raw` for people. Bytes that are not UTF-8 and characters that do not show are escaped."""
    text = _HIDDEN.sub(_escaped, raw.decode("utf-8", "backslashreplace"))
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str) -> str:
    """`text` so that Markdown shows it as it is."""
    return _MARKDOWN.sub(r"\\\1", text)


def code(text: str) -> str:
    """`text` as a Markdown code span that also works inside a table."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    padding = " " if longest or text.startswith(" ") else ""
    return f"{fence}{padding}{text.replace('|', chr(92) + '|')}{padding}{fence}"


def _escaped(match: re.Match[str]) -> str:
    number = ord(match.group())
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
