"""The help of a group, from the static table alone. Needs no click, so that `rawr --help` costs next to nothing.

Texts in the table are short enough for a line of their own; nothing is wrapped here.
"""

from __future__ import annotations

from collections.abc import Iterable

from rawr.cli.table import BASE_FLAGS, VERSION_FLAG, Flag, Path, Table


def group_help(table: Table, path: Path) -> str:
    """What `rawr <path> --help` prints."""
    flags = BASE_FLAGS if path else (VERSION_FLAG, *BASE_FLAGS)
    return "\n".join(
        [
            f"Usage: {' '.join(('rawr', *path))} [OPTIONS] COMMAND [ARGS]...",
            "",
            f"  {table.groups[path]}",
            "",
            "Options:",
            *_columns((_names(flag), flag.help) for flag in flags),
            "",
            "Commands:",
            *_columns(table.children(path)),
        ]
    )


def _names(flag: Flag) -> str:
    names = ", ".join(flag.names)
    return f"{names} {flag.metavar}" if flag.metavar else names


def _columns(rows: Iterable[tuple[str, str]]) -> list[str]:
    listed = list(rows)
    width = max(len(name) for name, _ in listed)
    return [f"  {name:<{width}}  {text}" for name, text in listed]
