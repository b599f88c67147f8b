"""What the repository depends on, by its manifests. A manifest that cannot be read is a line in the briefing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rawr.sdk import DeskContext, JsonValue, desk_handler

from .listing import Reader, UnreadableError, list_files
from .manifests import BrokenManifestError, parser_of
from .text import shown

MANIFEST_BYTES_MAX: Final = 1024 * 1024
LISTED_MAX: Final = 100
"""Dependencies that are listed per manifest; all are counted."""


@desk_handler("repo.dependencies")
def dependencies(found: JsonValue, ctx: DeskContext) -> JsonValue:  # noqa: ARG001 - every handler has a context
    root, most = Path(found["repository"]["root"]), found["limits"]["manifests"]
    listing = list_files(root)
    # The manifests of the whole come before those of its parts.
    paths = sorted(
        (path for path in listing.files if parser_of(_name(path))), key=lambda path: (path.count(b"/"), path)
    )
    manifests: list[dict[str, JsonValue]] = []
    problems: list[dict[str, JsonValue]] = []
    reader = Reader(root)
    for path in paths[:most]:
        try:
            manifests.append(_manifest(reader, path))
        except (UnreadableError, BrokenManifestError) as error:
            problems.append({"path": shown(path), "why": shown(str(error).encode("utf-8", "surrogateescape"))})
    return {
        "manifests": manifests,
        "count": sum(manifest["count"] for manifest in manifests),
        "problems": problems,
        "leftOut": _left_out(len(paths) - most, manifests, cut=listing.cut),
    }


def _manifest(reader: Reader, path: bytes) -> dict[str, JsonValue]:
    raw = reader.read(path, most_bytes=MANIFEST_BYTES_MAX + 1)
    if len(raw) > MANIFEST_BYTES_MAX:
        raise BrokenManifestError(f"it is larger than {MANIFEST_BYTES_MAX} bytes")
    parse = parser_of(_name(path))
    assert parse is not None
    declared = parse(raw)
    return {
        "path": shown(path),
        "count": len(declared),
        "dependencies": [_shown(dependency) for dependency in declared[:LISTED_MAX]],
    }


def _shown(dependency: tuple[str, str, str]) -> dict[str, JsonValue]:
    name, spec, group = (shown(part.encode("utf-8", "surrogateescape")) for part in dependency)
    return {"name": name, "spec": spec, "group": group}


def _left_out(too_many: int, manifests: list[dict[str, JsonValue]], *, cut: bool) -> list[str]:
    said = []
    if cut:
        said.append("git listed more files than are taken here; manifests among the others were not seen")
    if too_many > 0:
        said.append(f"{too_many} more dependency manifests were not read")
    unlisted = sum(manifest["count"] - len(manifest["dependencies"]) for manifest in manifests)
    if unlisted:
        said.append(f"{unlisted} more dependencies are counted and not listed")
    return said


def _name(path: bytes) -> str:
    return path.rpartition(b"/")[2].decode("utf-8", "replace")
