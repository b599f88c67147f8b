"""The last desk: the briefing as a file of the instance, named by the run, so that a second try writes it again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from rawr.sdk import DeskContext, DeskFailed, JsonValue, desk_handler

from .report import markdown, summary

NAME_MAX: Final = 200
"""Below the limit of file systems, with room for a temporary name."""


@desk_handler("briefing.write")
def write(material: JsonValue, ctx: DeskContext) -> JsonValue:
    text = markdown(material)
    path = ctx.instance_root / ".rawr" / "reports" / _file_name(ctx.workflow_id, ctx.run_id)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text.encode())
    except OSError as error:
        raise DeskFailed(f"the briefing cannot be written to {path}: {error.strerror}") from error
    return {
        "path": str(path),
        "repository": material["repository"]["root"],
        "summary": summary(material),
        "lines": text.count("\n"),
        "bytes": len(text.encode()),
    }


def _file_name(workflow_id: str, run_id: str) -> str:
    name = f"{workflow_id}-{run_id}"
    if len(name) > NAME_MAX:
        name = f"{name[: NAME_MAX - 17]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.md"


def _replace(path: Path, data: bytes) -> None:
    """Whole or not at all, and durable: the run is recorded as completed once this returns."""
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
