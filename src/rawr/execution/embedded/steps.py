"""How a run moves on: steps are planned, finish once, and then the function is asked what comes next.

Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence

from rawr.execution.embedded import jobs
from rawr.execution.embedded.fragment import Fragment
from rawr.execution.embedded.model import JobKind, StepOp
from rawr.execution.embedded.outcomes import StepInput
from rawr.execution.embedded.protocol import ROOT_STEP
from rawr.execution.embedded.transition import Transition, stored_fragment, stored_texts
from rawr.storage.sqlite import Connection, one, run


def trigger_of(connection: Connection, run_id: str) -> Fragment:
    """The event that triggered the run, the first one of a batch."""
    row = one(
        connection,
        "SELECT e.body, e.body_canonical FROM runs r JOIN events e ON e.ulid = r.event_ulid WHERE r.run_id = ?",
        (run_id,),
    )
    assert row is not None
    return stored_fragment(*row)


def finish_step(
    at: Transition, run_id: str, step_id: str, name: str, memo: Fragment, *, op: StepOp, attempt: int = 0
) -> None:
    """Remember a step's result. What is remembered already stays: a result never changes."""
    saved = one(
        at.connection,
        "INSERT INTO steps (run_id, step_id, seq, name, memo, memo_canonical, attempt, ended_at, op)"
        " SELECT ?, ?, steps + 1, ?, ?, ?, ?, ?, ? FROM runs WHERE run_id = ?"
        " ON CONFLICT DO NOTHING RETURNING seq",
        (run_id, step_id, name, *stored_texts(memo), attempt, at.now_ms, op.value, run_id),
    )
    if saved is not None:
        run(
            at.connection,
            "UPDATE runs SET steps = steps + 1, state_bytes = state_bytes + ? WHERE run_id = ?",
            (memo.size_bytes, run_id),
        )


def keep_inputs(at: Transition, run_id: str, inputs: Sequence[StepInput]) -> None:
    """Note what steps were asked to do, for who looks at the run later."""
    for asked in inputs:
        values = (run_id, asked.step_id, asked.op, asked.input.text.decode())
        run(at.connection, "INSERT OR IGNORE INTO step_inputs VALUES (?, ?, ?, ?)", values)


def is_finished(at: Transition, run_id: str, step_id: str) -> bool:
    sql = "SELECT 1 FROM steps WHERE run_id = ? AND step_id = ?"
    return one(at.connection, sql, (run_id, step_id)) is not None


def queue_step(at: Transition, run_id: str, step_id: str, name: str, *, kind: JobKind, due_ms: int) -> None:
    """Queue a step once, however many calls discover it."""
    jobs.add(at, run_id, f"{run_id}|step|{step_id}", kind=kind, step_id=step_id, name=name, due_ms=due_ms)


def join_group(at: Transition, run_id: str, step_id: str, *, race: bool) -> None:
    """The step is one of several that were found together; `discover_after` waits for all, unless they race."""
    run(at.connection, "INSERT OR IGNORE INTO pending VALUES (?, ?, ?)", (run_id, step_id, int(race)))


def discover_after(at: Transition, run_id: str, step_id: str) -> bool:
    """Ask the function what comes next: after each step of a race, else once all steps of a group are done.

    What is left of a race keeps no group waiting: it is told again, together with the steps that come after it.
    Whether it is asked now.
    """
    was = one(at.connection, "DELETE FROM pending WHERE run_id = ? AND step_id = ? RETURNING race", (run_id, step_id))
    others = "SELECT 1 FROM pending WHERE run_id = ? AND race = 0 LIMIT 1"
    waits = was == (0,) and one(at.connection, others, (run_id,)) is not None
    if waits:
        return False
    row = one(at.connection, "SELECT steps, plan_steps FROM runs WHERE run_id = ?", (run_id,))
    assert row is not None
    steps, plan_steps = row
    if plan_steps and not has_anything_ahead(at, run_id):
        # Alone again. While another call of the run is under way, a step that is run on sight could run twice.
        run(at.connection, "UPDATE runs SET plan_steps = 0 WHERE run_id = ?", (run_id,))
    discover(at, run_id, after_steps=steps, due_ms=at.now_ms)
    return True


def discover(at: Transition, run_id: str, *, after_steps: int, due_ms: int, throttle: str | None = None) -> None:
    """Queue the call that asks what comes next. Asking twice about the same state is one call."""
    job_id = f"{run_id}|discover|{after_steps}"
    name = "the function"
    jobs.add(at, run_id, job_id, kind=JobKind.CALL, step_id=ROOT_STEP, name=name, due_ms=due_ms, throttle=throttle)


def has_anything_ahead(at: Transition, run_id: str) -> bool:
    """Whether the run has a call, a sleep or a wait that will carry it on."""
    sql = "SELECT EXISTS (SELECT 1 FROM queue WHERE run_id = ?) OR EXISTS (SELECT 1 FROM waits WHERE run_id = ?)"
    return one(at.connection, sql, (run_id, run_id)) == (1,)
