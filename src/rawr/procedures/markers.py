"""Markers: what is worked out once for a request, however many of its parts need it. Pure.

A heavy step of a request declares a marker. The first who needs its result makes it and leaves it in the marks of the
request, where the others find it. Marks live as long as what they are about: a request, or a head that several
requests of one connection have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from rawr.errors import RawrError

T = TypeVar("T")


class MarkerMissingError(RawrError):
    """A step was gone past that must not be. A fault of ours."""

    code = "MARKER_MISSING"


class Dedupe(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The marker of a step whose result is a T."""

    key: str


class Marks(dict[str, Any]):
    """The results of one request or one head, by the keys of their markers."""

    __slots__ = ()

    def once(self, marker: Dedupe[T], make: Callable[[], T]) -> T:
        """The result under `marker`, made now if it is not there."""
        if marker.key not in self:
            self[marker.key] = make()
        result: T = self[marker.key]
        return result

    def find(self, marker: Dedupe[T]) -> T | None:
        return self.get(marker.key)

    def keep(self, marker: Dedupe[T], result: T) -> None:
        """Leave `result` under `marker`, in place of what was there."""
        self[marker.key] = result

    def require(self, marker: Dedupe[T]) -> T:
        """The result under `marker`.

        Raises:
            MarkerMissingError: the step was not taken.
        """
        if marker.key not in self:
            raise MarkerMissingError(f"the request has no mark {marker.key}: nothing may be done for it")
        result: T = self[marker.key]
        return result
