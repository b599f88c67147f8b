"""A run as people read it in a terminal."""

from __future__ import annotations

import msgspec
import pytest

from rawr.cli.timeline import run_text
from rawr.coordination.model import (
    FINALIZATION_CONTRACT,
    Finalization,
    FinishedHookState,
    HookOutcome,
    Run,
    RunStatus,
)
from rawr.ids import RunId, WorkflowId

AT = "2026-01-01T00:00:00.000Z"


def text_of(finalization: Finalization | msgspec.UnsetType) -> str:
    return run_text(
        Run(
            run_id=RunId("r"),
            workflow_id=WorkflowId("w"),
            workflow_version=1,
            status=RunStatus.COMPLETED,
            started_at=AT,
            finished_at=AT,
            trace_links=(),
            finalization=finalization,
        )
    )


def ended(outcome: HookOutcome, error: str | msgspec.UnsetType = msgspec.UNSET) -> Finalization:
    state = FinishedHookState(
        attempted_at=AT,
        outcome=outcome,
        error=error,
        non_critical=True,
        idempotency_required=True,
        timeout_ms=5000,
    )
    return Finalization(contract=FINALIZATION_CONTRACT, finished_hook=state)


@pytest.mark.parametrize(
    ("finalization", "line"),
    [
        (ended(HookOutcome.SUCCEEDED), "hook      succeeded"),
        (ended(HookOutcome.FAILED, "notify: \x1b[31mdown"), "hook      failed: notify: "),
    ],
)
def test_a_run_says_how_its_finished_hooks_ended(finalization: Finalization, line: str) -> None:
    last = text_of(finalization).splitlines()[-1]
    assert last.startswith(line)
    assert "\x1b[31m" not in last


@pytest.mark.parametrize(
    "finalization", [msgspec.UNSET, Finalization(contract=FINALIZATION_CONTRACT), ended(HookOutcome.SKIPPED)]
)
def test_of_hooks_that_were_not_there_it_says_nothing(finalization: Finalization | msgspec.UnsetType) -> None:
    assert "hook" not in text_of(finalization)
