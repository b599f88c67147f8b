"""What could be wrong with the engine of an instance: its keys, the way to it and back, and work that is left behind.

With the embedded engine there are its file to be looked at, and runs that are held.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from rawr.errors import RawrError
from rawr.execution.embedded.damage import damage_of
from rawr.execution.pending import EngineNotDrainedError, check_drained, held_runs
from rawr.execution.signing import api_token
from rawr.instance.doctor import Check, Finding
from rawr.instance.layout import InstanceLayout
from rawr.security.inngest_keys import InngestKeys, read_inngest_keys
from rawr.wire import iso_from_ms
from rawr.workspace.config import Config, load_config

ANSWER_TIMEOUT_S: Final = 5.0
KEY_DIGITS_MIN: Final = 32
HELD_SHOWN: Final = 20
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def _keys(layout: InstanceLayout) -> Iterator[Finding]:
    if _inngest_config(layout) is None:
        return
    try:
        keys = read_inngest_keys(layout.secrets, os.environ)
    except RawrError as error:
        yield _of(error, "engine.keys_unusable")
        return
    if len(keys.signing_key.rpartition("-")[2]) < KEY_DIGITS_MIN:
        title = f"the signing key has fewer than {KEY_DIGITS_MIN} digits: whoever guesses it can run our functions"
        yield Finding(id="engine.signing_key_short", severity="warning", title=title, fix="openssl rand -hex 32")


def _server(layout: InstanceLayout) -> Iterator[Finding]:
    """Whether the Inngest server answers, and knows our key."""
    config = _inngest_config(layout)
    if config is None:
        return
    api_url = str(config.engine.base_url)
    for url in dict.fromkeys((api_url, config.engine.event_url or api_url)):
        if urlsplit(url).scheme == "http" and not _is_here(url):
            title = f"keys go to {url} unencrypted"
            yield Finding(
                id="engine.plain_http", severity="warning", title=title, fix="use https, or a private network"
            )
        status = _status(url, None)
        if isinstance(status, str):
            title = f"the Inngest server at {url} cannot be reached: {status}"
            fix = "start it, or correct base_url and event_url of [engine] in rawr.toml"
            yield Finding(id="engine.unreachable", severity="error", title=title, evidence={"url": url}, fix=fix)
        elif url == api_url:
            yield from _acceptance(layout, url)


def _acceptance(layout: InstanceLayout, api_url: str) -> Iterator[Finding]:
    try:
        keys = read_inngest_keys(layout.secrets, os.environ)
    except RawrError:
        return  # engine.keys_unusable says it
    statuses = [_status(f"{api_url.rstrip('/')}/v1/events?limit=1", key) for key in _signing_keys(keys)]
    if all(status in (401, 403) for status in statuses):
        title = f"the Inngest server at {api_url} does not accept our signing key"
        fix = "set INNGEST_SIGNING_KEY to the key that the server was started with"
        yield Finding(id="engine.key_refused", severity="error", title=title, evidence={"url": api_url}, fix=fix)


def _way_back(layout: InstanceLayout) -> Iterator[Finding]:
    """Whether the Inngest server can call us where we say that we are."""
    config = _inngest_config(layout)
    if config is None:
        return
    base_url = config.server.base_url or f"http://{config.server.host}"
    host = str(urlsplit(base_url).hostname)
    if _is_here(base_url):
        if not _is_here(str(config.engine.base_url)):
            title = f"the Inngest server at {config.engine.base_url} is told to call {host}, which is itself there"
            fix = "set [server] base_url to where it can reach this HQ"
            yield Finding(id="engine.no_way_back", severity="error", title=title, fix=fix)
    elif host not in {trusted.lower() for trusted in config.server.trusted_hosts}:
        title = f"calls to {base_url} will be refused: {host} is no trusted host"
        fix = f'add "{host}" to [server] trusted_hosts'
        yield Finding(id="engine.host_not_trusted", severity="error", title=title, fix=fix)


def _queue(layout: InstanceLayout) -> Iterator[Finding]:
    """Whether the embedded engine was left with work in it."""
    if _inngest_config(layout) is None:
        return
    try:
        check_drained(layout.engine_database)
    except EngineNotDrainedError as error:
        yield _of(error, "engine.not_drained")
    except RawrError as error:
        yield _of(error, "engine.queue_unreadable")


def _held(layout: InstanceLayout) -> Iterator[Finding]:
    """Runs of the embedded engine that wait for code that nobody has."""
    try:
        held = held_runs(layout.engine_database)
    except RawrError:
        return  # whoever opens the file says it
    for run in held[:HELD_SHOWN]:
        yield Finding(
            id="engine.run_held",
            severity="warning",
            title=f"run {run.name} waits: {run.reason}",
            evidence={"runId": run.run_id, "heldAt": iso_from_ms(run.held_at_ms)},
            fix=f"rawr engine accept-code {run.run_id}, or rawr engine rerun {run.run_id}",
        )
    if len(held) > HELD_SHOWN:
        title = f"{len(held) - HELD_SHOWN} more runs wait for code that nobody has"
        yield Finding(id="engine.runs_held", severity="warning", title=title, evidence={"count": len(held)})


def _file(layout: InstanceLayout) -> Iterator[Finding]:
    """Whether the embedded engine's file is sound. Reads all of it."""
    path = layout.engine_database
    if os.path.lexists(path) and (problem := damage_of(path)) is not None:
        evidence, fix = {"path": str(path)}, "rawr down, then rawr engine repair"
        yield Finding(id="engine.file_damaged", severity="error", title=problem, evidence=evidence, fix=fix)


CHECKS: Final[dict[str, Check]] = {
    "engine keys": _keys,
    "engine server": _server,
    "engine way back": _way_back,
    "engine queue": _queue,
    "engine held runs": _held,
    "engine file": _file,
}
"""Every check of the engine by name, in the order in which they run."""


def _inngest_config(layout: InstanceLayout) -> Config | None:
    """The configuration, when an Inngest server is the engine."""
    try:
        config = load_config(layout.root, environ=os.environ)
    except RawrError:
        return None  # config.invalid says it
    return config if config.engine.mode == "inngest" else None


def _signing_keys(keys: InngestKeys) -> list[str]:
    return [key for key in (keys.signing_key, keys.signing_key_fallback) if key is not None]


def _status(url: str, key: str | None) -> int | str:
    """The status that a GET is answered, or why there is no answer."""
    headers = {} if key is None else {"Authorization": f"Bearer {api_token(key)}"}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http or https, as the configuration checks
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=ANSWER_TIMEOUT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection is an answer, and our token goes nowhere else."""

    def redirect_request(self, *_: object) -> None:
        return None


def _is_here(url: str) -> bool:
    return urlsplit(url).hostname in _LOOPBACK


def _of(error: RawrError, finding_id: str) -> Finding:
    evidence = {**(error.details or {}), "code": error.code}
    return Finding(id=finding_id, severity="error", title=error.message, evidence=evidence, fix=error.fix)
