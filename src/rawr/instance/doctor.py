"""What could be wrong with an instance and with the machine it is on. Looks; changes and downloads nothing.

Each check gives findings with stable ids. A check that crashes is itself a finding, so one bad surprise does
not hide the others.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec

from rawr.clock import SystemClock
from rawr.errors import RawrError
from rawr.instance.identity import read_identity
from rawr.instance.layout import InstanceLayout
from rawr.state.files import files_of
from rawr.state.findings import findings as state_findings
from rawr.state.store import RepoStateStore
from rawr.storage.lock import FileLock
from rawr.storage.processes import describe_listener
from rawr.storage.snapshots import check_database
from rawr.wire import decode
from rawr.workspace.config import load_config
from rawr.workspace.discovery import discover

Severity: TypeAlias = Literal["error", "warning", "info"]
DISK_FREE_MIN: Final = 512 << 20
PYTHON_MIN: Final = (3, 11)
COMPOSE_TIMEOUT_S: Final = 30
# What plugins print goes to stderr, so that stdout holds the answer and nothing else.
_COMPOSE: Final = """
import os, sys
from pathlib import Path
answer = os.dup(1)
os.dup2(2, 1)
from rawr.errors import RawrError
from rawr.hq import load_manifest
from rawr.wire import encode
try:
    found = [(fault.path, fault.code, fault.message) for fault in load_manifest(Path(sys.argv[1])).faults]
except RawrError as error:
    found = [(sys.argv[1], error.code, error.message)]
with open(answer, "wb") as file:
    file.write(encode(found))
