"""Which signatures have been used: a signed call is accepted once, however often it is sent. Pure.

It remembers in memory, for as long as the time window lets a signature in, and is the host's own: after a restart
a call of the last minutes could be delivered once more, which finished steps make harmless. The request's id would
be no help here, because nobody signs it.
"""

from __future__ import annotations

from typing import Final

from rawr.host.ingress import SIGNATURE_AGE_MAX_S, Signature

SEEN_MAX: Final = 1_000_000


class SeenSignatures:
    """Give it verified signatures only, so that nobody without a key can fill it.

    When it is full it forgets the oldest second, and refuses whatever was signed then or before: memory is bounded,
    and nothing gets in twice for it.
    """

    def __init__(self, *, seen_max: int = SEEN_MAX) -> None:
        self._seen_max = seen_max
        self._by_second: dict[int, set[bytes]] = {}
        self._count = 0
        self._swept_s = 0
        self._full_until_s = -1

    def first_use(self, signature: Signature, *, now_s: int) -> bool:
        """Whether this signature, which is in the window, was never used before. It is used now."""
        self._forget_expired(now_s)
        if signature.at_s <= self._full_until_s:
            return False
        seen = self._by_second.setdefault(signature.at_s, set())
        mac = bytes.fromhex(signature.mac)
        if mac in seen:
            return False
        seen.add(mac)
        self._count += 1
        if self._count > self._seen_max:
            self._full_until_s = min(self._by_second)
            self._forget(self._full_until_s)
        return True

    def _forget_expired(self, now_s: int) -> None:
        if now_s == self._swept_s:
            return
        self._swept_s = now_s
        for second in [known for known in self._by_second if known < now_s - SIGNATURE_AGE_MAX_S]:
            self._forget(second)

    def _forget(self, second: int) -> None:
        self._count -= len(self._by_second.pop(second))
