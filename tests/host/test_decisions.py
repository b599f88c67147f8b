"""Each request is decided once, by one function, and nothing is done for a request that was not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
from tests.host.access_lines import into

from rawr.host.app import Router, mounts
from rawr.host.authority import AUTHORIZATION, NotAdmittedError, admitted
from rawr.host.guard import Guard
from rawr.procedures.markers import Dedupe, MarkerMissingError, Marks
from rawr.security.policy import Caller, CallerClass, Decision, Family, PrincipalKind, Unproven

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.host.conftest import Ask, Hosted

    from rawr.host.request import Request
    from rawr.host.responses import Response

ORIGIN = "http://127.0.0.1:3000"
LIST = b'{"json":{}}'
ITEM = {"url": f"{ORIGIN}/rpc/coordination/listWorkflows", "body": {"json": {}}}


class Row(NamedTuple):
    family: str
    method: str
    target: str
    body: bytes
    decisions: int


ROWS = [
    Row("rpc", "POST", "/rpc/coordination/listWorkflows", LIST, 1),
    Row("rpc", "GET", "/rpc/state/getRuntimeState", b"", 1),
    Row("rpc", "POST", "/rpc/nothing", LIST, 1),
    Row("orpc", "GET", "/api/orpc/coordination/workflows", b"", 1),
    Row("orpc", "GET", "/api/orpc/openapi.json", b"", 1),
    Row("orpc", "GET", "/api/orpc/nothing", b"", 1),
    Row("workflows", "GET", "/api/workflows/coordination/workflows", b"", 1),
    Row("workflows", "GET", "/api/workflows/openapi.json", b"", 1),
    Row("ingress", "POST", "/api/inngest", b"{}", 1),
    Row("console", "GET", "/console/", b"", 1),
    Row("console", "GET", "/console/nothing", b"", 1),
    Row("open", "GET", "/console/login", b"", 0),
    Row("open", "GET", "/console/assets/login.js", b"", 0),
    Row("open", "GET", "/health", b"", 0),
    Row("open", "GET", "/ready", b"", 0),
    Row("open", "GET", "/rawr/plugins/web/mfe-demo", b"", 0),
    Row("open", "GET", "/elsewhere", b"", 0),
]


def session(hosted: Hosted) -> dict[str, str]:
    return {
        "cookie": f"rawr_session_3000={hosted.credentials.ring.sessions.open().secret}",
        "origin": ORIGIN,
        "content-type": "application/json",
    }


def service(hosted: Hosted, *scopes: str, caller_class: CallerClass = CallerClass.TRUSTED_SERVICE) -> dict[str, str]:
    made = hosted.credentials.tokens.create("service", scopes or ["rpc:*"], caller_class=caller_class)
    return {"authorization": f"Bearer {made.token}"}


CALLERS: dict[str, Callable[[Hosted], dict[str, str]]] = {
    "nobody": lambda hosted: {},
    "a wrong key": lambda hosted: {"authorization": "Bearer wrong"},
    "the CLI": lambda hosted: hosted.bearer(),
    "a session": session,
    "a service": service,
    "an API key": lambda hosted: hosted.bearer("orpc:*", "workflows:*"),
    "the engine": lambda hosted: hosted.signed(b"{}"),
}


@pytest.mark.parametrize("caller", sorted(CALLERS))
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.target}")
def test_a_request_is_decided_once(hosted: Hosted, ask: Ask, caller: str, row: Row) -> None:
    ask(hosted.app, row.method, row.target, headers=CALLERS[caller](hosted), body=row.body)
    assert [decision.family.value for decision in hosted.decisions] == [row.family] * row.decisions


@pytest.mark.parametrize("mode", ["buffered", "streaming"])
def test_the_calls_of_a_batch_are_not_decided_again_and_change_no_caller(hosted: Hosted, ask: Ask, mode: str) -> None:
    """Their headers are those of other callers, right ones among them."""
    others = [service(hosted), hosted.bearer("orpc:*"), session(hosted), {"x-rawr-caller-surface": "cli"}]
    items = [{**ITEM, "headers": headers} for headers in others]
    for given, statuses in ((service(hosted, "rpc:state"), [403] * 4), (hosted.bearer(), [200] * 4)):
        hosted.decisions.clear()
        headers = {**given, "x-orpc-batch": mode}
        answer = ask(hosted.app, "POST", "/rpc/__batch__", headers=headers, body=json.dumps(items).encode())
        lines = answer.json if mode == "buffered" else _messages(answer.text)
        assert [line["status"] for line in lines] == statuses
        assert len(hosted.decisions) == 1
    assert hosted.decisions[0].caller == _caller(CallerClass.CLI, PrincipalKind.PERSON, "rpc:*")


def test_a_service_key_opens_the_namespaces_of_its_scopes(hosted: Hosted, ask: Ask) -> None:
    headers = service(hosted, "rpc:state")
    assert ask(hosted.app, "POST", "/rpc/state/getRuntimeState", headers=headers, body=LIST).status == 200
    refused = ask(hosted.app, "POST", "/rpc/coordination/listWorkflows", headers=headers, body=LIST)
    assert (refused.status, refused.json["json"]["code"]) == (403, "FORBIDDEN")
    assert "rpc:coordination" in refused.json["json"]["message"]
    followed = ask(hosted.app, "POST", "/rpc/coordination/watchRun", headers=headers, body=b'{"json":{"runId":"r"}}')
    assert followed.status == 403


@pytest.mark.parametrize("caller_class", [CallerClass.INTERNAL, CallerClass.TRUSTED_SERVICE])
def test_a_service_is_known_by_its_class(hosted: Hosted, ask: Ask, caller_class: CallerClass) -> None:
    headers = service(hosted, caller_class=caller_class)
    assert ask(hosted.app, "POST", "/rpc/coordination/listWorkflows", headers=headers, body=LIST).status == 200
    assert hosted.lines[-1]["caller"] == caller_class.value


def test_what_is_dispatched_without_a_decision_fails(hosted: Hosted, ask: Ask) -> None:
    """Families that a broken authority lets through: the request has no mark, so nothing is done for it."""

    class Forgetful:
        async def decision(self, request: Request, family: Family) -> Decision:
            return Decision(family=family, verdict=_ADMITTED.verdict, caller=_ADMITTED.caller)

    parts = hosted.parts()
    broken = msgspec.structs.replace(parts.families, authority=Forgetful())
    parts = msgspec.structs.replace(parts, families=broken)
    app = _app(hosted, Router(mounts(hosted.manifest(), hosted.settings, parts)))
    for method, target, body in (
        ("POST", "/rpc/coordination/listWorkflows", LIST),
        ("GET", "/api/orpc/coordination/workflows", b""),
        ("GET", "/api/workflows/coordination/workflows", b""),
    ):
        assert ask(app, method, target, body=body).status == 500


@pytest.mark.parametrize(
    "found",
    [
        Unproven(reason="nothing"),
        Caller(caller_class=CallerClass.EXTERNAL, principal=PrincipalKind.SERVICE),
    ],
)
def test_nothing_goes_on_for_a_request_that_was_refused(hosted: Hosted, ask: Ask, found: Caller | Unproven) -> None:
    """A family that forgets to look at its decision is stopped at the next step."""

    async def answer(request: Request) -> Response:
        hosted.authority.decide(request, Family.RPC, found)
        with pytest.raises(NotAdmittedError):
            admitted(request)
        return await Router(())(request)

    assert ask(_app(hosted, answer), "GET", "/").status == 404


def test_parts_of_one_request_share_its_decision_and_two_requests_never_do(hosted: Hosted, ask: Ask) -> None:
    seen: list[tuple[Decision, Decision]] = []

    async def answer(request: Request) -> Response:
        first = hosted.authority.decide(request, Family.RPC, _caller(CallerClass.CLI, PrincipalKind.PERSON, "rpc:*"))
        again = hosted.authority.decide(request, Family.RPC, Unproven(reason="another part has another opinion"))
        seen.append((first, again))
        assert admitted(request) is first.caller
        return await Router(())(request)

    for _ in range(2):
        ask(_app(hosted, answer), "GET", "/")
    assert [first is again for first, again in seen] == [True, True]
    assert len(hosted.decisions) == 2


def test_a_mark_is_made_once_and_its_lack_is_a_fault() -> None:
    marker, made, marks = Dedupe[int](key="heavy"), list[int](), Marks()

    def make() -> int:
        made.append(len(made))
        return 7

    assert marks.find(marker) is None
    with pytest.raises(MarkerMissingError, match="heavy"):
        marks.require(marker)
    assert [marks.once(marker, make), marks.once(Dedupe[int](key="heavy"), make), marks.require(marker)] == [7, 7, 7]
    assert made == [0]
    assert AUTHORIZATION.key == "rpc.authorization.decision"


def _app(hosted: Hosted, answer: Callable[[Request], Any]) -> Guard:
    return Guard(answer, hosted.settings, clock=hosted.clock, access_log=into(hosted.lines))


def _caller(caller_class: CallerClass, principal: PrincipalKind, *scopes: Any) -> Caller:
    return Caller(caller_class=caller_class, principal=principal, scopes=scopes)


def _messages(text: str) -> list[dict[str, Any]]:
    frames = [frame for frame in text.split("\n\n") if frame.startswith("event: message")]
    return [json.loads(frame.partition("data: ")[2]) for frame in frames]


_ADMITTED = msgspec.json.decode(
    b'{"family":"rpc","verdict":"admitted","caller":{"caller_class":"cli","principal":"person","scopes":["rpc:*",'
    b'"orpc:*","workflows:*"]}}',
    type=Decision,
)
