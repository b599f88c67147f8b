"""What changed from one content of the state file to another. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from rawr.ids import PluginId
from rawr.state.model import Document, state_of

_ABSENT: Final = object()


class ListChange(msgspec.Struct, frozen=True, kw_only=True):
    """Of one list, in the order of the list."""

    gained: tuple[PluginId, ...]
    lost: tuple[PluginId, ...]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    enabled: ListChange
    disabled: ListChange
    keys: tuple[str, ...]
    """Other keys whose values differ, as `key` or `plugins.key`. Not the time of the change, which always differs."""

    def __bool__(self) -> bool:
        return bool(self.enabled.gained or self.enabled.lost or self.disabled.gained or self.disabled.lost or self.keys)


def difference(before: Document, after: Document) -> Difference:
    old, new = state_of(before, at="").plugins, state_of(after, at="").plugins
    keys = [
        *_differing(before, after, known=("plugins",)),
        *(
            f"plugins.{key}"
            for key in _differing(before["plugins"], after["plugins"], known=("enabled", "disabled", "lastUpdatedAt"))
        ),
    ]
    return Difference(
        enabled=_change(old.enabled, new.enabled), disabled=_change(old.disabled, new.disabled), keys=tuple(keys)
    )


def _change(before: Iterable[PluginId], after: Iterable[PluginId]) -> ListChange:
    old, new = tuple(before), tuple(after)
    return ListChange(
        gained=tuple(entry for entry in new if entry not in old),
        lost=tuple(entry for entry in old if entry not in new),
    )


def _differing(before: Document, after: Document, *, known: tuple[str, ...]) -> Iterator[str]:
    for key in sorted({*before, *after} - {*known}):
        if before.get(key, _ABSENT) != after.get(key, _ABSENT):
            yield key
