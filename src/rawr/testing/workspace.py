"""Temporary instances for tests: a directory that every part of rawr takes for an instance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

_DEFAULT_COMPOSITION: Final = """from pathlib import Path

from rawr.hq import Manifest, compose


def manifest(root: Path) -> Manifest:
    return compose(root)
"""


def make_instance(root: Path, *, files: Mapping[str, str] | None = None) -> Path:
    """Make `root` an instance: the marker `rawr_hq.py`, an empty `rawr.toml`, `plugins/`; return its real path.

    `files` are texts by path below the root, e.g. `{"plugins/workflows/echo/plugin.py": "..."}`.
    """
    root.mkdir(parents=True, exist_ok=True)
    texts = {
        "rawr_hq.py": _DEFAULT_COMPOSITION,
        "rawr.toml": "",
        "plugins/.gitkeep": "",
        **(files or {}),
    }
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root.resolve()
