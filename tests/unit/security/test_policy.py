"""Scopes: what is one, and what it opens."""

from __future__ import annotations

import pytest

from rawr.security.policy import Family, InvalidScopeError, Scope, allows, parse_scope


@pytest.mark.parametrize(
    "text",
    ["orpc:*", "orpc:coordination", "workflows:*", "workflows:repo-briefing", " orpc:state ", "rpc:*", "rpc:state"],
)
def test_a_scope_names_a_family_and_a_part(text: str) -> None:
    assert parse_scope(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "orpc",
        "orpc:",
        "rpc",
        "ingress:*",
        "console:*",
        "inngest:*",
        "orpc:Co",
        "orpc:a b",
        "orpc:*x",
        "orpc:a\n\n:",
        "workflows:a/b",
        "orpc:-a",
    ],
)
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidScopeError, match="not a scope"):
        parse_scope(text)


@pytest.mark.parametrize(
    ("scopes", "family", "part", "opens"),
    [
        (["orpc:*"], Family.ORPC, "coordination", True),
        (["orpc:coordination"], Family.ORPC, "coordination", True),
        (["orpc:coordination"], Family.ORPC, "state", False),
        (["orpc:*"], Family.WORKFLOWS, "coordination", False),
        (["workflows:*"], Family.ORPC, "coordination", False),
        (["workflows:briefing", "orpc:state"], Family.WORKFLOWS, "briefing", True),
        (["workflows:brief"], Family.WORKFLOWS, "briefing", False),
        ([], Family.ORPC, "state", False),
    ],
)
def test_a_scope_opens_its_own_part_only(scopes: list[str], family: Family, part: str, opens: bool) -> None:
    assert allows([Scope(scope) for scope in scopes], family, part) is opens
