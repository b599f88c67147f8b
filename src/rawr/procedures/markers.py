"""Markers: what is worked out once for a request, however many of its parts need it. Pure.

A heavy step of a request declares a marker. The first who needs its result makes it and leaves it in the marks of the
request, where the others find it. Marks live as long as what they are about: a request, or a head that several
requests of one connection have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from rawr.errors import RawrError

T = TypeVar("T")


class MarkerMissingError(RawrError):
    """A step was gone past that must not be. A fault of ours."""

    code = "MARKER_MISSING"


class Dedupe(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """The marker of a step whose result is a T."""

    key: str


class Marks:
    """The results of one request or one head, by their markers."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def once(self, marker: Dedupe[T], make: Callable[[], T]) -> T:
        """The result under `marker`, made now if it is not there."""
        if marker.key not in self._made:
            self._made[marker.key] = make()
        return cast("T", self._made[marker.key])

    def find(self, marker: Dedupe[T]) -> T | None:
        return cast("T | None", self._made.get(marker.key))

    def keep(self, marker: Dedupe[T], result: T) -> None:
        """Leave `result` under `marker`, in place of what was there."""
        self._made[marker.key] = result

    def require(self, marker: Dedupe[T]) -> T:
        """The result under `marker`.

        Raises:
            MarkerMissingError: the step was not taken.
        """
        if marker.key not in self._made:
            raise MarkerMissingError(f"the request has no mark {marker.key}: nothing may be done for it")
        return cast("T", self._made[marker.key])
