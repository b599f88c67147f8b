"""What the TypeScript HQ answered, byte for byte, wherever that was right.

The data are requests to that server and its answers. Its evidence of who is calling (claims in headers) is
replaced by real credentials; times and generated ids are made equal; everything else must match, except what
`DIFFERENCES` lists with the reason.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, Hosted


class Recorded(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    group: str
    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    status: int
    content_type: str | None
    answer: str


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    answer: str
    reason: str
    content_type: str | None = None


RECORDED: Final = msgspec.json.decode(
    (Path(__file__).parent / "data" / "recorded_answers.json").read_bytes(), type=list[Recorded]
)

BASE: Final = "http://localhost:3901"

MALFORMED: Final = (
    '"defined":false,"code":"BAD_REQUEST","status":400,"message":"Malformed request. Ensure the request body is '
    "properly formatted and the 'Content-Type' header is set correctly.\""
)
NO_DOTS: Final = "routes are matched on the path as it came; dot segments are not resolved for anybody"
HEALTH: Final = '{"ok":true,"instanceId":"inst-test"}'
INVALID_DOTS: Final = (
    '{"defined":false,"code":"INVALID_WORKFLOW_ID","status":400,"message":"Invalid workflowId format",'
    '"data":{"workflowId":".."}}'
)
BATCH: Final = (
    ': \n\nevent: message\ndata: {"index":0,"status":200,"body":{"json":{"workflows":[]}}}\n\n'
    'event: message\ndata: {"index":1,"status":200,"body":{"json":{"state":{"version":1,"plugins":{"enabled":[],'
    '"lastUpdatedAt":"<time>"}}}}}\n\n'
)

DIFFERENCES: Final[dict[tuple[str, str], Difference]] = {
    ("host", "GET /health"): Difference(status=200, answer=HEALTH, reason="health names the instance"),
    ("host", "health trailing slash"): Difference(status=200, answer=HEALTH, reason="health names the instance"),
    ("rpc auth", "host untrusted"): Difference(
        status=421, answer="misdirected request", reason="a foreign Host never reaches a family"
    ),
    ("rpc auth", "host untrusted, forwarded-host localhost"): Difference(
        status=421, answer="misdirected request", reason="anybody can send a forwarded host: it is not looked at"
    ),
    ("rpc protocol", "meta undefined"): Difference(
        status=400, answer=f'{{"json":{{{MALFORMED}}}}}', reason="a tag for undefined must stand on null"
    ),
    ("rpc protocol", "batch header (no batch plugin in original)"): Difference(
        status=207,
        answer=BATCH,
        reason="batches are spoken: the client makes one request of several calls",
        content_type="text/event-stream",
    ),
    ("rpc protocol", "path /rpc/coordination/../state/getRuntimeState"): Difference(
        status=404, answer="not found", reason=NO_DOTS
    ),
    ("rpc procedures", "queueRun runId of other workflow"): Difference(
        status=409,
        answer='{"json":{"defined":false,"code":"RUN_ID_CONFLICT","status":409,"message":"*","data":"*"}}',
        reason="the original overwrites the other workflow's run as failed",
    ),
    ("openapi", "get segment .."): Difference(status=400, answer=INVALID_DOTS, reason=NO_DOTS),
    ("openapi", "dot segments in raw path"): Difference(status=404, answer="not found", reason=NO_DOTS),
    ("workflows", "get segment .."): Difference(status=400, answer=INVALID_DOTS, reason=NO_DOTS),
    ("workflows", "dot segments in raw path"): Difference(status=404, answer="not found", reason=NO_DOTS),
}

IN_ANY_KEY_ORDER: Final = (
    ("rpc procedures", "save second"),
    ("openapi", "list"),
    ("workflows", "list"),
)
"""Workflows whose optional keys the caller put last: we answer in the contract's order, not in the caller's."""

WORLD: Final[dict[str, tuple[str, ...]]] = {
    "openapi": ("rpc procedures",),
    "workflows": ("rpc procedures", "openapi"),
}
"""What was asked before, on the server that the answers of a group come from."""

NEEDS_WORKFLOW: Final = ("rpc procedures", "openapi", "workflows")


@pytest.mark.parametrize(
    "group", ["host", "rpc auth", "rpc protocol", "rpc procedures", "openapi", "workflows", "inngest"]
)
def test_recorded_answers_come_back(hosted: Hosted, ask: Ask, group: str) -> None:
    if group in NEEDS_WORKFLOW:
        prepare_first_workflow(hosted, ask)
    for before in WORLD.get(group, ()):
        for case in cases(before):
            replay(hosted, ask, case)
    wrong = []
    for case in cases(group):
        answer = replay(hosted, ask, case)
        if seen(answer, case) != expected(case):
            wrong.append(f"{case.name}\n  expected {expected(case)}\n  got      {seen(answer, case)}")
    assert not wrong, "\n".join(wrong)


def test_every_difference_is_about_a_recorded_answer() -> None:
    assert set(DIFFERENCES) <= {(case.group, case.name) for case in RECORDED}


def cases(group: str) -> list[Recorded]:
    return [case for case in RECORDED if case.group == group]


def replay(hosted: Hosted, ask: Ask, case: Recorded) -> Answer:
    headers = dict(case.headers)
    host = headers.pop("Host", "127.0.0.1:3901")
    return ask(
        hosted.app,
        case.method,
        case.path,
        headers={**headers, **evidence(hosted, case)},
        body=(case.body or "").encode(),
        host=host,
    )


def evidence(hosted: Hosted, case: Recorded) -> dict[str, str]:
    """The credential that stands for what the original took as one. Where it saw none, there is none."""
    if case.path.startswith("/rpc") and case.status != 403:
        return hosted.bearer()
    if case.path.startswith(("/api/orpc", "/api/workflows")):
        return hosted.bearer("orpc:*", "workflows:*")
    return {}


def expected(case: Recorded) -> tuple[int, str | None, str]:
    difference = DIFFERENCES.get((case.group, case.name))
    if difference is None:
        return case.status, content_type(case, case.content_type), normalized(ordered(case, case.answer))
    guessed = "application/json" if difference.answer.startswith("{") else "text/plain;charset=utf-8"
    given = difference.content_type or guessed
    return difference.status, content_type(case, given), normalized(difference.answer)


def seen(answer: Answer, case: Recorded) -> tuple[int, str | None, str]:
    text = ordered(case, answer.text)
    difference = DIFFERENCES.get((case.group, case.name))
    if difference is not None and '"*"' in difference.answer:
        text = wildcarded(text)
    return answer.status, content_type(case, answer.content_type), normalized(text)


def content_type(case: Recorded, given: str | None) -> str | None:
    """Refusals of HEAD had none in the original; ours have that of GET, as HTTP has it."""
    return None if case.method == "HEAD" else given


def ordered(case: Recorded, text: str) -> str:
    if (case.group, case.name) in IN_ANY_KEY_ORDER:
        return json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"))
    return text


def normalized(text: str) -> str:
    """Times, generated ids and what only a real Inngest server has, made equal."""
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "<time>", text)
    text = re.sub(r"run-\d{13}-[0-9a-z]{8}", "<run>", text)
    text = re.sub(r'"eventIds":\["[^"]+"\]', '"eventIds":["<event>"]', text)
    text = re.sub(r',"finalization":\{"contract":\{[^{}]*\}\}', "", text)  # an addition since the recording
    # The page of the run on an Inngest server; there is none with the embedded engine.
    return re.sub(r',\{"provider":"inngest","label":"[^"]*","url":"[^"]*"\}', "", text)


def wildcarded(text: str) -> str:
    body = json.loads(text)
    error = body.get("json", body)
    return json.dumps({"json": {**error, "message": "*", "data": "*"}}, separators=(",", ":"))


def prepare_first_workflow(hosted: Hosted, ask: Ask) -> None:
    """The workflow and the run that were there before the recording of the procedures began."""
    saved = rpc(hosted, ask, "saveWorkflow", {"workflow": FIRST_WORKFLOW})
    queued = rpc(hosted, ask, "queueRun", {"workflowId": "wf-a", "runId": "run-1", "input": {"k": [1, None, "x"]}})
    assert (saved.status, queued.status) == (200, 200)


def rpc(hosted: Hosted, ask: Ask, name: str, given: dict[str, Any]) -> Answer:
    body = json.dumps({"json": given}).encode()
    return ask(hosted.app, "POST", f"/rpc/coordination/{name}", headers=hosted.bearer(), body=body)


def _desk(number: int) -> dict[str, Any]:
    return {
        "deskId": f"desk-{number}",
        "kind": "desk:analysis",
        "name": f"Desk {number}",
        "responsibility": "do it",
        "domain": "ops",
        "inputSchema": {"type": "object"},
        "outputSchema": {"type": "object"},
        "memoryScope": {"persist": False},
    }


FIRST_WORKFLOW: Final[dict[str, Any]] = {
    "workflowId": "wf-a",
    "version": 1,
    "name": "Workflow wf-a",
    "entryDeskId": "desk-0",
    "desks": [_desk(0), _desk(1)],
    "handoffs": [{"handoffId": "h-0", "fromDeskId": "desk-0", "toDeskId": "desk-1"}],
}