os._exit(0)  # a plugin may have left threads behind
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`id` is stable. `fix` is a command or a sentence; `evidence` is plain data without secrets."""

    id: str
    severity: Severity
    title: str
    evidence: dict[str, Any] = msgspec.field(default_factory=dict)
    fix: str | None = None


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    findings: tuple[Finding, ...]
    checks: tuple[str, ...]
    """Names of all checks that ran, also of those that found nothing."""

    @property
    def ok(self) -> bool:
        return not any(finding.severity == "error" for finding in self.findings)


Check: TypeAlias = Callable[[InstanceLayout], Iterator[Finding]]


def diagnose(layout: InstanceLayout, *, checks: Mapping[str, Check] | None = None) -> Diagnosis:
    """Run every check on the instance, or only `checks`; errors first."""
    chosen = CHECKS if checks is None else checks
    findings = [finding for name, check in chosen.items() for finding in _guarded(name, check, layout)]
    order = {"error": 0, "warning": 1, "info": 2}
    ordered = sorted(findings, key=lambda finding: (order[finding.severity], finding.id))
    return Diagnosis(findings=tuple(ordered), checks=tuple(chosen))


def _guarded(name: str, check: Check, layout: InstanceLayout) -> list[Finding]:
    try:
        return list(check(layout))
    # Whatever a check stumbles over must not hide what the others find.
    except Exception as error:  # noqa: BLE001
        title = f"the check {name} itself failed: {type(error).__name__}: {error}"
        return [Finding(id="doctor.check_crashed", severity="error", title=title, evidence={"check": name})]


def _python(_: InstanceLayout) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_MIN:
        title = f"Python {version} is too old, 3.11 is needed"
        yield Finding(id="env.python_version", severity="error", title=title, fix="PY=/path/to/python3.11 make up")


def _tools(_: InstanceLayout) -> Iterator[Finding]:
    if shutil.which("git") is None:
        yield Finding(id="env.git_missing", severity="error", title="git is not on PATH", fix="install git")
    elif (problem := _git_problem()) is not None:
        yield Finding(id="env.git_broken", severity="error", title=f"git does not work: {problem}")
    if shutil.which("uv") is None:
        title = "uv is not on PATH; pip is used, which is slower"
        yield Finding(id="env.uv_missing", severity="info", title=title, fix="install uv, or ignore this")


def _git_problem() -> str | None:
    try:
        done = subprocess.run(["git", "--version"], capture_output=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr.decode("utf-8", "replace").strip()


def _disk(layout: InstanceLayout) -> Iterator[Finding]:
    free_bytes = shutil.disk_usage(layout.root).free
    if free_bytes < DISK_FREE_MIN:
        title = f"only {free_bytes >> 20} MiB are free on the disk of {layout.root}"
        yield Finding(id="env.disk_low", severity="warning", title=title, evidence={"freeBytes": free_bytes})


def _writable(layout: InstanceLayout) -> Iterator[Finding]:
    folder = layout.data if layout.data.exists() else layout.root
    if not folder.is_dir():
        yield Finding(id="env.dir_not_writable", severity="error", title=f"{folder} is no folder")
    elif not os.access(folder, os.W_OK | os.X_OK):
        yield Finding(id="env.dir_not_writable", severity="error", title=f"{folder} is not writable for this user")


def _identity(layout: InstanceLayout) -> Iterator[Finding]:
    try:
        known = read_identity(layout)
    except RawrError as error:
        yield _of(error, "instance.identity_unreadable")
        return
    if known is not None and known.copied_from is not None:
        title = f"this instance began as a copy of {known.copied_from} and has an id of its own"
        yield Finding(id="instance.copied", severity="info", title=title)


def _config(layout: InstanceLayout) -> Iterator[Finding]:
    try:
        load_config(layout.root, environ=os.environ)
    except RawrError as error:
        yield _of(error, "config.invalid")


def _state(layout: InstanceLayout) -> Iterator[Finding]:
    store = RepoStateStore(layout.root, SystemClock())
    try:
        enabled = store.get().plugins.enabled
    except RawrError:
        return  # the check of the state's files says it
    known = {name for plugin in discover(layout.root).plugins for name in (plugin.plugin_id, plugin.dir_name)}
    for unknown in sorted(set(enabled) - known):
        yield Finding(
            id="state.enabled_unknown_plugin",
            severity="warning",
            title=f"{unknown} is enabled, and there is no such plugin",
            evidence={"pluginId": unknown},
            fix=f"rawr plugins web disable {unknown}",
        )


def _state_files(layout: InstanceLayout) -> Iterator[Finding]:
    for finding in state_findings(files_of(layout.root), SystemClock()):
        yield Finding(**msgspec.structs.asdict(finding))


def _databases(layout: InstanceLayout) -> Iterator[Finding]:
    """Of the engine's file the engine's own checks tell."""
    path = layout.coordination_database
    if path.exists() and (problem := check_database(path)) is not None:
        fix = f"rawr down, then move {path.name} and its companions away or restore a backup"
        yield Finding(id="database.unsound", severity="error", title=problem, evidence={"path": str(path)}, fix=fix)


def _manifests(layout: InstanceLayout) -> Iterator[Finding]:
    for fault in discover(layout.root).faults:
        evidence = {"path": str(fault.path), "code": fault.code}
        yield Finding(id="manifest.plugin_invalid", severity="error", title=fault.message, evidence=evidence)


def _composition(layout: InstanceLayout) -> Iterator[Finding]:
    """Whether the instance composes. It is code, which may hang or crash, so it is tried in a process of its own."""
    known = {(str(fault.path), fault.code) for fault in discover(layout.root).faults}
    command = [sys.executable, "-P", "-B", "-c", _COMPOSE, str(layout.root)]
    try:
        done = subprocess.run(
            command,
            cwd=layout.root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMPOSE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        yield _composition_failed(f"is not composed within {COMPOSE_TIMEOUT_S} s; does a plugin wait for something?")
        return
    if done.returncode != 0:
        last = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        yield _composition_failed(f"cannot be composed, status {done.returncode}: {last or 'it did not say why'}")
        return
    for path, code, message in decode(done.stdout):
        if (path, code) not in known:
            finding_id = "manifest.load_failed" if code == "MANIFEST_LOAD_FAILED" else "manifest.plugin_unusable"
            yield Finding(id=finding_id, severity="error", title=message, evidence={"path": path, "code": code})


def _composition_failed(what: str) -> Finding:
    return Finding(id="manifest.load_failed", severity="error", title=f"the instance {what}")


def _server(layout: InstanceLayout) -> Iterator[Finding]:
    if FileLock(layout.server_lock).is_held():
        return
    if layout.server_record.exists():
        title = "the server ended without cleaning up; its work goes on when it is started again"
        yield Finding(id="server.stale_run_file", severity="warning", title=title, fix="rawr up")
    else:
        yield Finding(id="server.not_running", severity="info", title="the server is not running", fix="rawr up")


def _port(layout: InstanceLayout) -> Iterator[Finding]:
    if FileLock(layout.server_lock).is_held():
        return
    try:
        server = load_config(layout.root, environ=os.environ).server
    except RawrError:
        return  # config.invalid says it
    with socket.socket() as probe:
        probe.settimeout(1)
        if server.port and probe.connect_ex((server.host, server.port)) == 0:
            holder = describe_listener(server.port)
            title = f"port {server.port} is taken by {holder or 'another program'}"
            fix = "rawr up --port 0, or set [server] port in rawr.toml"
            yield Finding(id="server.port_busy", severity="warning", title=title, fix=fix)


def _secrets(layout: InstanceLayout) -> Iterator[Finding]:
    if not layout.secrets.is_dir():
        return
    for path in (layout.secrets, *sorted(layout.secrets.iterdir())):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & 0o077 and path.suffix != ".lock":
            wanted = "700" if path.is_dir() else "600"
            title = f"{path} is open to other users (mode {mode:o})"
            yield Finding(id="secrets.exposed", severity="error", title=title, fix=f"chmod {wanted} {path}")


def _of(error: RawrError, finding_id: str) -> Finding:
    return Finding(id=finding_id, severity="error", title=error.message, evidence={"code": error.code}, fix=error.fix)


def _links(layout: InstanceLayout) -> Iterator[Finding]:
    """State that leads out of the instance would be shared with another one."""
    for path in (layout.data, layout.data / "state", layout.data / "state" / "state.json"):
        if path.exists() and not Path(os.path.realpath(path)).is_relative_to(layout.root):
            title = f"{path} leads out of the instance, to {os.path.realpath(path)}"
            yield Finding(id="state.not_instance_local", severity="error", title=title)


CHECKS: Final[dict[str, Check]] = {
    "python": _python,
    "tools": _tools,
    "disk": _disk,
    "writable": _writable,
    "links": _links,
    "identity": _identity,
    "config": _config,
    "state": _state,
    "state_files": _state_files,
    "databases": _databases,
    "manifests": _manifests,
    "composition": _composition,
    "server": _server,
    "port": _port,
    "secrets": _secrets,
}
"""Every check that needs nothing but the instance, by name, in the order in which they run."""
