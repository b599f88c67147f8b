"""Running a run again as a new one: which desks keep what they gave, and which are given something else. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from rawr.coordination.model import EventType, Run, TimelineEvent, Workflow
from rawr.errors import BadInputError
from rawr.ids import DeskId, RunId
from rawr.wire import JsonValue

_STEP_PREFIX: Final = "desk/"


class RerunRefusedError(BadInputError):
    """The run cannot be run again as it was asked for; nothing was changed."""

    code = "RUN_RERUN_REFUSED"


class KeptDesk(msgspec.Struct, frozen=True, kw_only=True):
    """What a desk was given and gave in the run before."""

    input: JsonValue
    output: JsonValue


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """How a run goes on from another one. It is stored with the run, in one transaction."""

    rerun_of: RunId
    from_desk: DeskId | None
    """None: nothing is kept."""
    kept: dict[DeskId, KeptDesk]
    inputs: dict[DeskId, JsonValue]
    """What these desks are given in place of what their upstream desks hand on."""


class RerunAsked(msgspec.Struct, frozen=True, kw_only=True):
    from_step: str | None = None
    """A desk, by its id or as `desk/<id>`: what completed before it did is kept."""
    run_input: JsonValue | msgspec.UnsetType = msgspec.UNSET
    desk_input: JsonValue | msgspec.UnsetType = msgspec.UNSET
    """What the desk `from_step` is given."""


def forked(run: Run, workflow: Workflow, timeline: Sequence[TimelineEvent], asked: RerunAsked) -> Fork:
    """How `run` is run again.

    What is kept was complete before anything that follows from the desk began: completion is recorded in order.

    Raises:
        RerunRefusedError: there is no such desk, or an input for none.
    """
    if asked.from_step is None:
        if asked.desk_input is not msgspec.UNSET:
            raise RerunRefusedError("an input is for a desk: say which one it is run again from", fix="add --from DESK")
        return Fork(rerun_of=run.run_id, from_desk=None, kept={}, inputs={})
    desk_id = _desk(workflow, asked.from_step)
    inputs = {} if asked.desk_input is msgspec.UNSET else {desk_id: asked.desk_input}
    return Fork(rerun_of=run.run_id, from_desk=desk_id, kept=_completed_before(timeline, desk_id), inputs=inputs)


def fork_detail(fork: Fork) -> str:
    """What the first event of the new run says of it."""
    where = "" if fork.from_desk is None else f" from desk {fork.from_desk} on"
    given = " with another input" if fork.inputs else ""
    return f"Coordination run queued for Inngest execution: {fork.rerun_of} again{where}{given}"


def _desk(workflow: Workflow, named: str) -> DeskId:
    known = [desk.desk_id for desk in workflow.desks]
    for wanted in (named, named.removeprefix(_STEP_PREFIX)):
        if wanted in known:
            return DeskId(wanted)
    raise RerunRefusedError(
        f"workflow {workflow.workflow_id} version {workflow.version} has no desk {named!r}",
        details={"desks": list(known)},
        fix=f"name one of {', '.join(known)}",
    )


def _completed_before(timeline: Sequence[TimelineEvent], desk_id: DeskId) -> dict[DeskId, KeptDesk]:
    kept: dict[DeskId, KeptDesk] = {}
    given: dict[DeskId, JsonValue] = {}
    for event in timeline:
        if event.desk_id is msgspec.UNSET:
            continue
        if event.type is EventType.DESK_STARTED:
            given[event.desk_id] = None if event.input is msgspec.UNSET else event.input
        elif event.type is EventType.DESK_COMPLETED:
            if event.desk_id == desk_id:
                break
            output = None if event.output is msgspec.UNSET else event.output
            kept[event.desk_id] = KeptDesk(input=given.get(event.desk_id), output=output)
    return kept
