"""The telemetry contract: which events a run must emit, with which status, and where its traces are. Pure.

Plain text on purpose: this is the independent oracle, so it does not borrow the domain's own types.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

REQUIRED_RUN_LIFECYCLE_EVENT_TYPES: Final = ("run.started", "run.completed", "run.failed")
TERMINAL_EVENT_TYPES: Final = frozenset({"run.completed", "run.failed"})
STATUSES: Final = frozenset({"queued", "running", "completed", "failed"})
ALLOWED_STATUSES: Final[Mapping[str, frozenset[str]]] = {
    "run.started": frozenset({"queued", "running"}),
    "run.completed": frozenset({"completed"}),
    "run.failed": frozenset({"failed"}),
    "desk.started": STATUSES,
    "desk.completed": STATUSES,
    "desk.failed": STATUSES,
}
INNGEST_BASE_URL: Final = "http://localhost:8288"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    provider: Literal["rawr", "inngest"]
    label: str
    url: str


def assert_status(event_type: str, status: str) -> None:
    """Raises ValueError for a pair that the contract does not allow."""
    if status not in ALLOWED_STATUSES.get(event_type, frozenset()):
        raise ValueError(f"invalid lifecycle status '{status}' for event '{event_type}'")


def trace_links(base_url: str, run_id: str, *, inngest_base_url: str | None) -> tuple[Link, ...]:
    """The run's own timeline and, when a real Inngest server runs it, its trace there."""
    timeline = Link(
        provider="rawr",
        label="RAWR Run Timeline",
        url=f"{base_url.removesuffix('/')}/api/orpc/coordination/runs/{run_id}/timeline",
    )
    if inngest_base_url is None:
        return (timeline,)
    return (timeline, inngest_link(inngest_base_url, run_id))


def default_trace_links(
    base_url: str,
    run_id: str,
    *,
    inngest_base_url: str = INNGEST_BASE_URL,
    inngest_run_id: str | None = None,
    inngest_event_id: str | None = None,
) -> tuple[Link, Link]:
    """Both links, the second as exact as is known: the Inngest run, else the event, else our run id."""
    timeline = trace_links(base_url, run_id, inngest_base_url=None)[0]
    return timeline, inngest_link(
        inngest_base_url, run_id, inngest_run_id=inngest_run_id, inngest_event_id=inngest_event_id
    )


def inngest_link(
    base_url: str, run_id: str, *, inngest_run_id: str | None = None, inngest_event_id: str | None = None
) -> Link:
    if inngest_run_id is not None:
        label, path = f"Inngest Trace ({inngest_run_id})", f"runs/{inngest_run_id}"
    elif inngest_event_id is not None:
        label, path = "Inngest Trace", f"events/{inngest_event_id}"
    else:
        label, path = "Inngest Trace", f"runs/{run_id}"
    return Link(provider="inngest", label=label, url=f"{base_url.removesuffix('/')}/{path}")
