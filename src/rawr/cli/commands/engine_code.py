"""`rawr engine accept-code|replay|rerun`: what to do with runs when the code that they began with has changed."""

from __future__ import annotations

import asyncio
import getpass
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean
from rawr.errors import BadInputError, RawrError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rawr.cli.idle_engine import IdleEngine
    from rawr.coordination.forks import RerunAsked
    from rawr.execution.embedded.replay import Replayed

T = TypeVar("T")
_COLOURS = {"same": "green", "different": "red", "cannot": "yellow"}


class ReplayDiffersError(RawrError):
    """The code does not do what the history of a run has."""

    code = "REPLAY_DIFFERS"


class ReplayInconclusiveError(RawrError):
    """A run cannot be replayed, so nothing is proved."""

    code = "REPLAY_INCONCLUSIVE"


class RerunOptionError(BadInputError):
    code = "USAGE"


@command("accept-code", "Let a run that waits for its old code go on with the new.", dry_run=True)
@click.argument("run_id", metavar="RUN")
def accept_code(invocation: Invocation, run_id: str) -> Outcome:
    """RUN is replayed first, and accepted if the code does what its history has. --dry-run only replays it.

    With --yes it is accepted whatever the replay says. Exit code 3 when it was not accepted for that reason.
    """
    return asyncio.run(_accept(invocation, run_id))


@command("replay", "Compare what runs have done with what the code would do.")
@click.argument("run_id", metavar="RUN", required=False)
@click.option("--all", "every", is_flag=True, help="Replay every run that the engine remembers.")
def replay(invocation: Invocation, run_id: str | None, every: bool) -> Outcome:
    """No handler is called and nothing is written. Exit code 3 when a run differs, or cannot be replayed."""
    if (run_id is None) != every:
        raise RerunOptionError("name one run, or give --all", fix="rawr engine replay --all")
    return asyncio.run(_replay(invocation, run_id))


@command("rerun", "Run a run again as a new run, with the code that there is now.")
@click.argument("run_id", metavar="RUN")
@click.option("--from", "from_step", metavar="STEP", help="Keep what was complete before this desk or step.")
@click.option("--data", metavar="JSON", help="What the run is given, in place of what it was.")
@click.option("--input", "given", metavar="JSON", help="What the desk of --from is given.")
def rerun(invocation: Invocation, run_id: str, from_step: str | None, data: str | None, given: str | None) -> Outcome:
    """The old run stays as it is; one that has not ended is ended first. The new run begins at once."""
    from rawr.cli.json_argument import json_argument
    from rawr.coordination.forks import RerunAsked

    limit_bytes = invocation.config().limits.body_bytes
    asked = RerunAsked(
        from_step=from_step,
        run_input=msgspec.UNSET if data is None else json_argument(data, name="--data", limit_bytes=limit_bytes),
        desk_input=msgspec.UNSET if given is None else json_argument(given, name="--input", limit_bytes=limit_bytes),
    )
    return asyncio.run(_rerun(invocation, run_id, asked))


async def _accept(invocation: Invocation, named: str) -> Outcome:
    from rawr.cli.idle_engine import engine_run_named, idle_engine, replayer_of, require_embedded, warn_if_nobody_works
    from rawr.execution.embedded.history import read_history

    require_embedded(invocation)
    run_id = engine_run_named(invocation, named)
    async with idle_engine(invocation) as idle:
        await idle.engine.check_held(run_id)
        run = await idle.engine.run(run_id)
        replayer = await replayer_of(invocation, idle.manifest)
        replayed = await replayer.replay(read_history(invocation.instance.layout.engine_database, run_id))
        error = None if invocation.yes else _problem([replayed], fix=f"rawr engine rerun {run_id}, or add --yes")
        if not invocation.dry_run and error is None:
            await idle.engine.accept_code(run_id, by=_who())
    accepted = not invocation.dry_run and error is None
    text = _line(replayed)
    if accepted:
        text += f"\naccepted: {run_id} goes on with the code that there is now"
        warn_if_nobody_works(invocation)
    data = {"runId": run_id, "accepted": accepted, "replay": _wire(replayed), "heldReason": run and run.held_reason}
    return Outcome(data=data, text=text, error=error)


