"""Gate `boundaries`: every kind of caller at every family of a host that is really open, in a scratch folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from rawr.clock import SystemClock
from rawr.execution.signing import sign
from rawr.gates.asgi import Application, ask
from rawr.gates.model import GateFinding, Inspection
from rawr.host.runtime import open_host
from rawr.host.settings import HostSettings, Limits
from rawr.hq import Manifest
from rawr.ids import InstanceId
from rawr.security.credentials import SecretsFolder, TokenStore
from rawr.security.policy import CallerClass

HOST: Final = {"host": "127.0.0.1"}
RPC: Final = "/rpc/coordination/listWorkflows"
ORPC: Final = "/api/orpc/coordination/workflows"
WORKFLOWS: Final = "/api/workflows/coordination/workflows"
INGRESS: Final = "/api/inngest"
FAMILIES: Final = (RPC, ORPC, WORKFLOWS, INGRESS)
CALLERS_MIN: Final = 6
"""Nobody, claims, a wrong key, the CLI's key, a service key, an API key."""
REFUSED: Final = frozenset({401, 403})
CLAIMS: Final = {
    "x-rawr-caller-surface": "cli",
    "x-rawr-cli-auth": "1",
    "x-rawr-session-auth": "verified",
    "x-rawr-service-auth": "trusted",
    "x-forwarded-host": "localhost",
}


class Keys(msgspec.Struct, frozen=True, kw_only=True):
    cli: str
    engine: str
    orpc: str
    workflows: str
    service: str
    narrow_service: str


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    caller: str
    method: str
    target: str
    headers: Mapping[str, str]
    expected: frozenset[int]
    body: bytes = b""
    on_miss: str = ""
    """The code of a miss, when it is not told by which side it is on."""


async def check(manifest: Manifest, scratch: Path) -> Inspection:
    settings = HostSettings(limits=Limits(drain_s=1))
    async with open_host(scratch, InstanceId("gate"), manifest, settings) as host:
        return await inspect(host.app, keys_of(scratch))


def keys_of(root: Path) -> Keys:
    secrets = SecretsFolder(root / ".rawr" / "secrets")
    tokens = TokenStore(secrets.tokens_path(), SystemClock())
    return Keys(
        cli=secrets.cli_key(),
        engine=secrets.engine_key(),
        orpc=tokens.create("gate", ["orpc:*"]).token,
        workflows=tokens.create("gate", ["workflows:coordination"]).token,
        service=tokens.create("gate", ["rpc:*"], caller_class=CallerClass.TRUSTED_SERVICE).token,
        narrow_service=tokens.create("gate", ["rpc:state"], caller_class=CallerClass.INTERNAL).token,
    )


async def inspect(app: Application, keys: Keys) -> Inspection:
    findings = []
    probes = list(all_probes(keys, now_s=SystemClock().now_ms() // 1000))
    for probe in probes:
        answer = await ask(app, probe.method, probe.target, headers={**HOST, **probe.headers}, body=probe.body)
        if answer.status not in probe.expected:
            findings.append(_missed(probe, answer.status))
    return Inspection(inspected=len(probes), floor=len(FAMILIES) * CALLERS_MIN, findings=tuple(findings))


def all_probes(keys: Keys, *, now_s: int) -> Iterator[Probe]:
    """Every caller at every family; then paths that no family may serve; then forged signatures."""
    rows: tuple[tuple[str, Mapping[str, str], frozenset[str]], ...] = (
        ("nobody", {}, frozenset()),
        ("claims", CLAIMS, frozenset()),
        ("a wrong key", _bearer("0" * 64), frozenset()),
        ("the CLI's key", _bearer(keys.cli), frozenset({RPC})),
        ("the CLI's key, labelled external", {**_bearer(keys.cli), "x-rawr-caller-surface": "external"}, frozenset()),
        ("a service key", _bearer(keys.service), frozenset({RPC})),
        ("a service key for another namespace", _bearer(keys.narrow_service), frozenset()),
        ("an API key for orpc", _bearer(keys.orpc), frozenset({ORPC})),
        ("an API key for workflows", _bearer(keys.workflows), frozenset({WORKFLOWS})),
    )
    for caller, headers, welcome in rows:
        for family in FAMILIES:
            method, body = ("POST", b'{"json":{}}') if family in (RPC, INGRESS) else ("GET", b"")
            expected = frozenset({200}) if family in welcome else REFUSED
            given = {**headers, "content-type": "application/json"} if body else headers
            yield Probe(caller=caller, method=method, target=family, headers=given, expected=expected, body=body)
    yield from _no_such_routes(keys)
    yield from _forged(keys, now_s)
    other_host = {**_bearer(keys.cli), "host": "elsewhere.example"}
    yield Probe(caller="another host name", method="POST", target=RPC, headers=other_host, expected=frozenset({421}))


def _no_such_routes(keys: Keys) -> Iterator[Probe]:
    for target, key in (
        ("/rpc/workflows/coordination/listWorkflows", keys.cli),
        ("/api/workflows/state/runtime", keys.workflows),
        ("/api/workflows/unknown/workflows", keys.workflows),
    ):
        yield Probe(
            caller="a welcome caller",
            method="POST" if target.startswith("/rpc") else "GET",
            target=target,
            headers={**_bearer(key), "content-type": "application/json"},
            expected=frozenset({404}),
            body=b'{"json":{}}',
            on_miss="ROUTE_UNEXPECTED",
        )


def _forged(keys: Keys, now_s: int) -> Iterator[Probe]:
    body = b'{"url":"http://127.0.0.1/api/inngest"}'
    in_band = {"x-inngest-sync-kind": "in_band", "content-type": "application/json"}
    for caller, key, t, expected in (
        ("the engine", keys.engine, now_s, frozenset({200})),
        ("a signature of another key", "0" * 64, now_s, REFUSED),
        ("an old signature", keys.engine, now_s - 600, REFUSED),
        ("a signature from the future", keys.engine, now_s + 600, REFUSED),
    ):
        headers = {**in_band, "x-inngest-signature": sign(body, key, t)}
        yield Probe(caller=caller, method="PUT", target=INGRESS, headers=headers, expected=expected, body=body)


def _bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def _missed(probe: Probe, status: int) -> GateFinding:
    wanted = " or ".join(str(code) for code in sorted(probe.expected))
    code = probe.on_miss or ("FAMILY_SHUT" if 200 in probe.expected else "FAMILY_OPEN")
    message = f"{probe.caller} got {status} from {probe.method} {probe.target}, {wanted} is right"
    return GateFinding(code=code, message=message, place=probe.target)
