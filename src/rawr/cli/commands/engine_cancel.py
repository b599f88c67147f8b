"""`rawr engine cancel`: ending runs, by their ids or by what they have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import BadInputError

if TYPE_CHECKING:
    from rawr.execution.embedded.admin import EngineAdmin
    from rawr.execution.embedded.model import RunFilter

REASON = "cancelled by rawr engine cancel"


@command("cancel", "End runs.", dry_run=True)
@click.argument("run_ids", metavar="[RUN]...", nargs=-1)
@click.option("--function", "fn_id", metavar="ID", help="All open runs of this function.")
@click.option("--if", "condition", metavar="CEL", help='Of these, those where it is true: event.data.user == "u1"')
@click.option("--started-after", "after", metavar="AGE|TIME", help="Of these, those queued since: 2h, or a time.")
@click.option("--started-before", "before", metavar="AGE|TIME", help="Of these, those queued before that.")
@click.option("--reason", default=REASON, help="What their errors will say.")
def cancel(
    invocation: Invocation,
    *,
    run_ids: tuple[str, ...],
    fn_id: str | None,
    condition: str | None,
    after: str | None,
    before: str | None,
    reason: str,
) -> Outcome:
    """At once: what a call under way answers is dropped. A run of a workflow ends as failed, with this reason.

    A run that has ended stays as it is. With --dry-run it is said how many there are.
    """
    from rawr.cli.confirm import confirm
    from rawr.cli.engine import refuse_elsewhere, with_engine

    refuse_elsewhere(invocation, "only runs of the embedded engine can be cancelled here")
    if bool(run_ids) == (fn_id is not None):
        raise BadInputError("name runs, or a function whose runs are meant", fix="rawr engine cancel --help")
    if fn_id is None and (condition, after, before) != (None, None, None):
        raise BadInputError(
            "--if, --started-after and --started-before pick among the runs of a function", fix="add --function ID"
        )
    if fn_id is None:
        return with_engine(invocation, lambda admin: _by_ids(invocation, admin, run_ids, reason))
    which = _meant(fn_id, condition, after, before, reason)
    count = with_engine(invocation, lambda admin: admin.matching(which))
    if invocation.dry_run:
        return Outcome(data={"planned": {"action": "cancel", "count": count}}, text=f"would cancel {count} runs")
    if count:
        confirm(invocation, f"cancel {count} runs of {fn_id}?")
    return with_engine(invocation, lambda admin: _by_description(admin, which))


def _meant(fn_id: str, condition: str | None, after: str | None, before: str | None, reason: str) -> RunFilter:
    from rawr.cli.moment import moment_ms
    from rawr.clock import SystemClock
    from rawr.execution.embedded.model import RunFilter

    now_ms = SystemClock().now_ms()
    which = RunFilter(fn_id=fn_id, condition=condition, reason=reason)
    if after is not None:
        from_ms = moment_ms(after, name="--started-after", now_ms=now_ms)
        which = msgspec.structs.replace(which, queued_from_ms=from_ms)
    if before is not None:
        before_ms = moment_ms(before, name="--started-before", now_ms=now_ms)
        which = msgspec.structs.replace(which, queued_before_ms=before_ms)
    return which


async def _by_ids(invocation: Invocation, admin: EngineAdmin, given: tuple[str, ...], reason: str) -> Outcome:
    known = [(await admin.run(run_id)).run for run_id in given]  # all of them are known before the first is ended
    if invocation.dry_run:
        ids = [row.run_id for row in known if row.ended_at_ms is None]
        return Outcome(
            data={"planned": {"action": "cancel", "count": len(ids), "runs": ids}}, text=f"would cancel {len(ids)} runs"
        )
    results = [await admin.cancel(row.run_id, reason) for row in known]
    cancelled = [run_id for run_id, was_open in results if was_open]
    ended = [run_id for run_id, was_open in results if not was_open]
    lines = [f"cancelled {run_id}" for run_id in cancelled] + [f"{run_id} had ended" for run_id in ended]
    return Outcome(data={"cancelled": cancelled, "hadEnded": ended}, text=clean("\n".join(lines)))


async def _by_description(admin: EngineAdmin, which: RunFilter) -> Outcome:
    cancelled = await admin.cancel_where(which)
    return Outcome(data={"cancelled": cancelled, "hadEnded": []}, text=f"cancelled {len(cancelled)} runs")
