"""Caller classes, principals, scopes, and which scope a call needs. Pure.

A scope names one published family and one part of it: `orpc:coordination`, `workflows:briefing`, or `*` for
every part. There is no scope for `/rpc` or `/api/inngest`: no API key ever reaches those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, NewType

import msgspec

from rawr.errors import BadInputError

Scope = NewType("Scope", str)

_SCOPE: Final = re.compile(r"(orpc|workflows):(\*|[a-z0-9][a-z0-9-]{0,62})\Z")


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
    """The published route families that API keys open."""

    ORPC = "orpc"
    WORKFLOWS = "workflows"


class InvalidScopeError(BadInputError):
    code = "INVALID_SCOPE"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Who was authenticated, by what evidence, and what the evidence allows."""

    caller_class: CallerClass
    principal: PrincipalKind
    token_id: str | None = None
    scopes: tuple[Scope, ...] = ()


def parse_scope(text: str) -> Scope:
    """`text` as a scope.

    Raises:
        InvalidScopeError: it is not `orpc:<namespace>`, `workflows:<capability>` or one of them with `*`.
    """
    trimmed = text.strip()
    if _SCOPE.match(trimmed) is None:
        raise InvalidScopeError(
            f"not a scope: {text!r}; scopes are orpc:*, orpc:<namespace>, workflows:* and workflows:<capability>",
            details={"scope": text},
            fix="rawr token create --name NAME --scope 'orpc:*'",
        )
    return Scope(trimmed)


def scope_name(family: Family, part: str) -> Scope:
    """The scope that opens `part` of `family`: `orpc:coordination`."""
    return Scope(f"{family.value}:{part}")


def allows(scopes: Iterable[Scope], family: Family, part: str) -> bool:
    """Whether `scopes` open `part` of `family`, as in `allows(scopes, Family.ORPC, "coordination")`."""
    return any(scope in (scope_name(family, "*"), scope_name(family, part)) for scope in scopes)