async def _replay(invocation: Invocation, named: str | None) -> Outcome:
    from rawr.cli.idle_engine import engine_run_named, replayer_of, require_embedded
    from rawr.cli.in_process import manifest_of
    from rawr.execution.embedded.history import read_history, run_ids

    require_embedded(invocation)
    database = invocation.instance.layout.engine_database
    if named is not None:
        wanted = [engine_run_named(invocation, named)]
    else:
        wanted = list(run_ids(database)) if database.exists() else []
    replayer = await replayer_of(invocation, manifest_of(invocation))
    replayed = [await replayer.replay(read_history(database, run_id)) for run_id in wanted]
    verdicts = [one.verdict.value for one in replayed]
    counts = {verdict: verdicts.count(verdict) for verdict in _COLOURS}
    shown = [_line(one) for one in replayed if named is not None or one.verdict.value != "same"]
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    return Outcome(
        data={"counts": counts, "runs": [_wire(one) for one in replayed]},
        text="\n".join([*shown, summary]),
        error=_problem(replayed, fix=None),
    )


async def _rerun(invocation: Invocation, named: str, asked: RerunAsked) -> Outcome:
    from rawr.cli.idle_engine import idle_engine, warn_if_nobody_works

    async with idle_engine(invocation) as idle:
        run_id = await _coordination_run(invocation, idle, named)
        if run_id is not None:
            new_id: str = (await idle.coordination.rerun(run_id, asked)).run.run_id
            look = f"rawr workflow coord status {new_id}"
        else:
            new_id = await _rerun_function(invocation, idle, named, asked)
            look = f"rawr engine run {new_id}"
    warn_if_nobody_works(invocation)
    text = f"{new_id} runs {run_id or named} again\n  look at it: {look}"
    return Outcome(data={"runId": new_id, "rerunOf": run_id or named, "isCoordination": run_id is not None}, text=text)


async def _coordination_run(invocation: Invocation, idle: IdleEngine, named: str) -> str | None:
    """The coordination run of this name, or the one that the engine's run of this name carries out."""
    from rawr.cli.idle_engine import engine_run_named
    from rawr.execution.program import EVENT_NAME
    from rawr.ids import RunId

    if await idle.store.get_run(RunId(named)) is not None:
        return named
    events: Any = await idle.engine.run_events(engine_run_named(invocation, named))
    return str(events[0]["data"]["runId"]) if events and events[0].get("name") == EVENT_NAME else None


async def _rerun_function(invocation: Invocation, idle: IdleEngine, named: str, asked: RerunAsked) -> str:
    from rawr.cli.idle_engine import engine_run_named
    from rawr.execution.embedded.reruns import Rerun

    if asked.desk_input is not msgspec.UNSET:
        raise RerunOptionError(
            "--input is for desks: the Inngest SDK for Python takes no input for a step", fix="give --data instead"
        )
    data = asked.run_input
    if data is not msgspec.UNSET and not isinstance(data, dict):
        raise RerunOptionError("the data of an event is a JSON object", fix="--data '{...}'")
    return await idle.engine.rerun(
        Rerun(
            run_id=engine_run_named(invocation, named),
            from_step=asked.from_step,
            data=data if isinstance(data, dict) else None,
            end_old=True,
        )
    )


def _problem(replayed: Sequence[Replayed], *, fix: str | None) -> RawrError | None:
    verdicts = [one.verdict.value for one in replayed]
    details = {"counts": {verdict: verdicts.count(verdict) for verdict in _COLOURS}}
    if "different" in verdicts:
        first = next(one for one in replayed if one.verdict.value == "different")
        return ReplayDiffersError(f"run {first.run_id}: {first.difference}", details=details, fix=fix)
    if "cannot" in verdicts:
        first = next(one for one in replayed if one.verdict.value == "cannot")
        return ReplayInconclusiveError(f"run {first.run_id}: {first.reason}", details=details, fix=fix)
    return None


def _line(replayed: Replayed) -> str:
    verdict = click.style(f"{replayed.verdict.value:<9}", fg=_COLOURS[replayed.verdict.value])
    why = str(replayed.difference or replayed.reason or f"{replayed.passes} calls compared")
    return f"{verdict} {replayed.run_id}  {clean(why)}"


def _wire(replayed: Replayed) -> Any:
    return msgspec.to_builtins(replayed)


def _who() -> str:
    """Who accepts, as the system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
