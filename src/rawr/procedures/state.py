"""The state procedure: what is enabled in this instance, as published."""

from __future__ import annotations

from typing import Final

from rawr.procedures.context import Context
from rawr.procedures.contract import Procedure
from rawr.procedures.examples import GET_RUNTIME_STATE
from rawr.procedures.state_wire import GetRuntimeStateInput, GetRuntimeStateOutput


async def get_runtime_state(context: Context, _: GetRuntimeStateInput) -> GetRuntimeStateOutput:
    return GetRuntimeStateOutput(state=await context.state.get())


STATE_PROCEDURES: Final[tuple[Procedure, ...]] = (
    Procedure(
        namespace="state",
        name="getRuntimeState",
        method="GET",
        path="/state/runtime",
        summary="Read runtime plugin state",
        input_type=GetRuntimeStateInput,
        output_type=GetRuntimeStateOutput,
        errors=(),
        example=GET_RUNTIME_STATE,
        handle=get_runtime_state,
    ),
)
