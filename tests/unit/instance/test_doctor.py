"""What the doctor finds, by its stable ids."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from rawr.clock import UlidSource
from rawr.coordination.store_sqlite import SqliteCoordinationStore
from rawr.instance import doctor
from rawr.instance.doctor import CHECKS, Finding, diagnose
from rawr.instance.identity import identify
from rawr.instance.layout import InstanceLayout
from rawr.state.store import RepoStateStore
from rawr.storage.lock import FileLock, free
from rawr.testing.clock import FakeClock
from rawr.testing.workspace import make_instance


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> InstanceLayout:
    monkeypatch.delenv("RAWR_SERVER_PORT", raising=False)
    return InstanceLayout(make_instance(tmp_path / "hq", files={"rawr.toml": "[server]\nport = 0\n"}))


def found(layout: InstanceLayout) -> dict[str, Finding]:
    """Findings by id, without those about the machine that the tests run on. Composing has tests of its own."""
    checks = {name: check for name, check in CHECKS.items() if name != "composition"}
    findings = {finding.id: finding for finding in diagnose(layout, checks=checks).findings}
    for of_machine in ("env.uv_missing", "env.disk_low", "server.not_running"):
        findings.pop(of_machine, None)
    return findings


def only(layout: InstanceLayout) -> Finding:
    (finding,) = found(layout).values()
    return finding


def test_a_sound_instance_has_no_errors_and_the_doctor_changes_nothing(layout: InstanceLayout) -> None:
    before = sorted(layout.root.rglob("*"))
    diagnosis = diagnose(layout)
    assert {finding.severity for finding in diagnosis.findings} <= {"info", "warning"}
    assert diagnosis.ok
    assert diagnosis.checks == tuple(CHECKS)
    assert sorted(layout.root.rglob("*")) == before


def test_a_server_that_is_not_running_is_only_information(layout: InstanceLayout) -> None:
    finding = next(finding for finding in diagnose(layout).findings if finding.id == "server.not_running")
    assert (finding.severity, finding.fix) == ("info", "rawr up")


def test_state_that_cannot_be_read_is_an_error(layout: InstanceLayout) -> None:
    (layout.data / "state").mkdir(parents=True)
    (layout.data / "state" / "state.json").write_text("{")
    finding = only(layout)
    assert (finding.id, finding.severity) == ("state.corrupt", "error")
    assert finding.evidence["code"] == "STATE_CORRUPT"
    assert (layout.data / "state" / "state.json").read_text() == "{"


def test_what_is_wrong_with_the_files_of_the_state_is_found_with_a_way_out(layout: InstanceLayout) -> None:
    store = RepoStateStore(layout.root)
    store.set(store.get())
    store.path.write_text("{")
    store.enable("@x/gone")
    with store.files.journal.open("ab") as journal:
        journal.write(b"torn")
    (store.files.folder / ".state.json.1.aa.tmp").touch()
    store.files.lock_file.write_text('{"pid": 999999999, "acquiredAt": "2026-01-01T00:00:00.000Z"}')
    os.utime(store.files.lock_file, (0, 0))
    sick = found(layout)
    assert sick.keys() == {
        "state.enabled_unknown_plugin",
        "state.journal_damaged",
        "state.lock_stale",
        "state.orphans",
        "state.quarantined",
    }
    assert all(finding.fix for finding in sick.values())


def test_files_of_another_user_are_a_warning(layout: InstanceLayout) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    store = RepoStateStore(layout.root)
    store.set(store.get())
    os.chown(store.path, 12345, -1)
    finding = only(layout)
    assert (finding.id, finding.severity) == ("state.foreign_owner", "warning")
    assert finding.fix == f"sudo chown {layout.root.stat().st_uid} {store.path}"


def test_an_enabled_plugin_that_is_gone_is_a_warning_with_a_command(layout: InstanceLayout) -> None:
    RepoStateStore(layout.root).enable("gone")
    finding = only(layout)
    assert (finding.id, finding.severity) == ("state.enabled_unknown_plugin", "warning")
    assert finding.fix == "rawr plugins web disable gone"


def test_state_that_leads_out_of_the_instance_is_an_error(layout: InstanceLayout, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    layout.data.mkdir()
    (layout.data / "state").symlink_to(tmp_path / "shared")
    assert only(layout).id == "state.not_instance_local"


def test_a_bad_manifest_is_an_error_with_its_path(layout: InstanceLayout) -> None:
    (layout.root / "plugins/web/bad").mkdir(parents=True)
    (layout.root / "plugins/web/bad/package.json").write_text("{")
    finding = only(layout)
    assert (finding.id, finding.severity) == ("manifest.plugin_invalid", "error")
    assert finding.evidence["path"] == str(layout.root / "plugins/web/bad")


def test_a_wrong_configuration_is_an_error(layout: InstanceLayout) -> None:
    (layout.root / "rawr.toml").write_text("[server]\nprot = 1\n")
    assert only(layout).id == "config.invalid"


def test_a_damaged_identity_is_an_error_and_a_copy_is_information(layout: InstanceLayout) -> None:
    layout.data.mkdir()
    layout.identity.write_text("{")
    assert only(layout).id == "instance.identity_unreadable"
    layout.identity.write_text(json.dumps({"schema": 1, "id": "x", "root": str(layout.root), "copiedFrom": "/old"}))
    assert (only(layout).id, only(layout).severity) == ("instance.copied", "info")


def test_a_damaged_database_is_an_error_and_a_sound_one_is_not(layout: InstanceLayout) -> None:
    layout.data.mkdir()
    SqliteCoordinationStore(layout.coordination_database).close()
    assert found(layout) == {}
    layout.coordination_database.write_bytes(b"SQLite format 3\0 and then nonsense" * 100)
    finding = only(layout)
    assert finding.id == "database.unsound"
    assert finding.evidence == {"path": str(layout.coordination_database)}


def test_a_server_file_without_a_server_is_stale(layout: InstanceLayout) -> None:
    layout.run.mkdir(parents=True)
    layout.server_record.write_text("{}")
    assert (only(layout).id, only(layout).severity) == ("server.stale_run_file", "warning")
    descriptor = FileLock(layout.server_lock).try_hold()
    assert descriptor is not None
    try:
        assert found(layout) == {}
    finally:
        free(descriptor)


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_a_port_that_somebody_else_has_is_a_warning_that_names_it(layout: InstanceLayout, listener: int) -> None:
    (layout.root / "rawr.toml").write_text(f"[server]\nport = {listener}\n")
    finding = only(layout)
    assert (finding.id, finding.severity) == ("server.port_busy", "warning")
    assert finding.title.startswith(f"port {listener} is taken by ")
    assert f"(pid {os.getpid()})" in finding.title


def test_a_port_of_our_own_server_is_no_finding(layout: InstanceLayout, listener: int) -> None:
    (layout.root / "rawr.toml").write_text(f"[server]\nport = {listener}\n")
    descriptor = FileLock(layout.server_lock).try_hold()
    assert descriptor is not None
    try:
        assert found(layout) == {}
    finally:
        free(descriptor)


def test_secrets_that_others_can_read_are_errors_and_never_shown(layout: InstanceLayout) -> None:
    layout.secrets.mkdir(parents=True, mode=0o700)
    (layout.secrets / "cli.key").write_text("0123456789abcdef")
    (layout.secrets / "cli.key").chmod(0o644)
    finding = only(layout)
    assert (finding.id, finding.severity) == ("secrets.exposed", "error")
    assert finding.fix == f"chmod 600 {layout.secrets / 'cli.key'}"
    assert "0123456789abcdef" not in repr(finding)
    (layout.secrets / "cli.key").chmod(0o600)
    layout.secrets.chmod(0o755)
    assert only(layout).fix == f"chmod 700 {layout.secrets}"


def test_missing_tools_are_said(layout: InstanceLayout, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    findings = {finding.id: finding.severity for finding in diagnose(layout).findings}
    assert findings["env.git_missing"] == "error"
    assert findings["env.uv_missing"] == "info"


def test_a_full_disk_is_a_warning(layout: InstanceLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_FREE_MIN", 1 << 62)
    finding = next(finding for finding in diagnose(layout).findings if finding.id == "env.disk_low")
    assert finding.severity == "warning"
    assert finding.evidence["freeBytes"] > 0


def test_a_check_that_crashes_is_a_finding_and_hides_no_other(
    layout: InstanceLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(_: InstanceLayout) -> Iterator[Finding]:
        raise ZeroDivisionError("surprise")

    monkeypatch.setitem(CHECKS, "disk", crash)
    (layout.root / "rawr.toml").write_text("x = 1\n")
    diagnosis = diagnose(layout)
    assert [finding.id for finding in diagnosis.findings if finding.severity == "error"] == [
        "config.invalid",
        "doctor.check_crashed",
    ]
    crashed = next(finding for finding in diagnosis.findings if finding.id == "doctor.check_crashed")
    assert crashed.title == "the check disk itself failed: ZeroDivisionError: surprise"
    assert crashed.evidence == {"check": "disk"}


def test_an_identified_instance_stays_sound(layout: InstanceLayout) -> None:
    identify(layout, UlidSource(FakeClock()))
    assert found(layout) == {}


def composed(layout: InstanceLayout) -> tuple[Finding, ...]:
    return diagnose(layout, checks={"composition": CHECKS["composition"]}).findings


def workflows_plugin(layout: InstanceLayout, code: str) -> Path:
    folder = layout.root / "plugins/workflows/x"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text('[tool.rawr]\nkind = "workflows"\ncapability = "x"\n')
    (folder / "plugin.py").write_text(code)
    return folder


def test_a_plugin_that_cannot_be_imported_is_an_error_whatever_it_prints(layout: InstanceLayout) -> None:
    folder = workflows_plugin(layout, "print('noise')\n1 / 0\n")
    (finding,) = composed(layout)
    assert (finding.id, finding.severity) == ("manifest.plugin_unusable", "error")
    assert "ZeroDivisionError" in finding.title
    assert finding.evidence == {"path": str(folder), "code": "PLUGIN_LOAD_FAILED"}


def test_a_bad_manifest_is_found_once(layout: InstanceLayout) -> None:
    (layout.root / "plugins/web/bad").mkdir(parents=True)
    (layout.root / "plugins/web/bad/package.json").write_text("{")
    assert composed(layout) == ()


def test_a_composition_that_fails_is_an_error_with_its_place(layout: InstanceLayout) -> None:
    marker = layout.root / "rawr_hq.py"
    marker.write_text("x = 1\nraise ValueError('no')\n")
    (finding,) = composed(layout)
    assert (finding.id, finding.severity) == ("manifest.load_failed", "error")
    assert finding.title == f"{marker}:2: ValueError: no"


def test_a_composition_that_ends_the_process_or_never_ends_is_an_error_and_hurts_nobody(
    layout: InstanceLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workflows_plugin(layout, "import os\nos._exit(7)\n")
    (finding,) = composed(layout)
    assert finding.title == "the instance cannot be composed, status 7: it did not say why"
    (folder / "plugin.py").write_text("import threading\nthreading.Event().wait()\n")
    monkeypatch.setattr(doctor, "COMPOSE_TIMEOUT_S", 2)
    (finding,) = composed(layout)
    assert finding.id == "manifest.load_failed"
    assert "not composed within 2 s" in finding.title


def test_files_beside_the_instance_do_not_stand_in_for_libraries(layout: InstanceLayout) -> None:
    (layout.root / "msgspec.py").write_text("raise AssertionError('imported')\n")
    assert composed(layout) == ()
