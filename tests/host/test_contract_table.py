"""Probes of every operation in every family, made from the contract table, so that none is left out."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from rawr.procedures.catalog import PROCEDURES, STREAMS
from rawr.procedures.contract import Operation
from rawr.procedures.operations import OPERATIONS, WATCH_RUN

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted

FAMILIES: dict[str, tuple[str, ...]] = {"orpc": ("coordination", "state"), "workflows": ("coordination",)}
"""The namespaces that each published family serves."""

each = pytest.mark.parametrize("known", OPERATIONS, ids=lambda known: str(known.rpc_path))


def body(value: object) -> bytes:
    return json.dumps({"json": value}).encode()


def published(hosted: Hosted, ask: Ask, family: str, known: Operation[Any, Any], *, key: bool, **extra: str) -> Answer:
    path = known.path.replace("{workflowId}", "wf").replace("{runId}", "r")
    query = "?" + "&".join(f"{name}={value}" for name, value in extra.items()) if extra else ""
    headers = hosted.bearer(f"{family}:*") if key else {}
    given = json.dumps(extra).encode() if known.method == "POST" else b""
    target = f"/api/{family}{path}{query if known.method == 'GET' else ''}"
    return ask(hosted.app, known.method, target, headers=headers, body=given)


def test_the_procedures_of_the_host_are_those_of_the_table() -> None:
    assert [known.rpc_path for known in PROCEDURES] == [known.rpc_path for known in OPERATIONS]
    assert [known.rpc_path for known in STREAMS] == [WATCH_RUN.rpc_path]


@pytest.mark.parametrize("known", [*OPERATIONS, WATCH_RUN], ids=lambda known: str(known.rpc_path))
def test_nobody_calls_it_on_rpc_without_the_key(hosted: Hosted, ask: Ask, known: Any) -> None:
    target = f"/rpc/{known.rpc_path}"
    external = {**hosted.bearer(), "x-rawr-caller-surface": "external"}
    for headers in ({}, {"x-rawr-cli-auth": "1"}, hosted.bearer("orpc:*", "workflows:*"), external):
        answer = ask(hosted.app, "POST", target, headers=headers, body=body({}))
        assert (answer.status, answer.text) == (403, "forbidden")
    below_workflows = ask(hosted.app, "POST", f"/rpc/workflows/{known.rpc_path}", headers=hosted.bearer())
    assert (below_workflows.status, below_workflows.text) == (404, "not found")


@each
def test_nobody_calls_it_on_a_published_family_without_a_key(hosted: Hosted, ask: Ask, known: Any) -> None:
    for family in FAMILIES:
        assert published(hosted, ask, family, known, key=False).status == 401


@each
def test_a_family_serves_it_or_does_not_know_it(hosted: Hosted, ask: Ask, known: Any) -> None:
    for family, namespaces in FAMILIES.items():
        is_known = published(hosted, ask, family, known, key=True).text != "not found"
        assert is_known is (known.namespace in namespaces)


@each
def test_get_calls_it_on_rpc_exactly_when_it_is_a_get(hosted: Hosted, ask: Ask, known: Any) -> None:
    answer = ask(hosted.app, "GET", f"/rpc/{known.rpc_path}?data=%7B%7D", headers=hosted.bearer())
    assert (answer.status == 405) is (known.method != "GET")


@each
def test_an_unknown_key_is_refused_everywhere_and_named_alike(hosted: Hosted, ask: Ask, known: Any) -> None:
    given = {**msgspec.json.decode(msgspec.json.encode(known.example.given)), "more": "1"}
    on_rpc = ask(hosted.app, "POST", f"/rpc/{known.rpc_path}", headers=hosted.bearer(), body=body(given))
    refusals = [on_rpc.json["json"]]
    refusals += [
        published(hosted, ask, family, known, key=True, more="1").json
        for family, namespaces in FAMILIES.items()
        if known.namespace in namespaces
    ]
    for refusal in refusals:
        assert (refusal["code"], refusal["message"]) == ("BAD_REQUEST", "Input validation failed")
        assert {"message": "must not have additional properties"} in refusal["data"]["issues"]


@each
def test_a_declared_error_is_one_of_the_declared_statuses(known: Any) -> None:
    assert all(400 <= error.status < 600 and error.meaning.endswith(".") for error in known.errors)
