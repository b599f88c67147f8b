"""Which code runs use, and that the number of the runner stands for the steps that its runs have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.execution.test_program import DATA, Scene, desk, diamond, echo, workflow

from rawr.coordination.model import Workflow
from rawr.execution.code import RUNNER_TOKEN, InstanceCode
from rawr.execution.ports import DurableFunction
from rawr.execution.program import FUNCTION_ID, RUNNER_PROTOCOL, coordination_runner
from rawr.ids import WorkflowId

RUNNER = f"app-{FUNCTION_ID}"


async def nothing(*_: Any) -> None:
    return None


OTHER = DurableFunction(
    function_id="other", name="Other", event_name="other", retries=0, body=nothing, on_failure=nothing
)


def code_of(flow: Workflow, own: str | None = "rawr_hq.py@own") -> InstanceCode:
    async def get_workflow(workflow_id: WorkflowId, version: int) -> Workflow | None:
        return flow if (workflow_id, version) == (flow.workflow_id, flow.version) else None

    return InstanceCode(
        [coordination_runner(), OTHER],
        app_id="app",
        handler_code={"a.work": "a@1", "a.more": "a@1", "b.work": "b@1"},
        own_code=own,
        get_workflow=get_workflow,
    )


def used(code: InstanceCode, fn_id: str, *data: Any) -> set[str] | None:
    found = asyncio.run(code.used(fn_id, [{"name": "e", "data": one} for one in data]))
    return None if found is None else set(found)


FLOW = workflow([desk("x", handler="a.work"), desk("y", handler="a.more"), desk("z")], [("x", "y"), ("y", "z")])


def test_a_run_uses_the_runner_and_the_plugins_of_its_desks_and_no_other() -> None:
    code = code_of(FLOW)
    assert used(code, RUNNER, DATA) == {RUNNER_TOKEN, "a@1"}
    assert code.offered() == {RUNNER_TOKEN, "a@1", "b@1", "rawr_hq.py@own"}


def test_a_handler_that_no_plugin_brings_is_code_of_the_manifest_file() -> None:
    flow = workflow([desk("x", handler="mine")])
    assert used(code_of(flow), RUNNER, DATA) == {RUNNER_TOKEN, "rawr_hq.py@own"}
    assert used(code_of(flow, own=None), RUNNER, DATA) == {RUNNER_TOKEN}


@pytest.mark.parametrize("data", [{}, {"workflowId": 1, "workflowVersion": 1}, {**DATA, "workflowVersion": 9}, None])
def test_a_run_of_a_workflow_that_is_not_there_uses_the_runner(data: Any) -> None:
    assert used(code_of(FLOW), RUNNER, data) == {RUNNER_TOKEN}


def test_other_functions_are_code_of_the_manifest_file_and_failure_handlers_of_nothing() -> None:
    code = code_of(FLOW)
    assert used(code, "app-other", {}) == {"rawr_hq.py@own"}
    assert used(code, "app-other-failure", {}) == used(code, f"{RUNNER}-failure", {}) == set()
    assert used(code, "app-unknown", {}) is None
    assert used(code, "app-unknown-failure", {}) is None


def steps_of(flow: Workflow, *, broken: str | None = None) -> list[tuple[str, Any]]:
    """Every step of a run of this workflow with what is remembered of it."""

    def handler(received: Any, ctx: Any) -> Any:
        if ctx.desk_id == broken:
            raise ValueError("broken")
        return echo(received, ctx)

    scene = Scene(flow, {"echo": handler})
    if broken is None:
        scene.drive()
    else:
        scene.failure()
    return [(step_id, scene.journal.memos[step_id]) for step_id in scene.journal.finished]


def test_the_number_of_the_runner_stands_for_these_steps_and_memos() -> None:
    """When this fails, raise RUNNER_PROTOCOL, and write down here what the new number stands for."""
    ok = {"ok": True}
    desks = [(f"desk/{name}", ok) for name in "abcd"]
    assert RUNNER_PROTOCOL == 1
    assert steps_of(diamond("echo")) == [("coordination/run-start", ok), *desks, ("coordination/run-completed", ok)]
    assert steps_of(diamond("echo"), broken="b")[:4] == [
        ("coordination/run-start", ok),
        ("desk/a", ok),
        ("desk/b", {"ok": False, "error": "ValueError: broken"}),
        ("coordination/run-failed", ok),
    ]


def test_the_manifest_of_an_instance_says_what_its_code_is(tmp_path: Path) -> None:
    from rawr.hq import load_manifest
    from rawr.testing.workspace import make_instance

    make_instance(
        tmp_path,
        files={
            "plugins/workflows/p/pyproject.toml": '[project]\nname = "p"\n[tool.rawr]\nkind = "workflows"\n'
            'capability = "p"\n',
            "plugins/workflows/p/plugin.py": "from rawr.sdk import desk_handler\n"
            "@desk_handler('p.work')\ndef work(received, ctx): return {}\n",
        },
    )
    first = load_manifest(tmp_path)
    plugin = tmp_path / "plugins/workflows/p"
    (plugin / "README.md").write_text("for people")
    assert load_manifest(tmp_path).handler_code == first.handler_code
    (plugin / "helper.py").write_text("")
    second = load_manifest(tmp_path)
    assert second.handler_code.keys() == first.handler_code.keys() == {"p.work"}
    assert second.handler_code != first.handler_code
    assert second.own_code == first.own_code
    assert msgspec.structs.asdict(first)["own_code"].startswith("rawr_hq.py@")
