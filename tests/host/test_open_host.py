"""An instance opened in this process, without a socket: the composition that commands use when no server runs."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rawr.clock import SystemClock
from rawr.coordination.lifecycle import Fact
from rawr.coordination.model import EventType, Run, RunStatus, TimelineEvent
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.errors import CorruptFileError
from rawr.execution.precedence import Precedence
from rawr.host.runtime import Host, open_host
from rawr.host.settings import HostSettings, Limits
from rawr.hq import Manifest, PluginFault
from rawr.ids import InstanceId, RunId, WorkflowId
from rawr.security.credentials import SecretExposedError

SETTINGS = HostSettings(limits=Limits(drain_s=2))


def served_manifest() -> Manifest:
    """The manifest of the server program that lies beside this file."""
    spec = importlib.util.spec_from_file_location("server_program", Path(__file__).with_name("server_program.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    manifest = module.manifest()
    assert isinstance(manifest, Manifest)
    return manifest


def in_host(
    root: Path, work: Callable[[Host], Awaitable[Any]], *, manifest: Manifest | None = None, name: str = "inst"
) -> Any:
    async def run() -> Any:
        async with open_host(root, InstanceId(name), manifest or served_manifest(), SETTINGS) as host:
            return await work(host)

    return asyncio.run(asyncio.wait_for(run(), 60))


async def completed(host: Host, workflow_id: str, run_id: str, given: object) -> Run:
    await host.coordination.queue_run(workflow_id, run_id, given)
    return await ended(host, run_id)


async def ended(host: Host, run_id: str) -> Run:
    # Another process could end the run as well, so there is nothing but the store to ask.
    while (run := await host.coordination.get_run(run_id)).finished_at is msgspec.UNSET:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "instance"


def test_a_run_completes_without_any_socket(root: Path) -> None:
    run = in_host(root, lambda host: completed(host, "doubling", "run-1", {"number": 4}))
    assert (run.status, run.output) == (RunStatus.COMPLETED, {"number": 8})


def test_what_one_opening_stored_the_next_one_has(root: Path) -> None:
    in_host(root, lambda host: completed(host, "doubling", "run-1", {"number": 4}))

    async def again(host: Host) -> tuple[Run, list[TimelineEvent]]:
        run = await host.coordination.get_run("run-1")
        return run, (await host.coordination.run_timeline("run-1"))[1]

    run, events = in_host(root, again)
    assert run.status is RunStatus.COMPLETED
    assert [event.seq for event in events] == [1, 2, 3, 4, 5]


def test_two_instances_in_one_process_do_not_meet(tmp_path: Path) -> None:
    async def run() -> tuple[list[Run], list[Run]]:
        manifest = served_manifest()
        async with (
            open_host(tmp_path / "a", InstanceId("a"), manifest, SETTINGS) as one,
            open_host(tmp_path / "b", InstanceId("b"), manifest, SETTINGS) as other,
        ):
            await asyncio.gather(
                completed(one, "doubling", "same-id", {"number": 1}),
                completed(other, "doubling", "same-id", {"number": 10}),
            )
            return await one.coordination.list_runs(), await other.coordination.list_runs()

    ones, others = asyncio.run(asyncio.wait_for(run(), 60))
    assert [run.output for run in ones] == [{"number": 2}]
    assert [run.output for run in others] == [{"number": 20}]


class Turns(Precedence):
    """Counts starts, and tells when the work of a run asks for its turn."""

    def __init__(self) -> None:
        super().__init__(turn_s=3600)
        self.starts = 0
        self.asked = asyncio.Event()

    @contextmanager
    def starting(self) -> Iterator[None]:
        self.starts += 1
        with super().starting():
            yield

    async def turn(self) -> None:
        self.asked.set()
        await super().turn()


def test_a_run_begins_once_no_other_is_being_started(root: Path) -> None:
    async def run() -> tuple[Run, Run, int]:
        turns = Turns()
        async with open_host(root, InstanceId("inst"), served_manifest(), SETTINGS, precedence=turns) as host:
            with turns.starting():
                await host.coordination.queue_run("doubling", "run-1", {"number": 4})
                await turns.asked.wait()
                meanwhile = await host.coordination.get_run("run-1")
            return meanwhile, await ended(host, "run-1"), turns.starts

    meanwhile, run_, starts = asyncio.run(asyncio.wait_for(run(), 60))
    assert (meanwhile.status, run_.status, starts) == (RunStatus.QUEUED, RunStatus.COMPLETED, 2)


def test_a_run_that_was_stored_and_never_handed_over_runs_at_the_next_opening(root: Path) -> None:
    in_host(root, lambda host: host.coordination.list_workflows())
    store = SqliteCoordinationStore(root / ".rawr" / "coordination.sqlite", SystemClock())
    at = "2026-01-01T00:00:00.000Z"
    lost = Run(
        run_id=RunId("run-lost"),
        workflow_id=WorkflowId("doubling"),
        workflow_version=1,
        status=RunStatus.QUEUED,
        started_at=at,
        input={"number": 3},
        trace_links=(),
    )
    asyncio.run(store.create_run(lost, Fact(key="run.started/queued", type=EventType.RUN_STARTED, at=at)))
    store.close()
    run = in_host(root, lambda host: ended(host, "run-lost"))
    assert (run.status, run.output) == (RunStatus.COMPLETED, {"number": 6})


def test_a_shipped_workflow_that_conflicts_is_left_out_with_a_warning(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    in_host(root, lambda host: completed(host, "doubling", "run-1", {"number": 4}))
    manifest = served_manifest()
    changed = msgspec.structs.replace(manifest.workflows[0], name="Changed without a new version")
    with caplog.at_level(logging.WARNING, "rawr.host"):
        workflow = in_host(
            root,
            lambda host: host.coordination.get_workflow("doubling"),
            manifest=msgspec.structs.replace(manifest, workflows=(changed,)),
        )
    assert workflow.name == "doubling"
    assert any("workflow doubling of a plugin was not saved" in line for line in caplog.messages)


def test_a_plugin_fault_is_reported_and_keeps_nothing_else_from_working(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fault = PluginFault(path="plugins/web/bad", code="PLUGIN_MANIFEST_INVALID", message="rawr.kind is missing")
    manifest = msgspec.structs.replace(served_manifest(), faults=(fault,))
    with caplog.at_level(logging.WARNING, "rawr.host"):
        run = in_host(root, lambda host: completed(host, "doubling", "r", {"number": 1}), manifest=manifest)
    assert run.status is RunStatus.COMPLETED
    assert "plugin plugins/web/bad is left out: PLUGIN_MANIFEST_INVALID: rawr.kind is missing" in caplog.messages


@pytest.mark.parametrize("name", ["coordination.sqlite", "engine.sqlite"])
def test_a_damaged_store_is_an_error_and_stays_as_it_is(root: Path, name: str) -> None:
    (root / ".rawr").mkdir(parents=True)
    damaged = b"this is not a database" * 500
    (root / ".rawr" / name).write_bytes(damaged)
    with pytest.raises(CorruptFileError):
        in_host(root, lambda host: host.coordination.list_workflows())
    assert (root / ".rawr" / name).read_bytes() == damaged


def test_a_key_that_others_can_read_keeps_the_instance_closed(root: Path) -> None:
    in_host(root, lambda host: host.coordination.list_workflows())
    (root / ".rawr" / "secrets" / "engine.key").chmod(0o644)
    with pytest.raises(SecretExposedError):
        in_host(root, lambda host: host.coordination.list_workflows())
