"""The state procedure: what is enabled in this instance, as published."""

from __future__ import annotations

from typing import Final

from rawr.procedures.context import Context
from rawr.procedures.contract import Procedure
from rawr.procedures.operations import GET_RUNTIME_STATE
from rawr.procedures.state_wire import GetRuntimeStateInput, GetRuntimeStateOutput


async def get_runtime_state(context: Context, _: GetRuntimeStateInput) -> GetRuntimeStateOutput:
    return GetRuntimeStateOutput(state=await context.state.get())


STATE_PROCEDURES: Final[tuple[Procedure, ...]] = (GET_RUNTIME_STATE.handled_by(get_runtime_state),)
