"""Who may call the engine server: event keys for events, signing keys for all else; in dev mode anybody here.

Every comparison takes the same time, whatever was given. A request that a browser sends for some page is refused:
it would come with the rights of everybody on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from rawr.execution.signing import api_token, bare_key
from rawr.host.auth import bearer_secret, header_values
from rawr.host.request import Request
from rawr.security.credentials import same_secret


class Access(StrEnum):
    OPEN = "open"
    EVENT_KEY = "event key"
    SIGNING_KEY = "signing key"


class Doorkeeper:
    def __init__(self, *, event_keys: Sequence[str], signing_keys: Sequence[str]) -> None:
        self._is_dev = not signing_keys
        self._event_keys = tuple(event_keys)
        # SDKs show the hash of their signing key, some with its prefix; people with curl may show the key itself.
        self._tokens = tuple(token for key in signing_keys for token in (api_token(key), bare_key(key)))

    def lets_in(self, request: Request, access: Access, event_key: str) -> bool:
        if self._is_dev or access is Access.OPEN:
            return True
        if access is Access.EVENT_KEY:
            return _is_any(event_key, self._event_keys)
        return _is_any(bare_key(bearer_secret(request.headers) or ""), self._tokens)


def is_from_a_page(request: Request) -> bool:
    """Whether a browser says that it sends this for a page."""
    sites = header_values(request.headers, b"sec-fetch-site")
    return bool(header_values(request.headers, b"origin")) or any(site != b"none" for site in sites)


def _is_any(given: str, expected: Sequence[str]) -> bool:
    matched = False
    for one in expected:
        matched |= same_secret(given, one)
    return matched
