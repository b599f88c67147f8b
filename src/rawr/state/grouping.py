"""Which changes one commit carries out. Pure.

A requester of another process reads its answer, the state, from the commit that carried its request out. So such a
commit holds nothing that could undo another of its changes: an enabling and a disabling of one plugin go into
different commits, and a change that may be anything goes into one without requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

from rawr.state.changes import Change, Pending, QueuePosition

GROUP_MAX: Final = 256
SHARED: Final = frozenset({"enable", "disable"})
"""What can be asked of another process."""

T = TypeVar("T")


class Group(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    requests: tuple[Pending, ...]
    direct: tuple[T, ...]
    upto: QueuePosition | None


def is_shared(change: Change) -> bool:
    return change.op in SHARED and change.id is not None


def group_of(
    pending: Sequence[Pending],
    direct: Sequence[tuple[Change, T]],
    *,
    before: QueuePosition | None,
    after: QueuePosition | None,
) -> Group[T]:
    """Requests first, each kind in its order, up to the first that does not fit.

    `before` and `after` are how far the file of requests is answered without and with all of `pending`.
    """
    wanted: dict[str, str] = {}
    requests: list[Pending] = []
    for item in pending[:GROUP_MAX]:
        if wanted.setdefault(item.request.id, item.request.op) != item.request.op:
            break
        requests.append(item)
    taken: list[T] = []
    for change, of in direct[: GROUP_MAX - len(requests)]:
        if requests and not (is_shared(change) and wanted.setdefault(change.id or "", change.op) == change.op):
            break
        taken.append(of)
    up_to_last = requests[-1].upto if requests else before
    upto = after if len(requests) == len(pending) else up_to_last
    return Group(requests=tuple(requests), direct=tuple(taken), upto=upto)
