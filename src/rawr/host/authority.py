"""The one place where it is decided who may do what: once per request, before its body is read.

Families ask for the decision and follow it. It lies under a marker in the request, so that it is made once however
many ask, and so that nothing is dispatched for a request that has none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from rawr.clock import Clock
from rawr.errors import RawrError
from rawr.host.auth import (
    bearer_secret,
    comes_from_our_page,
    cookie_values,
    gives_bearer,
    session_cookie,
    surface_label,
)
from rawr.host.head import Head
from rawr.host.request import Request
from rawr.host.settings import Rates
from rawr.procedures.markers import Dedupe
from rawr.security.credentials import GivenKey, given_key
from rawr.security.keyring import Unread
from rawr.security.policy import (
    Caller,
    CallerClass,
    Decision,
    Evidence,
    Family,
    Unproven,
    Verdict,
    decide,
    evidence_for,
)
from rawr.security.rates import Buckets, Rate, address_name

_log: Final = logging.getLogger("rawr.host")

AUTHORIZATION: Final = Dedupe[Decision](key="rpc.authorization.decision")


class _Standing(msgspec.Struct, kw_only=True):
    """What a head says of who sends it, and what was decided the last time."""

    is_bearer: bool
    key: GivenKey | None
    label: CallerClass | None
    caller: Caller | None = None
    """Who sent it the last time."""
    decision: Decision | None = None
    """On that caller, but for how often it calls."""


_STANDING: Final = Dedupe[_Standing](key="authority.standing")

DecisionLog = Callable[[Request, Decision], None]


class CredentialsUnavailableError(RawrError):
    """The credentials cannot be trusted or read. Callers are not told where they are kept."""

    code = "CREDENTIALS_UNAVAILABLE"


class NotAdmittedError(RawrError):
    """Something is done for a request that was refused. A fault of ours."""

    code = "NOT_ADMITTED"


class CredentialCheck(Protocol):
    """Telling right secrets from wrong ones, in constant time."""

    def bearer(self, key: GivenKey) -> Caller | Unproven | Unread: ...

    def session(self, secrets: Sequence[str]) -> Caller | Unproven | Unread: ...


class Authority:
    def __init__(
        self,
        credentials: CredentialCheck,
        *,
        port: int,
        rates: Rates,
        clock: Clock,
        decided: DecisionLog | None = None,
    ) -> None:
        """`port` is the one that the session cookie is named by. `decided` is told of each decision when it is made."""
        self._credentials = credentials
        self._port = port
        self._address_rate = Rate(per_minute=rates.address_per_minute)
        self._keys = Buckets(most=rates.tracked)
        self._addresses = Buckets(most=rates.tracked)
        self._clock = clock
        self._decided = decided

    async def decision(self, request: Request, family: Family) -> Decision:
        """The decision on this request, by the credentials in its headers.

        Raises:
            CredentialsUnavailableError: the log says why.
        """
        while not isinstance(decision := self.at_once(request, family), Decision):
            try:
                await decision.read()
            except RawrError as error:
                _log.error("credentials cannot be read: %s: %s", error.code, error.message)
                message = "the credentials of this HQ cannot be read; its log says why"
                raise CredentialsUnavailableError(message) from error
        return decision

    def at_once(self, request: Request, family: Family) -> Decision | Unread:
        """The same, or what must be read for it: a coroutine less for most requests."""
        known = request.marks.find(AUTHORIZATION)
        if known is not None:
            return known
        found = self._found(request, family)
        if not isinstance(found, _ANSWERS):
            return found
        decision = self._decide(request, family, found)
        request.marks.keep(AUTHORIZATION, decision)
        return decision

    def decide(self, request: Request, family: Family, found: Caller | Unproven) -> Decision:
        """The decision on this request, when `found` is who sends it; the earlier one if there is one already."""
        known = request.marks.find(AUTHORIZATION)
        if known is not None:
            return known
        decision = self._decide(request, family, found)
        request.marks.keep(AUTHORIZATION, decision)
        return decision

    def wait_after_failure_s(self, request: Request) -> int:
        """Count an attempt that failed against the address of the request: 0, or how many seconds it must wait."""
        wait_ms = self._addresses.take(address_name(request.address), self._address_rate, now_ms=self._clock.now_ms())
        return math.ceil(wait_ms / 1000)

    def _decide(self, request: Request, family: Family, found: Caller | Unproven) -> Decision:
        decision = _decision_on(_standing(request.head), family, found)
        # Whoever holds a right key is not slowed down by others at the same address.
        wait_s = self._wait_s(decision) if decision.is_admitted else self.wait_after_failure_s(request)
        if wait_s:
            decision = msgspec.structs.replace(decision, verdict=Verdict.TOO_MANY, retry_after_s=wait_s)
        elif isinstance(found, Unproven) and found.reason:
            # Not a warning: it is a caller's fault, and callers send what they like.
            _log.info("request %s: key %s is refused: %s", request.request_id, found.token_id or "?", found.reason)
        caller = decision.caller
        if caller is not None:
            request.notes.caller_class, request.notes.key_id = caller.caller_class, caller.token_id
        if self._decided is not None:
            self._decided(request, decision)
        return decision

    def _wait_s(self, decision: Decision) -> int:
        caller = decision.caller
        if caller is None or caller.rate is None or caller.token_id is None:
            return 0
        wait_ms = self._keys.take(caller.token_id, caller.rate, now_ms=self._clock.now_ms())
        return math.ceil(wait_ms / 1000) if wait_ms else 0

    def _found(self, request: Request, family: Family) -> Caller | Unproven | Unread:
        standing = _standing(request.head)
        if standing.is_bearer:
            key = standing.key
            return Unproven(reason="no key, or two") if key is None else self._credentials.bearer(key)
        if Evidence.SESSION in evidence_for(family):
            return self._session(request, family)
        return _NOBODY

    def _session(self, request: Request, family: Family) -> Caller | Unproven | Unread:
        secrets = cookie_values(request.headers, session_cookie(self._port, scheme=request.scheme))
        if not secrets:
            return _NOBODY
        # A browser sends the cookie whoever made it send the request; pages are read only, procedures are not.
        if family is not Family.CONSOLE and not comes_from_our_page(request.headers, scheme=request.scheme):
            return Unproven(reason="a session that is used from another page than ours")
        return self._credentials.session(secrets)


_NOBODY: Final = Unproven(reason="")
_ANSWERS: Final = (Caller, Unproven)


def _standing(head: Head) -> _Standing:
    known = head.marks.find(_STANDING)
    if known is not None:
        return known
    secret = bearer_secret(head.headers)
    standing = _Standing(
        is_bearer=gives_bearer(head.headers),
        key=None if secret is None else given_key(secret),
        label=surface_label(head.headers),
    )
    head.marks.keep(_STANDING, standing)
    return standing


def _decision_on(standing: _Standing, family: Family, found: Caller | Unproven) -> Decision:
    known = standing.decision
    if known is not None and standing.caller is found and known.family is family:
        return known
    decision = decide(family, found, standing.label)
    if isinstance(found, Caller):
        standing.caller, standing.decision = found, decision
    return decision


def decided(request: Request) -> Decision:
    """The decision that was made on this request.

    Raises:
        MarkerMissingError: none was, so nothing may be done for it.
    """
    return request.marks.require(AUTHORIZATION)


def admitted(request: Request) -> Caller:
    """Who was let in.

    Raises:
        MarkerMissingError, NotAdmittedError: nobody was, so nothing may be done.
    """
    decision = request.marks.require(AUTHORIZATION)
    if decision.caller is None or decision.verdict is not Verdict.ADMITTED:
        raise NotAdmittedError(f"request {request.request_id} was not let in ({decision.verdict}), and goes on")
    return decision.caller
