"""Caller classes, the evidence for each, and which route family it opens: the one table of who may call what. Pure.

The host decides by it, the published documents and the reference page are made from it, and the tests are its rows.
A scope narrows a key further: it names one family and one part of it, `orpc:coordination` or `rpc:*`. There is no
scope for `/api/inngest`: no key ever reaches that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final, NewType

import msgspec

from rawr.errors import BadInputError
from rawr.security.rates import Rate

Scope = NewType("Scope", str)

_SCOPE: Final = re.compile(r"(rpc|orpc|workflows):(\*|[a-z0-9][a-z0-9-]{0,62})\Z")


class CallerClass(StrEnum):
    FIRST_PARTY = "first-party"
    INTERNAL = "internal"
    TRUSTED_SERVICE = "trusted-service"
    CLI = "cli"
    EXTERNAL = "external"
    RUNTIME_INGRESS = "runtime-ingress"
    UNLABELED = "unlabeled"


class PrincipalKind(StrEnum):
    PERSON = "person"
    AGENT = "agent"
    SERVICE = "service"


class Family(StrEnum):
    """The route families, and what they have beside them."""

    RPC = "rpc"
    ORPC = "orpc"
    WORKFLOWS = "workflows"
    INGRESS = "ingress"
    CONSOLE = "console"
    OPEN = "open"
    """Health, enabled web modules, the login page: nothing there is decided."""


class Evidence(StrEnum):
    SESSION = "session cookie"
    SERVICE_KEY = "service key"
    CLI_KEY = "CLI key"
    API_KEY = "API key"
    SIGNATURE = "signature"
    NONE = "nothing"


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """What proves a class, and what the class opens."""

    evidence: Evidence
    families: frozenset[Family]


def _admission(evidence: Evidence, *families: Family) -> Admission:
    return Admission(evidence=evidence, families=frozenset((*families, Family.OPEN)))


MATRIX: Final[Mapping[CallerClass, Admission]] = {
    CallerClass.FIRST_PARTY: _admission(Evidence.SESSION, Family.RPC, Family.CONSOLE),
    CallerClass.INTERNAL: _admission(Evidence.SERVICE_KEY, Family.RPC),
    CallerClass.TRUSTED_SERVICE: _admission(Evidence.SERVICE_KEY, Family.RPC),
    CallerClass.CLI: _admission(Evidence.CLI_KEY, Family.RPC),
    CallerClass.EXTERNAL: _admission(Evidence.API_KEY, Family.ORPC, Family.WORKFLOWS),
    CallerClass.RUNTIME_INGRESS: _admission(Evidence.SIGNATURE, Family.INGRESS),
    CallerClass.UNLABELED: _admission(Evidence.NONE),
}

LABELLED: Final = frozenset({Family.RPC})
"""Where what a caller calls itself counts. Published families and the ingress have one class each."""

MINTED: Final = tuple(
    caller_class
    for caller_class, admission in MATRIX.items()
    if admission.evidence in (Evidence.API_KEY, Evidence.SERVICE_KEY)
)
"""The classes that keys are made for."""


class InvalidScopeError(BadInputError):
    code = "INVALID_SCOPE"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who was authenticated, by what evidence, and what the evidence allows."""

    caller_class: CallerClass
    principal: PrincipalKind
    token_id: str | None = None
    scopes: tuple[Scope, ...] = ()
    rate: Rate | None = None
    """How often it may call; None for as often as it likes."""


class Unproven(msgspec.Struct, frozen=True, kw_only=True):
    """Why nobody was authenticated. For our log, never for the caller."""

    reason: str
    token_id: str | None = None


class Verdict(StrEnum):
    ADMITTED = "admitted"
    NO_EVIDENCE = "no evidence"
    WRONG_FAMILY = "wrong family"
    LABEL = "label"
    TOO_MANY = "too many"


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a request may use its family, and as whom. Made once, and all that is done for the request follows it."""

    family: Family
    verdict: Verdict
    caller: Caller | None = None
    retry_after_s: int = 0
    """With TOO_MANY: when to come again."""

    @property
    def is_admitted(self) -> bool:
        return self.verdict is Verdict.ADMITTED

    def opens(self, part: str) -> bool:
        """Whether the decision covers this part of its family."""
        return self.is_admitted and self.caller is not None and allows(self.caller.scopes, self.family, part)


def opens(caller_class: CallerClass, family: Family) -> bool:
    return family in MATRIX[caller_class].families


def decide(family: Family, found: Caller | Unproven, label: CallerClass | None) -> Decision:
    """Whether `found` may use `family`. A label, where one counts, must open the family as well: it only narrows."""
    if isinstance(found, Unproven):
        return Decision(family=family, verdict=Verdict.NO_EVIDENCE)
    if not opens(found.caller_class, family):
        return Decision(family=family, verdict=Verdict.WRONG_FAMILY, caller=found)
    if label is not None and family in LABELLED and not opens(label, family):
        return Decision(family=family, verdict=Verdict.LABEL, caller=found)
    return Decision(family=family, verdict=Verdict.ADMITTED, caller=found)


def evidence_for(family: Family) -> tuple[Evidence, ...]:
    """Everything that opens the family, each once."""
    return tuple(dict.fromkeys(row.evidence for row in MATRIX.values() if family in row.families))


def parse_scope(text: str) -> Scope:
    """`text` as a scope.

    Raises:
        InvalidScopeError: it is not `<family>:<part>` or `<family>:*`.
    """
    trimmed = text.strip()
    if _SCOPE.match(trimmed) is None:
        raise InvalidScopeError(
            f"not a scope: {text!r}; scopes are orpc:*, orpc:<namespace>, workflows:* and workflows:<capability>, "
            "and for a service key rpc:* and rpc:<namespace>",
            details={"scope": text},
            fix="rawr token create --name NAME --scope 'orpc:*'",
        )
    return Scope(trimmed)


def parse_scopes(texts: Sequence[str], caller_class: CallerClass) -> tuple[Scope, ...]:
    """The scopes of a key for this class, each once.

    Raises:
        InvalidScopeError: one is not a scope, or of a family that no key of the class opens.
    """
    scopes = tuple(dict.fromkeys(parse_scope(text) for text in texts))
    for scope in scopes:
        family = Family(scope.partition(":")[0])
        if not opens(caller_class, family):
            known = " and ".join(sorted(f"{name}:..." for name in MATRIX[caller_class].families - {Family.OPEN}))
            raise InvalidScopeError(
                f"a key of the class {caller_class} does not open {scope}; its scopes are {known}",
                details={"scope": scope, "class": caller_class.value},
                fix="rawr token create --class trusted-service --scope 'rpc:*' makes a key for /rpc",
            )
    return scopes


def scope_name(family: Family, part: str) -> Scope:
    """The scope that opens `part` of `family`: `orpc:coordination`."""
    return Scope(f"{family.value}:{part}")


def allows(scopes: Collection[Scope], family: Family, part: str) -> bool:
    """Whether `scopes` open `part` of `family`, as in `allows(scopes, Family.ORPC, "coordination")`."""
    return scope_name(family, "*") in scopes or scope_name(family, part) in scopes
