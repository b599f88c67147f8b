"""Which code the durable functions of an instance are made of: what an engine pins their runs to.

A run of the coordination runner uses the runner itself and the plugins whose handlers the desks of its workflow have;
the workflow is in the run already, by its version. Finished hooks do not count: they hear of the end of a run, and
nothing in it depends on them. Any other function is code of `rawr_hq.py`. Failure handlers are pinned to nothing, so
that a failure is always recorded.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from rawr.coordination.model import Workflow
from rawr.execution.ports import DurableFunction
from rawr.execution.program import FUNCTION_ID, RUNNER_PROTOCOL
from rawr.ids import WorkflowId
from rawr.wire import JsonValue

RUNNER_TOKEN: Final = f"rawr runner@{RUNNER_PROTOCOL}"
GetWorkflow = Callable[[WorkflowId, int], Awaitable[Workflow | None]]


class InstanceCode:
    """`RunCode` of one instance."""

    def __init__(
        self,
        functions: Iterable[DurableFunction],
        *,
        app_id: str,
        handler_code: Mapping[str, str],
        own_code: str | None,
        get_workflow: GetWorkflow,
    ) -> None:
        """`handler_code` has the token of the plugin that each desk handler is from; `own_code` is for the others."""
        self._fn_ids = {f"{app_id}-{function.function_id}" for function in functions}
        self._runner = f"{app_id}-{FUNCTION_ID}"
        self._handler_code = handler_code
        self._own = frozenset[str]() if own_code is None else frozenset({own_code})
        self._get_workflow = get_workflow

    def offered(self) -> frozenset[str]:
        return frozenset({RUNNER_TOKEN, *self._handler_code.values()}) | self._own

    async def used(self, fn_id: str, events: Sequence[JsonValue]) -> frozenset[str] | None:
        if fn_id == self._runner and fn_id in self._fn_ids:
            return frozenset({RUNNER_TOKEN}) | await self._of_desks(events)
        if fn_id in self._fn_ids:
            return self._own
        return frozenset() if fn_id.removesuffix("-failure") in self._fn_ids else None

    async def _of_desks(self, events: Sequence[JsonValue]) -> frozenset[str]:
        """A handler that there is not is no code: its desk will fail and say so."""
        tokens: set[str] = set()
        for event in events:
            data: Any = event
            try:
                known = msgspec.convert(data["data"], _RunData)
            except msgspec.ValidationError:
                continue  # the runner will refuse it
            workflow = await self._get_workflow(known.workflow_id, known.workflow_version)
            for desk in () if workflow is None else workflow.desks:
                if desk.handler is not msgspec.UNSET:
                    tokens |= self._of_handler(desk.handler)
        return frozenset(tokens)

    def _of_handler(self, name: str) -> frozenset[str]:
        token = self._handler_code.get(name)
        return self._own if token is None else frozenset({token})


class _RunData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    workflow_id: WorkflowId
    workflow_version: int
