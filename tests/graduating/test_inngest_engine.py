"""Sending events to an Inngest server, registering with it, and leaving the embedded engine for it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rawr.clock import SystemClock
from rawr.coordination.model import RunStatus
from rawr.coordination.ports import EngineUnreachableError
from rawr.coordination.service import RunQueueFailedError
from rawr.execution.doctor import CHECKS
from rawr.execution.embedded.engine import EmbeddedEngine
from rawr.execution.ingest import EventsRefusedError, make_event_sink
from rawr.execution.inngest_engine import InngestEngine, RegistrationError
from rawr.execution.pending import EngineNotDrainedError, pending_count
from rawr.execution.ports import IngressResponse, InngestServer, OutgoingEvent
from rawr.execution.signing import HEADER, mac
from rawr.host.runtime import Host, open_host
from rawr.host.settings import HostSettings
from rawr.hq import load_manifest
from rawr.ids import InstanceId
from rawr.instance.doctor import Finding, diagnose
from rawr.instance.init import init_instance
from rawr.instance.layout import InstanceLayout

if TYPE_CHECKING:
    from tests.graduating.conftest import FakeInngest

SIGNING_KEY = "signkey-prod-" + "0a" * 32
EVENT = OutgoingEvent(name="go", data={"x": 1}, event_id="e-1")


def server_at(url: str, **changes: Any) -> InngestServer:
    values: dict[str, Any] = {"event_key": "fake-event-key", "signing_key": SIGNING_KEY, **changes}
    return InngestServer(api_url=url, event_url=url, trace_url=url, **values)


def nowhere() -> str:
    """An address on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def sent(server: InngestServer, *events: OutgoingEvent) -> list[str]:
    async def send() -> list[str]:
        sink = make_event_sink(server)
        try:
            return await sink.send(events)
        finally:
            await sink.close()

    return asyncio.run(send())


# --- events ---


