"""Every code that a gate can find has a sabotage that must produce it; the unchanged control is green."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.coordination.model import RunStatus
from rawr.execution.ports import FunctionDeps, Steps
from rawr.gates.asgi import Application
from rawr.gates.checks import boundaries, composition, telemetry
from rawr.gates.model import GateFinding, GateStatus, Inspection, all_green, status_of
from rawr.gates.registry import GATES, Gate
from rawr.gates.runner import GateUnknownError, run_gates, selected
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings, Limits
from rawr.hq import Manifest, PluginFault, compose
from rawr.ids import InstanceId
from rawr.instance.init import init_instance
from rawr.testing.clock import FakeClock

CODES_SEEN_SABOTAGED = {
    "composition": {
        "PLUGIN_FAULT",
        "PROCEDURE_MISSING",
        "PROCEDURE_REPEATED",
        "CAPABILITY_PREFIX",
        "HANDLER_UNKNOWN",
        "WORKFLOW_INVALID",
        "FUNCTION_MISSING",
    },
    "boundaries": {"FAMILY_OPEN", "FAMILY_SHUT", "ROUTE_UNEXPECTED"},
    "telemetry": {"TIMELINE_WRONG", "EVENT_NOT_OBSERVED", "RUN_NOT_ENDED", "RUN_ENDED_WRONGLY"},
}


@pytest.fixture
def hq(tmp_path: Path) -> Path:
    init_instance(tmp_path / "hq")
    return tmp_path / "hq"


@pytest.fixture
def manifest(hq: Path) -> Manifest:
    return compose(hq)


def codes(findings: tuple[GateFinding, ...]) -> set[str]:
    return {finding.code for finding in findings}


def changed(value: Any, **fields: Any) -> Any:
    return msgspec.structs.replace(value, **fields)


def test_every_code_of_every_gate_is_sabotaged_here() -> None:
    assert {gate.name: set(gate.codes) for gate in GATES} == CODES_SEEN_SABOTAGED


class TestComposition:
    def test_the_control_is_green(self, manifest: Manifest) -> None:
        assert status_of(composition.inspect(manifest)) is GateStatus.PASS

    @pytest.mark.parametrize(
        ("code", "sabotage"),
        [
            ("PLUGIN_FAULT", lambda m: changed(m, faults=(PluginFault(path="p", code="C", message="broken"),))),
            ("PROCEDURE_MISSING", lambda m: changed(m, procedures=m.procedures[1:])),
            ("PROCEDURE_REPEATED", lambda m: changed(m, procedures=(*m.procedures, m.procedures[0]))),
            ("FUNCTION_MISSING", lambda m: changed(m, functions=())),
            ("HANDLER_UNKNOWN", lambda m: changed(m, desk_handlers={})),
            (
                "CAPABILITY_PREFIX",
                lambda m: changed(m, capabilities=(changed(m.capabilities[0], path_prefix="coordination"),)),
            ),
            (
                "CAPABILITY_PREFIX",
                lambda m: changed(m, capabilities=(changed(m.capabilities[0], path_prefix="/elsewhere"),)),
            ),
            ("WORKFLOW_INVALID", lambda m: changed(m, workflows=(changed(m.workflows[0], entry_desk_id="nowhere"),))),
        ],
    )
    def test_a_sabotaged_manifest_fails(
        self, manifest: Manifest, code: str, sabotage: Callable[[Manifest], Manifest]
    ) -> None:
        assert code in codes(composition.inspect(sabotage(manifest)).findings)


async def refuse_all(app: Application, scope: Any, receive: Any, send: Any) -> None:
    del app, scope, receive
    await send({"type": "http.response.start", "status": 403, "headers": []})
    await send({"type": "http.response.body", "body": b"forbidden"})


async def admit_all(app: Application, scope: Any, receive: Any, send: Any) -> None:
    del app, scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})


async def trust_claims(app: Application, scope: Any, receive: Any, send: Any) -> None:
    """As a host would that believes what a header says of its sender."""
    if (b"x-rawr-caller-surface", b"cli") in scope["headers"]:
        await admit_all(app, scope, receive, send)
    else:
        await app(scope, receive, send)


class TestBoundaries:
    def inspect(self, manifest: Manifest, root: Path, sabotage: Any = None) -> Inspection:
        async def inspected() -> Inspection:
            settings = HostSettings(limits=Limits(drain_s=1))
            async with open_host(root, InstanceId("g"), manifest, settings) as host:

                async def app(scope: Any, receive: Any, send: Any) -> None:
                    await sabotage(host.app, scope, receive, send)

                return await boundaries.inspect(app if sabotage else host.app, boundaries.keys_of(root))

        return asyncio.run(asyncio.wait_for(inspected(), 60))

    def test_the_control_is_green(self, manifest: Manifest, tmp_path: Path) -> None:
        inspection = self.inspect(manifest, tmp_path / "scratch")
        assert inspection.findings == ()
        assert status_of(inspection) is GateStatus.PASS

    @pytest.mark.parametrize(
        ("code", "sabotage"),
        [
            ("FAMILY_OPEN", admit_all),
            ("FAMILY_OPEN", trust_claims),
            ("ROUTE_UNEXPECTED", admit_all),
            ("FAMILY_SHUT", refuse_all),
        ],
    )
    def test_a_sabotaged_host_fails(self, manifest: Manifest, tmp_path: Path, code: str, sabotage: Any) -> None:
        assert code in codes(self.inspect(manifest, tmp_path / "scratch", sabotage).findings)


def without_events(observation: telemetry.Observation, event_type: str) -> telemetry.Observation:
    kept = [event for event in observation.events if event.type != event_type]
    renumbered = tuple(msgspec.structs.replace(event, seq=seq) for seq, event in enumerate(kept, start=1))
    return msgspec.structs.replace(observation, events=renumbered)


class TestTelemetry:
    @pytest.fixture
    def observations(self, manifest: Manifest, tmp_path: Path) -> list[telemetry.Observation]:
        return asyncio.run(telemetry.observe(manifest, tmp_path / "scratch", run_s=30))

    def test_the_control_is_green_and_each_dropped_event_type_is_found(
        self, observations: list[telemetry.Observation]
    ) -> None:
        assert status_of(telemetry.judged(observations)) is GateStatus.PASS
        for event_type in telemetry.CRITICAL:
            sabotaged = [without_events(observation, event_type) for observation in observations]
            assert {"EVENT_NOT_OBSERVED"} <= codes(telemetry.judged(sabotaged).findings), event_type
        for index, observation in enumerate(observations):
            for event in observation.events:
                kept = tuple(other for other in observation.events if other is not event)
                sabotaged = [*observations]
                sabotaged[index] = msgspec.structs.replace(observation, events=kept)
                assert "TIMELINE_WRONG" in codes(telemetry.judged(sabotaged).findings), event

    def test_nothing_observed_is_not_green(self, observations: list[telemetry.Observation]) -> None:
        empty = [msgspec.structs.replace(observation, events=()) for observation in observations]
        assert status_of(telemetry.judged(empty)) is GateStatus.FAIL
        assert status_of(telemetry.judged([])) is not GateStatus.PASS

    def test_a_runner_that_does_nothing_and_one_that_ends_wrongly_are_found(
        self, manifest: Manifest, tmp_path: Path
    ) -> None:
        async def nothing(deps: FunctionDeps, steps: Steps, data: Mapping[str, Any]) -> Any:
            del deps, steps, data

        [runner] = manifest.functions
        idle = changed(manifest, functions=(changed(runner, body=nothing),))
        assert "RUN_NOT_ENDED" in codes(asyncio.run(telemetry.check(idle, tmp_path / "idle", run_s=0.3)).findings)

    def test_a_run_that_ends_as_it_should_not_is_found(self, observations: list[telemetry.Observation]) -> None:
        swapped = [
            msgspec.structs.replace(
                observation,
                expected=RunStatus.FAILED if observation.expected is RunStatus.COMPLETED else RunStatus.COMPLETED,
            )
            for observation in observations
        ]
        assert "RUN_ENDED_WRONGLY" in codes(telemetry.judged(swapped).findings)


class TestRunner:
    def run(self, root: Path, *gates: Gate, timeout_s: float = 60) -> list[Any]:
        return run_gates(root, gates, clock=FakeClock(1_700_000_000_000), began=lambda _: None, timeout_s=timeout_s)

    def test_all_gates_are_green_on_a_new_hq_and_leave_evidence(self, hq: Path) -> None:
        results = self.run(hq, *GATES)
        assert all_green(results), results
        for result in results:
            evidence = json.loads((hq / f".rawr/evidence/gates/{result.gate}.json").read_text())
            assert evidence["status"] == "pass"
            assert evidence["inspected"] >= evidence["floor"] > 0
        assert not (hq / ".rawr/coordination.sqlite").exists(), "the instance itself is only read"

    def test_a_broken_manifest_is_an_error_and_a_broken_plugin_a_failure(self, hq: Path) -> None:
        (hq / "plugins/workflows/hello/plugin.py").write_text("raise RuntimeError('no')\n")
        [result] = self.run(hq, GATES[0])
        assert result.status is GateStatus.FAIL
        assert codes(result.findings) == {"PLUGIN_FAULT"}
        (hq / "rawr_hq.py").write_text("1 / 0\n")
        [result] = self.run(hq, GATES[0])
        assert result.status is GateStatus.ERROR
        assert "ZeroDivisionError" in result.reason

    def test_a_gate_without_a_verdict_in_time_is_an_error(self, hq: Path) -> None:
        [result] = self.run(hq, GATES[0], timeout_s=0.01)
        assert result.status is GateStatus.ERROR
        assert "no verdict" in result.reason

    def test_an_unknown_gate_is_refused_and_no_name_means_all(self) -> None:
        assert selected([]) == GATES
        with pytest.raises(GateUnknownError, match="known: composition"):
            selected(["nope"])


@pytest.mark.parametrize(
    ("inspected", "floor", "findings", "status"),
    [
        (5, 5, (), GateStatus.PASS),
        (4, 5, (), GateStatus.INCONCLUSIVE),
        (0, 0, (), GateStatus.INCONCLUSIVE),
        (4, 5, (GateFinding(code="X", message="x"),), GateStatus.FAIL),
    ],
)
def test_only_enough_and_nothing_found_is_green(
    inspected: int, floor: int, findings: tuple[GateFinding, ...], status: GateStatus
) -> None:
    assert status_of(Inspection(inspected=inspected, floor=floor, findings=findings)) is status


def test_no_result_is_not_green() -> None:
    assert not all_green([])
