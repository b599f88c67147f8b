"""The system calls of this process that touch files, made countable: something can be done at the n-th of them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

NAMES: Final = {
    os: (
        "open",
        "close",
        "read",
        "write",
        "pread",
        "pwrite",
        "fsync",
        "replace",
        "link",
        "unlink",
        "truncate",
        "ftruncate",
        "fchmod",
        "listdir",
        "mkdir",
        "setxattr",
    ),
    fcntl: ("flock", "fcntl"),
}
At = Callable[[int, str, Callable[[], Any]], Any]
"""`at(number, name, call)` stands in for a call, which `call()` makes; numbers count from 0."""


@contextlib.contextmanager
def counted(at: At) -> Iterator[list[str]]:
    """Let `at` make every call; the list of their names, as they are made."""
    made: list[str] = []
    originals = [(module, name, getattr(module, name)) for module, names in NAMES.items() for name in names]

    def wrapped(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            made.append(name)
            return at(len(made) - 1, name, lambda: original(*args, **options))

        return call

    for module, name, original in originals:
        setattr(module, name, wrapped(name, original))
    try:
        yield made
    finally:
        for module, name, original in originals:
            setattr(module, name, original)
