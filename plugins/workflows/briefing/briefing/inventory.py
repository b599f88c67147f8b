"""What is in the repository: lines by language, the largest files, and the notes that say TODO or FIXME.

The work is bounded in files, bytes and time; what is not looked at is counted and said.
"""

from __future__ import annotations

import codecs
import heapq
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rawr.sdk import DeskContext, JsonValue, desk_handler

from .languages import language_of
from .listing import Listing, Reader, UnreadableError, list_files
from .text import shown

LARGEST_SHOWN: Final = 10
NOTES_SHOWN: Final = 50
_NOTE: Final = re.compile(rb"\b(TODO|FIXME)(?=[:(\s]|$)[^\n]{0,200}")
_BINARY_SNIFF: Final = 8192
_UTF16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(kw_only=True)
class Language:
    files: int = 0
    lines: int = 0
    size_bytes: int = 0


@dataclass(kw_only=True)
class Tally:
    """What has been found so far."""

    languages: dict[str, Language] = field(default_factory=dict)
    sizes: list[tuple[int, bytes]] = field(default_factory=list)
    lines: dict[bytes, int] = field(default_factory=dict)
    notes: list[dict[str, JsonValue]] = field(default_factory=list)
    note_count: int = 0
    binary: int = 0
    unreadable: int = 0
    too_large: int = 0
    not_read: int = 0
    read_bytes: int = 0


@desk_handler("repo.inventory")
def inventory(found: JsonValue, ctx: DeskContext) -> JsonValue:  # noqa: ARG001 - every handler has a context
    root = Path(found["repository"]["root"])
    listing = list_files(root)
    tally = _tally(Reader(root), listing, found["limits"], time.monotonic)
    languages = sorted(tally.languages.items(), key=lambda entry: (-entry[1].lines, entry[0]))
    return {
        "files": len(listing.files),
        "filesRead": sum(language.files for language in tally.languages.values()),
        "lines": sum(language.lines for language in tally.languages.values()),
        "bytes": sum(size for size, _ in tally.sizes),
        "binaryFiles": tally.binary,
        "links": listing.links,
        "submodules": listing.submodules,
        "languages": [
            {"language": name, "files": one.files, "lines": one.lines, "bytes": one.size_bytes}
            for name, one in languages
        ],
        "largest": [
            {"path": shown(path), "bytes": size, "lines": tally.lines.get(path)}
            for size, path in heapq.nsmallest(LARGEST_SHOWN, tally.sizes, key=lambda entry: (-entry[0], entry[1]))
        ],
        "notes": {"count": tally.note_count, "places": tally.notes},
        "leftOut": _left_out(listing, tally, found["limits"]),
    }


def _tally(reader: Reader, listing: Listing, limits: dict[str, int], now_s: Callable[[], float]) -> Tally:
    tally = Tally()
    deadline_s = now_s() + limits["seconds"]
    for number, path in enumerate(listing.files):
        if number >= limits["files"] or tally.read_bytes >= limits["readBytes"] or now_s() > deadline_s:
            tally.not_read = len(listing.files) - number
            break
        try:
            _look_at(reader, path, tally, limits)
        except UnreadableError:
            tally.unreadable += 1
    return tally


def _look_at(reader: Reader, path: bytes, tally: Tally, limits: dict[str, int]) -> None:
    size = reader.size(path)
    if size > limits["fileBytes"]:
        tally.sizes.append((size, path))
        tally.too_large += 1
        return
    raw = reader.read(path, most_bytes=limits["fileBytes"])
    tally.sizes.append((len(raw), path))
    tally.read_bytes += len(raw)
    text = _text_of(raw)
    if text is None:
        tally.binary += 1
        return
    lines = text.count(b"\n") + (not text.endswith(b"\n") and len(text) > 0)
    tally.lines[path] = lines
    language = tally.languages.setdefault(language_of(path), Language())
    language.files += 1
    language.lines += lines
    language.size_bytes += len(raw)
    _note(path, text, tally)


def _text_of(raw: bytes) -> bytes | None:
    """The text in `raw`, None when it is binary. UTF-16 counts as text when it says so itself."""
    if raw.startswith(_UTF16):
        return raw.decode("utf-16", "replace").encode()
    return None if b"\0" in raw[:_BINARY_SNIFF] else raw


def _note(path: bytes, text: bytes, tally: Tally) -> None:
    line, counted_to = 1, 0
    for match in _NOTE.finditer(text):
        tally.note_count += 1
        if len(tally.notes) >= NOTES_SHOWN:
            continue
        line += text.count(b"\n", counted_to, match.start())
        counted_to = match.start()
        said = shown(match.group().strip(), most=160)
        tally.notes.append({"path": shown(path), "line": line, "kind": match.group(1).decode(), "text": said})


def _left_out(listing: Listing, tally: Tally, limits: dict[str, int]) -> list[str]:
    said = []
    if listing.cut:
        said.append(f"git listed more files than are taken here; {len(listing.files)} were taken")
    if tally.not_read:
        said.append(
            f"{tally.not_read} of {len(listing.files)} files were not looked at: the limit of {limits['files']} files, "
            f"{limits['readBytes']} bytes or {limits['seconds']} s was reached"
        )
    if tally.too_large:
        said.append(f"{tally.too_large} files larger than {limits['fileBytes']} bytes count by size only")
    if tally.unreadable:
        said.append(f"{tally.unreadable} listed files are missing, cannot be read or are no regular files")
    if tally.binary:
        said.append(f"{tally.binary} binary files have no lines")
    if listing.links:
        said.append(f"{listing.links} symbolic links were not followed")
    if listing.submodules:
        said.append(f"{listing.submodules} submodules are repositories of their own and were not looked into")
    if tally.note_count > len(tally.notes):
        said.append(f"{tally.note_count - len(tally.notes)} more TODO or FIXME notes are not listed")
    return said
