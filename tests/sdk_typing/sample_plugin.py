"""What the types of `rawr.sdk` accept and refuse. Nothing runs here: `make check` reads it with mypy --strict.

An ignore that is not needed is an error too, so each one says that the line is refused.
"""

from __future__ import annotations

from rawr.sdk import (
    Desk,
    DeskContext,
    DeskFailed,
    DeskKind,
    FinishedEffects,
    Handoff,
    JsonValue,
    MemoryScope,
    Run,
    RunStatus,
    RuntimePolicy,
    Workflow,
    desk_handler,
    on_finished,
    workflow_from,
)


@desk_handler("sample.sync")
def sync_handler(received: JsonValue, ctx: DeskContext) -> JsonValue:
    if ctx.attempt > 1:
        raise DeskFailed(f"{ctx.desk_id} of {ctx.run_id} gives up", fix="look into it")
    ctx.remember({"seen": ctx.memory, "key": ctx.idempotency_key, "root": str(ctx.instance_root)})
    return {"received": received, "workflow": ctx.workflow_id}


@desk_handler("sample.async")
async def async_handler(received: dict[str, int], ctx: DeskContext) -> dict[str, int]:
    return received if ctx.attempt else {}


@on_finished("sample.notify", workflow_id="sample")
def notify(run: Run, fx: FinishedEffects) -> None:
    if run.status is RunStatus.COMPLETED:
        fx.once("mail", lambda: {"key": fx.idempotency_key})


@on_finished("sample.watch")
async def watch(run: Run, fx: FinishedEffects) -> None:
    await fx.once("seen", lambda: run.run_id)


# A handler stays what it was, so its tests may call it.
typed: JsonValue = sync_handler({}, None)  # type: ignore[arg-type]  # a context is needed

desk_handler(3)  # type: ignore[arg-type]  # a name is a text


@desk_handler("sample.context")
def wrong_context(received: JsonValue, ctx: DeskContext) -> JsonValue:
    ctx.memory = received  # type: ignore[misc]  # memory changes by remember() only
    return ctx.no_such_thing  # type: ignore[attr-defined]  # the context is closed


def workflow() -> Workflow:
    desk = Desk(
        desk_id="a",  # type: ignore[arg-type]  # ids are types of their own; workflow_from takes plain texts
        kind=DeskKind.ANALYSIS,
        name="A",
        responsibility="r",
        domain="d",
        input_schema={},
        output_schema={},
        memory_scope=MemoryScope(persist=False),
        runtime_policy=RuntimePolicy(retries=1),
        handler="sample.sync",
    )
    handoffs: tuple[Handoff, ...] = ()
    return workflow_from({"workflowId": "w", "desks": [desk], "handoffs": list(handoffs)})
