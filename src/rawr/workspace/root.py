"""Which instance a command is about. The first source that says something decides, and a wrong one is an error.

It never falls back to the place that rawr itself was installed in, and there is no global current instance: the
global owner is an answer only for callers who ask for it.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import RawrError

MARKER: Final = "rawr_hq.py"
VARIABLES: Final = ("RAWR_INSTANCE", "RAWR_WORKSPACE_ROOT", "RAWR_HQ_ROOT")
ALLOW_GLOBAL_OWNER: Final = "RAWR_ALLOW_GLOBAL_OWNER"
"""`1` says the same as `--global-owner`; any other value says nothing."""


class InstanceNotFoundError(RawrError):
    code = "INSTANCE_NOT_FOUND"


class ResolvedInstance(msgspec.Struct, frozen=True, kw_only=True):
    root: Path
    """The real path: aliases of one instance are one instance."""
    source: str
    """`flag`, `env:<variable>`, `cwd` or `global-owner`."""
    warnings: tuple[str, ...] = ()


def resolve_instance(
    *, flag: str | None, environ: Mapping[str, str], cwd: Path, global_owner: Callable[[], Path] | None = None
) -> ResolvedInstance:
    """The instance that `flag`, else the environment, else the nearest marker at or above `cwd` names.

    `global_owner` gives the root of the global owner. It is called only when nothing else names an instance, and
    None, the default, is for callers who were not told to use it.

    Raises:
        InstanceNotFoundError: none of them does, or the one that was given is no instance.
        RawrError: what `global_owner` raises.
    """
    nearest = nearest_instance(cwd)
    if flag is not None:
        return ResolvedInstance(root=_chosen(flag, cwd, "--instance"), source="flag")
    for variable in VARIABLES:
        if given := environ.get(variable):
            root = _chosen(given, cwd, variable)
            return ResolvedInstance(root=root, source=f"env:{variable}", warnings=_overrides(variable, root, nearest))
    if nearest is not None:
        return ResolvedInstance(root=nearest, source="cwd")
    if global_owner is not None:
        return ResolvedInstance(root=global_owner(), source="global-owner")
    raise InstanceNotFoundError(
        f"no instance here: no {MARKER} in {cwd} or above it",
        fix="change into an instance, name one with --instance DIR, make one with: rawr init DIR, "
        "or ask for the global owner with --global-owner",
    )


def nearest_instance(start: Path) -> Path | None:
    """The nearest folder at or above the real path of `start` that holds the marker."""
    here = start.resolve()
    return next((folder for folder in (here, *here.parents) if is_instance(folder)), None)


def is_instance(folder: Path) -> bool:
    """Whether the marker is in `folder`."""
    # Not Path.is_file, which raises for a folder above us that we may not look into.
    return os.path.isfile(folder / MARKER)


def _chosen(given: str, cwd: Path, source: str) -> Path:
    if not given:
        raise InstanceNotFoundError(f"{source} names no folder", details={"source": source}, fix=f"correct {source}")
    try:
        folder = (cwd / Path(given).expanduser()).resolve()
    except (RuntimeError, OSError) as error:  # no such user after ~, a loop of links
        raise _no_instance(source, given, given, f"cannot be resolved: {error}") from error
    if not is_instance(folder):
        why = f"has no {MARKER}" if os.path.isdir(folder) else "is no folder"
        raise _no_instance(source, given, str(folder), why)
    return folder


def _no_instance(source: str, given: str, place: str, why: str) -> InstanceNotFoundError:
    return InstanceNotFoundError(
        f"{source} names {given}, which is no instance: {place} {why}",
        details={"source": source, "path": place},
        fix=f"correct {source}, or make an instance there with: rawr init {shlex.quote(given)}",
    )


def _overrides(variable: str, root: Path, nearest: Path | None) -> tuple[str, ...]:
    if nearest is None or nearest == root:
        return ()
    return (f"INSTANCE_ENV_OVERRIDES_CWD: {variable} names {root}, while the current folder is in {nearest}",)
