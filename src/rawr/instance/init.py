"""Makes a folder an instance. Never overwrites: a file that is there is left as it is and reported so."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Final, Literal

import msgspec

from rawr.errors import RawrError
from rawr.storage.atomic import create_exclusive, make_dir

FOLDERS: Final = ("cli", "agents", "web", "api", "workflows")


class InitError(RawrError):
    code = "INIT_REFUSED"


class InitFile(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    path: str
    """Relative to the instance."""
    action: Literal["create", "skip"]


class Initialized(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    root: Path
    files: tuple[InitFile, ...]


def init_instance(folder: Path, *, dry_run: bool = False) -> Initialized:
    """Make `folder` a minimal working instance with one small workflow, `hello`.

    Raises:
        InitError: `folder` is a file, or cannot be resolved.
        StorageError: it cannot be written.
    """
    try:
        root = folder.resolve()
    except (RuntimeError, OSError) as error:  # a loop of links
        raise InitError(f"{folder} cannot be resolved: {error}", fix="name another folder: rawr init DIR") from error
    if os.path.lexists(root) and not os.path.isdir(root):
        raise InitError(f"{root} is a file; an instance is a folder", fix="name another folder: rawr init DIR")
    files = []
    for path, text in _kit():
        target = root / path
        action: Literal["create", "skip"] = "skip" if os.path.lexists(target) else "create"
        if action == "create" and not dry_run:
            make_dir(target.parent)
            if not create_exclusive(target, text.encode(), mode=0o644):
                action = "skip"
        files.append(InitFile(path=path, action=action))
    return Initialized(root=root, files=tuple(files))


def _kit() -> list[tuple[str, str]]:
    """`(path, text)` of every file, from the package. Names there end in `.kit`, so that nothing runs them."""
    kit = resources.files("rawr.instance") / "kit"
    named = {
        "rawr_hq.py": "rawr_hq.py.kit",
        "rawr.toml": "rawr.toml.kit",
        ".gitignore": "gitignore.kit",
        "plugins/workflows/hello/pyproject.toml": "hello_pyproject.toml.kit",
        "plugins/workflows/hello/plugin.py": "hello_plugin.py.kit",
    }
    files = [(path, (kit / name).read_text(encoding="utf-8")) for path, name in named.items()]
    # A .gitignore that was there before may not know .rawr, and what lies in it must never be committed.
    return [*files, (".rawr/.gitignore", "*\n"), *((f"plugins/{folder}/.keep", "") for folder in FOLDERS)]
