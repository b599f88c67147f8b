"""The telemetry contract: which pairs of type and status exist, and where traces are."""

from __future__ import annotations

import pytest

from rawr.telemetry.contract import (
    ALLOWED_STATUSES,
    REQUIRED_RUN_LIFECYCLE_EVENT_TYPES,
    STATUSES,
    TERMINAL_EVENT_TYPES,
    Link,
    assert_status,
    default_trace_links,
    trace_links,
)

TIMELINE = Link(
    provider="rawr",
    label="RAWR Run Timeline",
    url="http://localhost:3000/api/orpc/coordination/runs/run-1/timeline",
)


def test_the_required_events_and_their_statuses_are_as_published() -> None:
    assert REQUIRED_RUN_LIFECYCLE_EVENT_TYPES == ("run.started", "run.completed", "run.failed")
    assert {kind: ALLOWED_STATUSES[kind] for kind in REQUIRED_RUN_LIFECYCLE_EVENT_TYPES} == {
        "run.started": {"queued", "running"},
        "run.completed": {"completed"},
        "run.failed": {"failed"},
    }
    desks = {kind: allowed for kind, allowed in ALLOWED_STATUSES.items() if kind.startswith("desk.")}
    assert desks == dict.fromkeys(("desk.started", "desk.completed", "desk.failed"), STATUSES)
    assert set(REQUIRED_RUN_LIFECYCLE_EVENT_TYPES) >= TERMINAL_EVENT_TYPES


@pytest.mark.parametrize(
    ("event_type", "status"),
    [("run.started", "queued"), ("run.started", "running"), ("run.completed", "completed"), ("run.failed", "failed")],
)
def test_the_four_legal_run_events_are_accepted(event_type: str, status: str) -> None:
    assert_status(event_type, status)


@pytest.mark.parametrize(
    ("event_type", "status"),
    [("run.started", "failed"), ("run.completed", "running"), ("run.failed", "completed"), ("run.paused", "running")],
)
def test_an_illegal_pair_is_named(event_type: str, status: str) -> None:
    with pytest.raises(ValueError, match=f"^invalid lifecycle status '{status}' for event '{event_type}'$"):
        assert_status(event_type, status)


def test_the_default_links_are_the_timeline_and_a_local_inngest_server() -> None:
    assert default_trace_links("http://localhost:3000", "run-1") == (
        TIMELINE,
        Link(provider="inngest", label="Inngest Trace", url="http://localhost:8288/runs/run-1"),
    )


def test_an_inngest_run_id_wins_over_an_event_id() -> None:
    _, link = default_trace_links("http://x", "run-1", inngest_run_id="01R", inngest_event_id="01E")
    assert link == Link(provider="inngest", label="Inngest Trace (01R)", url="http://localhost:8288/runs/01R")
    _, link = default_trace_links("http://x", "run-1", inngest_event_id="01E")
    assert link == Link(provider="inngest", label="Inngest Trace", url="http://localhost:8288/events/01E")


def test_one_trailing_slash_of_a_base_url_is_trimmed() -> None:
    timeline, link = default_trace_links("http://localhost:3000/", "run-1", inngest_base_url="http://i/x/")
    assert timeline == TIMELINE
    assert link.url == "http://i/x/runs/run-1"


def test_without_an_inngest_server_there_is_no_link_to_one() -> None:
    assert trace_links("http://localhost:3000", "run-1", inngest_base_url=None) == (TIMELINE,)
    assert [link.provider for link in trace_links("http://x", "r", inngest_base_url="http://i")] == ["rawr", "inngest"]