def test_an_event_arrives_as_it_was_sent_and_its_id_comes_back(
    inngest_server: FakeInngest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INNGEST_EVENT_KEY", "INNGEST_SIGNING_KEY", "INNGEST_ENV", "INNGEST_EVENT_API_BASE_URL"):
        monkeypatch.setenv(name, "http://evil.example")
    [event_id] = sent(server_at(inngest_server.url), EVENT)
    assert event_id.startswith("01FAKEEVENT")
    [event] = inngest_server.events.values()
    assert (event["name"], event["data"], event["id"]) == ("go", {"x": 1}, "e-1")


def test_a_server_that_refuses_and_one_that_is_not_there_are_told_apart(inngest_server: FakeInngest) -> None:
    with pytest.raises(EventsRefusedError, match="Event key not found"):
        sent(server_at(inngest_server.url, event_key="other"), EVENT)
    with pytest.raises(EngineUnreachableError, match="gives no answer"):
        sent(server_at(nowhere()), EVENT)


def test_an_answer_without_ids_is_no_acceptance(inngest_server: FakeInngest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inngest_server, "accept", lambda *_: (200, {"status": 200}))
    with pytest.raises(EventsRefusedError, match="took 0 of 1 events"):
        sent(server_at(inngest_server.url), EVENT)


def test_a_server_does_not_show_its_keys() -> None:
    assert "0a0a" not in repr(server_at("http://x", signing_key_fallback="0b0b"))
    assert "fake-event-key" not in repr(HostSettings(inngest=server_at("http://x")))


# --- registration ---


class Ingress:
    """Answers syncs as it is told, one after the other, and remembers them."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        self._answers = list(answers)
        self.has_answered_all = asyncio.Event()
        self.asked: list[tuple[str, Mapping[str, str], bytes]] = []

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse:
        assert query == {}
        self.asked.append((method, headers, body))
        status, text = self._answers.pop(0)
        if not self._answers:
            self.has_answered_all.set()
        return IngressResponse(status=status, headers={}, body=text)


class NoEvents:
    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        raise AssertionError(events)

    async def close(self) -> None:
        """There is nothing to close."""


def engine_on(ingress: Ingress, *, pause_s: float = 0.0) -> InngestEngine:
    server = server_at("http://127.0.0.1:8288")
    return InngestEngine(server, events=NoEvents(), call=ingress, clock=SystemClock(), pause_s=pause_s)


OK = (200, b'{"ok":true,"modified":false}')
REFUSALS = {
    "refused by the server, which the SDK answers with 200": (200, b'{"ok":false,"error":"bad key"}', "bad key"),
    "the server is not there": (500, b'{"code":"unknown","message":"Failed request"}', "Failed request"),
    "refused by our own guard": (403, b"forbidden", "status 403"),
    "no answer that means yes": (200, b'{"ok":1}', "status 200"),
    "no JSON": (200, b"<html>", "status 200"),
    "no object": (200, b"[]", "status 200"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_only_a_yes_of_the_server_is_a_registration(name: str) -> None:
    status, body, why = REFUSALS[name]
    with pytest.raises(RegistrationError, match=f"http://127.0.0.1:8288: {why}$"):
        asyncio.run(engine_on(Ingress((status, body))).register())


def test_registering_is_a_signed_sync_of_our_own_ingress() -> None:
    ingress = Ingress(OK)
    asyncio.run(engine_on(ingress).register())
    [(method, headers, body)] = ingress.asked
    t, _, given = headers[HEADER].removeprefix("t=").partition("&s=")
    assert method == "PUT"
    assert mac(body, SIGNING_KEY, int(t)) == given


def test_registration_is_tried_until_it_is_done(caplog: pytest.LogCaptureFixture) -> None:
    ingress = Ingress((403, b"forbidden"), (200, b'{"ok":false,"error":"starting"}'), OK)

    async def until_done() -> None:
        engine = engine_on(ingress)
        await engine.start()
        await ingress.has_answered_all.wait()
        await engine.stop(0)

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(until_done(), 60))
    assert len(ingress.asked) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "starting" in caplog.text


def test_stopping_ends_the_attempts() -> None:
    async def stop_in_between() -> None:
        engine = engine_on(Ingress((403, b"")), pause_s=3600)
        await engine.start()
        await asyncio.sleep(0)
        await engine.stop(0)

    asyncio.run(asyncio.wait_for(stop_in_between(), 60))


# --- an instance ---


@pytest.fixture
def root(tmp_path: Path) -> Path:
    init_instance(tmp_path / "hq")
    return tmp_path / "hq"


def on_host(root: Path, url: str, work: Callable[[Host], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        settings = HostSettings(inngest=server_at(url))
        async with open_host(root, InstanceId("grown"), load_manifest(root), settings) as host:
            return await work(host)

    return asyncio.run(asyncio.wait_for(opened(), 120))


def test_a_queued_run_is_linked_to_its_event_on_the_server(root: Path, inngest_server: FakeInngest) -> None:
    async def queue(host: Host) -> Any:
        return await host.coordination.queue_run("hello", "run-1")

    inngest_server.refuses = "nothing is to be run in this test"
    queued = on_host(root, inngest_server.url, queue)
    [event_id] = queued.event_ids
    assert queued.run.status is RunStatus.QUEUED
    assert [link.url for link in queued.run.trace_links][1:] == [f"{inngest_server.url}/events/{event_id}"]


def test_without_the_server_the_instance_opens_and_a_run_says_what_is_missing(root: Path) -> None:
    url = nowhere()

    async def queue(host: Host) -> Any:
        with pytest.raises(RunQueueFailedError) as raised:
            await host.coordination.queue_run("hello", "run-1")
        return raised.value

    error = on_host(root, url, queue)
    assert f"the Inngest server at {url} gives no answer" in error.message
    assert error.run.status is RunStatus.FAILED
    assert error.run.finalization.finished_hook.outcome.value == "skipped"


def leave_an_event(root: Path) -> None:
    """In the embedded engine, which is not started and so never looks at it."""

    async def send() -> None:
        layout = InstanceLayout(root)
        engine = EmbeddedEngine(
            database=layout.engine_database,
            run_dir=layout.run,
            call=Ingress(),
            signing_key=SIGNING_KEY,
            clock=SystemClock(),
        )
        await engine.send([EVENT])
        await engine.stop(0)

    asyncio.run(send())


def finish_it(root: Path) -> None:
    """A host with the embedded engine looks at the event; no function wants it."""

    async def opened() -> None:
        async with open_host(root, InstanceId("grown"), load_manifest(root), HostSettings()):
            for _ in range(5000):
                if not await asyncio.to_thread(pending_count, InstanceLayout(root).engine_database):
                    return
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(opened(), 60))


def test_an_instance_does_not_leave_the_embedded_engine_while_that_has_work(
    root: Path, inngest_server: FakeInngest
) -> None:
    async def nothing(_: Host) -> None:
        return None

    assert pending_count(InstanceLayout(root).engine_database) == 0
    leave_an_event(root)
    assert pending_count(InstanceLayout(root).engine_database) == 1
    with pytest.raises(EngineNotDrainedError, match="still has 1 unfinished"):
        on_host(root, inngest_server.url, nothing)
    assert inngest_server.tokens == []
    finish_it(root)
    on_host(root, inngest_server.url, nothing)


def findings(root: Path, toml: str, *checks: str) -> dict[str, Finding]:
    (root / "rawr.toml").write_text(toml)
    chosen = {name: CHECKS[name] for name in checks}
    return {finding.id: finding for finding in diagnose(InstanceLayout(root), checks=chosen).findings}


ELSEWHERE = '[engine]\nmode = "inngest"\nbase_url = "https://inngest.example"\n'


def test_the_doctor_counts_what_was_left_in_the_embedded_engine(root: Path) -> None:
    leave_an_event(root)
    before = InstanceLayout(root).engine_database.read_bytes()
    assert findings(root, "", "engine queue") == {}
    found = findings(root, ELSEWHERE, "engine queue")["engine.not_drained"]
    assert (found.severity, found.evidence["pending"]) == ("error", 1)
    assert InstanceLayout(root).engine_database.read_bytes() == before
    InstanceLayout(root).engine_database.write_bytes(b"not a database" * 100)
    assert findings(root, ELSEWHERE, "engine queue")["engine.queue_unreadable"].severity == "error"


@pytest.mark.parametrize(
    ("server", "found"),
    [
        ("", ["engine.no_way_back"]),
        ('base_url = "https://hq.example"\n', ["engine.host_not_trusted"]),
        ('base_url = "https://hq.example"\ntrusted_hosts = ["HQ.example"]\n', []),
        ('base_url = "http://localhost:3000"\n', ["engine.no_way_back"]),
    ],
)
def test_the_doctor_asks_whether_the_server_can_call_back(root: Path, server: str, found: list[str]) -> None:
    assert list(findings(root, f"[server]\n{server}{ELSEWHERE}", "engine way back")) == found


def test_the_doctor_warns_of_keys_that_travel_in_the_open(root: Path) -> None:
    toml = '[engine]\nmode = "inngest"\nbase_url = "http://127.0.0.2:1"\n'  # this machine, under a name we do not know
    assert sorted(findings(root, toml, "engine server")) == ["engine.plain_http", "engine.unreachable"]


def test_with_the_embedded_engine_there_is_nothing_to_find(root: Path) -> None:
    toml = '[engine]\nbase_url = "https://inngest.example"\n'
    assert findings(root, toml, *CHECKS) == {}
