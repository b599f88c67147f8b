"""Ending runs from outside: by an event that their function named, one by one, or all that fit a description.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from typing import Final

import msgspec

from rawr.execution.embedded.interest import Interest, concerned
from rawr.execution.embedded.model import NewEvent, RunFilter
from rawr.execution.embedded.runs import Cancelled, end_run
from rawr.execution.embedded.transition import Transition, stored_fragment
from rawr.execution.expressions import Scope
from rawr.storage.sqlite import rows

PAGE: Final = 200
_CANCELLED_BY: Final = Interest(table="cancels", row_id="run_id", valid="(i.until IS NULL OR i.until > :now)")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One transaction's worth of a cancellation of many."""

    cancelled: list[str]
    last_run_id: str | None
    """Go on after this one; None at the end."""


def cancel_by_event(at: Transition, event: NewEvent) -> None:
    """Cancel the runs whose function said so for this event. They are older than it: it has not been routed before."""
    for run_id in concerned(at, event, _CANCELLED_BY):
        end_run(at, run_id, Cancelled(reason=f"cancelled by the event {event.name}"))


class Fitting(msgspec.Struct, frozen=True, kw_only=True):
    run_ids: list[str]
    last_run_id: str | None
    """Go on after this one; None at the end."""


def cancel_page(at: Transition, which: RunFilter, after_run_id: str) -> Page:
    """Cancel those of the next `PAGE` open runs of the function that fit, in the order of their ids."""
    page = fitting_page(at, which, after_run_id)
    cancelled = [run_id for run_id in page.run_ids if end_run(at, run_id, Cancelled(reason=which.reason))]
    return Page(cancelled=cancelled, last_run_id=page.last_run_id)


def fitting_page(at: Transition, which: RunFilter, after_run_id: str) -> Fitting:
    """Those of the next `PAGE` open runs of the function that fit. Changes nothing."""
    found = rows(
        at.connection,
        "SELECT r.run_id, e.body, e.body_canonical FROM runs r JOIN events e ON e.ulid = r.event_ulid"
        " WHERE r.fn_id = ? AND r.ended_at IS NULL AND r.run_id > ? AND r.queued_at >= ? AND r.queued_at < ?"
        " ORDER BY r.run_id LIMIT ?",
        (which.fn_id, after_run_id, which.queued_from_ms, which.queued_before_ms, PAGE),
    )
    fitting = [
        run_id
        for run_id, *trigger in found
        if which.condition is None or at.expressions.is_true(which.condition, Scope(stored_fragment(*trigger).value()))
    ]
    return Fitting(run_ids=fitting, last_run_id=found[-1][0] if len(found) == PAGE else None)
