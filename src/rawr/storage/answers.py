"""Answers of one database, kept until somebody commits. Asking whether anybody has costs a twentieth of asking again.

For answers as bytes, which are passed on unread. Whoever commits, in this process or another, makes all of them old.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final

from rawr.storage.sqlite import Connection, Database

BYTES_MAX: Final = 8 << 20


class Answers:
    """At most `most_bytes` of them; what does not fit is asked for each time."""

    def __init__(self, database: Database, *, most_bytes: int = BYTES_MAX) -> None:
        self._database = database
        self._most_bytes = most_bytes
        self._version: int | None = None
        self._kept: dict[Hashable, bytes] = {}
        self._size_bytes = 0

    async def of(self, key: Hashable, question: Callable[[Connection], bytes | None]) -> bytes | None:
        """What `question` gives, from now or from before if nothing has been committed since. `key` names it.

        Raises: what `Database.read` raises.
        """
        version = self._database.data_version()
        if version != self._version:
            self._version, self._size_bytes = version, 0
            self._kept.clear()
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        answer = await self._database.read(question)
        # It may be of a commit that came after the version; whoever asks next then sees another version.
        if answer is not None and version == self._version:
            self._keep(key, answer)
        return answer

    def _keep(self, key: Hashable, answer: bytes) -> None:
        if key not in self._kept and self._size_bytes + len(answer) <= self._most_bytes:
            self._kept[key] = answer
            self._size_bytes += len(answer)
