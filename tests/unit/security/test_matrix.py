"""The one table of who may call what, as the original locked it; labels narrow; the reference page shows the table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.callers import PAGE, with_tables

from rawr.security.policy import (
    MATRIX,
    Caller,
    CallerClass,
    Decision,
    Evidence,
    Family,
    PrincipalKind,
    Scope,
    Unproven,
    Verdict,
    decide,
    evidence_for,
)

LOCKED: dict[str, tuple[Evidence, set[Family]]] = {
    "first-party": (Evidence.SESSION, {Family.RPC, Family.CONSOLE}),
    "internal": (Evidence.SERVICE_KEY, {Family.RPC}),
    "trusted-service": (Evidence.SERVICE_KEY, {Family.RPC}),
    "cli": (Evidence.CLI_KEY, {Family.RPC}),
    "external": (Evidence.API_KEY, {Family.ORPC, Family.WORKFLOWS}),
    "runtime-ingress": (Evidence.SIGNATURE, {Family.INGRESS}),
    "unlabeled": (Evidence.NONE, set()),
}
PARTS = ("coordination", "state", "briefing")

labels = st.none() | st.sampled_from(CallerClass)
scopes = st.lists(
    st.builds(
        lambda family, part: Scope(f"{family}:{part}"),
        st.sampled_from(("rpc", "orpc", "workflows")),
        st.sampled_from(("*", *PARTS)),
    ),
    max_size=4,
).map(tuple)
callers = st.builds(
    Caller, caller_class=st.sampled_from(CallerClass), principal=st.sampled_from(PrincipalKind), scopes=scopes
)
found = callers | st.just(Unproven(reason="none"))


def opened(who: Caller | Unproven, label: CallerClass | None) -> set[tuple[Family, str | None]]:
    """Every family that the caller is admitted to, and every part of one that it may use."""
    decisions = [decide(family, who, label) for family in Family]
    families = {(decision.family, None) for decision in decisions if decision.is_admitted}
    return families | {(decision.family, part) for decision in decisions for part in PARTS if decision.opens(part)}


def test_the_table_is_the_one_that_was_locked() -> None:
    assert {name.value: (row.evidence, set(row.families) - {Family.OPEN}) for name, row in MATRIX.items()} == LOCKED
    assert set(MATRIX) == set(CallerClass)


@given(found, labels)
def test_a_label_never_opens_anything(who: Caller | Unproven, label: CallerClass | None) -> None:
    assert opened(who, label) <= opened(who, None)


@given(callers, labels)
def test_nobody_leaves_the_row_of_his_class(who: Caller, label: CallerClass | None) -> None:
    assert {family for family, _ in opened(who, label)} <= MATRIX[who.caller_class].families


@pytest.mark.parametrize("label", [None, *CallerClass])
def test_without_evidence_nothing_is_decided_in_favour(label: CallerClass | None) -> None:
    for family in Family:
        assert decide(family, Unproven(reason=""), label).verdict is Verdict.NO_EVIDENCE


@pytest.mark.parametrize("label", list(CallerClass))
@pytest.mark.parametrize("caller_class", list(CallerClass))
def test_on_rpc_a_label_of_a_class_that_may_not_call_there_takes_the_caller_off(
    caller_class: CallerClass, label: CallerClass
) -> None:
    who = Caller(caller_class=caller_class, principal=PrincipalKind.SERVICE)
    may = Family.RPC in MATRIX[caller_class].families and Family.RPC in MATRIX[label].families
    assert decide(Family.RPC, who, label).is_admitted is may


@pytest.mark.parametrize("verdict", [verdict for verdict in Verdict if verdict is not Verdict.ADMITTED])
def test_a_decision_against_opens_no_part(verdict: Verdict) -> None:
    caller = Caller(caller_class=CallerClass.CLI, principal=PrincipalKind.PERSON, scopes=(Scope("rpc:*"),))
    assert not Decision(family=Family.RPC, verdict=verdict, caller=caller).opens("coordination")


def test_a_family_of_outsiders_is_opened_by_keys_and_the_ingress_by_signatures_alone() -> None:
    assert evidence_for(Family.ORPC) == evidence_for(Family.WORKFLOWS) == (Evidence.API_KEY,)
    assert evidence_for(Family.INGRESS) == (Evidence.SIGNATURE,)
    assert evidence_for(Family.RPC) == (Evidence.SESSION, Evidence.SERVICE_KEY, Evidence.CLI_KEY)


def test_the_reference_page_shows_the_table() -> None:
    page = PAGE.read_text()
    assert with_tables(page) == page, "python scripts/callers.py writes it"
