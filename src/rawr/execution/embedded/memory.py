"""What a run remembers, as its calls carry it: kept from a call to the one that follows it, and only added to. Pure.

A memo never changes and steps are numbered in the order in which they finished. So what was read up to a step stays
true for as long as the run is there, and the next call needs only the steps that came after it. Who writes them, and
in which process, does not matter.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, TypeVar

import msgspec

from rawr.execution.embedded.fragment import Fragment

T = TypeVar("T")
_step_id: Final = attrgetter("step_id")


class FinishedStep(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A row of `steps`; both memos are JSON text."""

    step_id: str
    quoted_id: str
    """As JSON."""
    memo: str
    memo_canonical: str | None
    """Where that is another text."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """The first `steps` finished steps of a run. Nothing but putting the pieces together is done twice."""

    has_memos: bool
    """Without them it holds the order of the steps only: the rest is too large for calls."""
    steps: int = 0
    quoted_ids: bytes = b""
    """In the order in which the steps finished, with commas between them."""
    ids: tuple[str, ...] = ()
    """Sorted, as the keys of the memos are in RFC 8785."""
    texts: tuple[bytes, ...] = ()
    """`"id":memo` for each of `ids`."""
    signed: tuple[bytes, ...] = ()
    """The same in canonical form; `texts` itself while that is no other text."""

    def with_steps(self, found: Sequence[FinishedStep]) -> Memory:
        """With the steps that finished after these, in their order."""
        if not found:
            return self
        quoted = ",".join([step.quoted_id for step in found]).encode()
        quoted_ids = self.quoted_ids + b"," + quoted if self.steps else quoted
        steps = self.steps + len(found)
        if not self.has_memos:
            return Memory(has_memos=False, steps=steps, quoted_ids=quoted_ids)
        differs = self.signed is not self.texts or any(step.memo_canonical is not None for step in found)
        new = sorted(found, key=_step_id)
        places = [bisect_left(self.ids, step.step_id) for step in new]
        texts = _merged(self.texts, [_piece(step, step.memo) for step in new], places)
        return Memory(
            has_memos=True,
            steps=steps,
            quoted_ids=quoted_ids,
            ids=_merged(self.ids, [step.step_id for step in new], places),
            texts=texts,
            signed=_merged(self.signed, [_piece(step, step.memo_canonical or step.memo) for step in new], places)
            if differs
            else texts,
        )

    def without_memos(self) -> Memory:
        """Nothing brings them back: a run's state only grows."""
        return Memory(has_memos=False, steps=self.steps, quoted_ids=self.quoted_ids) if self.has_memos else self

    def stack(self) -> Fragment:
        """A list of the ids of the steps, in the order in which they finished."""
        return Fragment(b"[" + self.quoted_ids + b"]")

    def memos(self) -> Fragment:
        """An object of the memos by id."""
        text = b"{" + b",".join(self.texts) + b"}"
        return Fragment(text, None if self.signed is self.texts else b"{" + b",".join(self.signed) + b"}")


NOTHING: Final = Memory(has_memos=True)
"""What a run remembers when it begins."""


def _piece(step: FinishedStep, memo: str) -> bytes:
    return f"{step.quoted_id}:{memo}".encode()


def _merged(known: tuple[T, ...], new: list[T], places: list[int]) -> tuple[T, ...]:
    """`known` with each of `new` in front of what is at its place there; both are sorted."""
    if not known:
        return tuple(new)
    merged: list[T] = []
    begin = 0
    for value, place in zip(new, places, strict=True):
        merged += known[begin:place]
        merged.append(value)
        begin = place
    return (*merged, *known[begin:])
