"""The Inngest call protocol as an executor speaks it: the request of a call, and the meaning of its answer. Pure.

What comes back is parsed once into a typed outcome; an answer that is not provably from our SDK (no SDK header,
no or wrong signature) is an error, never a completed function.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from rawr.errors import RawrError
from rawr.execution import signing
from rawr.execution.embedded.envelope import Answer, unwrapped
from rawr.execution.embedded.fragment import Fragment, frame, joined, read_fragment
from rawr.execution.embedded.memory import Memory
from rawr.execution.embedded.outcomes import (
    CallFailed,
    DiscoveryWanted,
    EventAwaited,
    Failure,
    FunctionFinished,
    FunctionInvoked,
    FunctionReturned,
    Op,
    OpsAnswered,
    Outcome,
    Sleeping,
    StepErrored,
    StepInput,
    StepPlanned,
    StepRan,
    UnsupportedOp,
)
from rawr.ids import is_request_id
from rawr.wire import DEPTH_MAX, JsonValue, MalformedJsonError, decode, depth_within, encode_canonical

STEP_OUTPUT_MAX_BYTES: Final = 4 * 1024 * 1024
RUN_STATE_MAX_BYTES: Final = 32 * 1024 * 1024
CALL_STATE_MAX_BYTES: Final = 4 * 1024 * 1024 - 1024
"""What a run needs beyond this is not in its calls: the SDK fetches it (`use_api`)."""
STEP_INPUT_MAX_BYTES: Final = 256 * 1024
"""What a step was asked is kept for people, if it is not larger."""
RUN_STEPS_MAX: Final = 1000
EVENT_MAX_BYTES: Final = 512 * 1024
REQUEST_VERSION_OPEN: Final = -1
"""The app chooses the version of the protocol."""
REQUEST_VERSION_GROUPS: Final = 2
"""From this one on, apps know that they are asked only when all steps of a group have ended, unless it races."""
ROOT_STEP: Final = "step"
"""The step id of a call that discovers what comes next, instead of running a given step."""


class Opcode(StrEnum):
    STEP_RUN = "StepRun"
    STEP_ERROR = "StepError"
    STEP_FAILED = "StepFailed"
    STEP_PLANNED = "StepPlanned"
    SLEEP = "Sleep"
    WAIT_FOR_EVENT = "WaitForEvent"
    INVOKE_FUNCTION = "InvokeFunction"
    RUN_COMPLETE = "RunComplete"
    DISCOVERY_REQUEST = "DiscoveryRequest"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the request of one call is made of."""

    fn_id: str
    run_id: str
    job_id: str
    request_id: str
    step_id: str
    attempt: int
    max_attempts: int
    generation: int
    plan_steps: bool
    """Steps are to be planned, not run on sight: another call of the same run may be under way."""
    events: tuple[Fragment, ...]
    """What triggered the run: one event, or a batch."""
    memory: Memory
    """The steps that have finished; without their memos with `use_api`."""
    use_api: bool = False
    """Events and memos are too large for the request; the SDK fetches them."""
    url: str = ""
    """Where the function's app is."""
    request_version: int = REQUEST_VERSION_OPEN
    """The version of the protocol that the run goes by, which its first answer tells."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class Trust(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer must show, to be taken for that of an app of ours."""

    keys: tuple[str, ...] | None
    """It is signed with one of these; None if nobody signs."""
    now_s: int | None = None
    """It was signed around now; None if the way that it came by makes an old one impossible."""


def call_request(call: Call, *, key: str | None, t: int) -> Request:
    """The POST of a call, signed unless there is no key; `t` is in Unix seconds."""
    body = _call_body(call)
    headers = {
        **_signed_headers(body, key=key, t=t),
        "x-inngest-req-version": str(call.request_version),
        "x-inngest-job-id": call.job_id,
        "x-inngest-generation-id": str(call.generation),
        "x-inngest-step-id": call.step_id,
        "x-run-id": call.run_id,
        "x-request-id": call.request_id,
        "traceparent": traceparent(call.run_id, call.request_id),
        **_correlation(call.events[0]),
    }
    return Request(query={"fnId": call.fn_id, "stepId": call.step_id}, headers=headers, body=body.text)


class _EventData(msgspec.Struct, rename="camel"):
    correlation_id: str = ""


class _Event(msgspec.Struct):
    data: _EventData


def _correlation(event: Fragment) -> dict[str, str]:
    """The correlation id that the event of a run carries, for the log of its calls. It is evidence of nothing."""
    try:
        given = msgspec.json.decode(event.text, type=_Event).data.correlation_id
    except msgspec.ValidationError:
        return {}  # data of another shape, which is anybody's right
    return {"x-correlation-id": given} if is_request_id(given) else {}


def _call_body(call: Call) -> Fragment:
    """Keys are sorted here by hand, and what can be long is only put together: it grows with every step of the run."""
    ctx = {
        "attempt": call.attempt,
        "disable_immediate_execution": call.plan_steps,
        "env": "",
        "fn_id": call.fn_id,
        "generation_id": call.generation,
        "job_id": call.job_id,
        "max_attempts": call.max_attempts,
        "qi_id": call.job_id,
        "request_id": call.request_id,
        "run_id": call.run_id,
        "stack": {"current": call.memory.steps, "stack": msgspec.Raw(call.memory.stack().text)},
        "step_id": call.step_id,
        "use_api": call.use_api,
    }
    use_api = b"true" if call.use_api else b"false"
    between = [piece for event in call.events[1:] for piece in (b",", event)]
    return joined(
        b'{"ctx":' + encode_canonical(ctx),
        b',"event":',
        call.events[0],
        b',"events":[',
        *([] if call.use_api else [call.events[0], *between]),
        b'],"steps":',
        call.memory.memos(),
        b',"use_api":%b,"version":%d}' % (use_api, call.request_version),
    )


def traceparent(run_id: str, request_id: str) -> str:
    """W3C trace context of a call: all calls of a run are one trace, each call a span that the app's spans are under.

    It follows from the ids, so that whoever knows them finds the trace.
    """
    trace_id = hashlib.sha256(run_id.encode()).hexdigest()[:32]
    span_id = hashlib.sha256(request_id.encode()).hexdigest()[:16]
    return f"00-{trace_id}-{span_id}-01"


def sync_request(url: str, *, key: str | None, t: int) -> Request:
    """The PUT that asks for the functions of an app: in its answer, when it is signed; else it registers by itself."""
    body = frame({"url": url})
    if key is None:
        headers = {**_signed_headers(body, key=None, t=t), "x-inngest-server-kind": "dev"}
        return Request(query={}, headers=headers, body=body.text)
    headers = {
        **_signed_headers(body, key=key, t=t),
        "x-inngest-sync-kind": "in_band",
        "x-inngest-server-kind": "cloud",
    }
    return Request(query={}, headers=headers, body=body.text)


def parse_answer(answer: Answer, *, trust: Trust) -> Outcome:
    """What the answer to a call means. Never raises for what the other side sent."""
    answer = unwrapped(answer)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    doubt = _doubt(answer, headers, trust)
    if doubt is not None:
        return CallFailed(failure=Failure(name="AnswerRefused", message=doubt), retriable=True)
    no_retry = headers.get("x-inngest-no-retry") == "true"
    if answer.status not in (200, 206):
        return CallFailed(
            failure=_failure(answer.body, status=answer.status),
            retriable=not no_retry,
            retry_after=headers.get("retry-after"),
        )
    try:
        body = _read(answer.body)
        if answer.status == 200:
            return _finished(body)
        return _ops_answered(body, headers, no_retry=no_retry)
    except (RawrError, msgspec.ValidationError) as error:
        # It ran and answered; asking again would only run it again, with the same answer.
        return CallFailed(failure=Failure(name="AnswerInvalid", message=str(error)), retriable=False)


def parse_functions(answer: Answer, *, trust: Trust) -> dict[str, JsonValue]:
    """The app that an in-band sync answered.

    Raises:
        SyncRefusedError: it is not a proper answer, with the reason.
    """
    answer = unwrapped(answer)
    headers = {name.lower(): value for name, value in answer.headers.items()}
    doubt = _doubt(answer, headers, trust)
    if doubt is None and (answer.status != 200 or headers.get("x-inngest-sync-kind") != "in_band"):
        doubt = f"status {answer.status}: {answer.body[:200].decode(errors='replace')}"
    if doubt is not None:
        raise SyncRefusedError(f"the durable functions could not be registered: {doubt}")
    body = decode(answer.body)
    if not isinstance(body, dict):
        raise SyncRefusedError("the durable functions could not be registered: the answer is not an object")
    return body


class SyncRefusedError(RawrError):
    code = "ENGINE_SYNC_REFUSED"


def _request_version(headers: Mapping[str, str]) -> int | None:
    text = headers.get("x-inngest-req-version", "")
    return int(text) if text.isdecimal() and len(text) < 4 else None


def _signed_headers(body: Fragment, *, key: str | None, t: int) -> dict[str, str]:
    headers = {"content-type": "application/json", "user-agent": "rawr-engine"}
    return headers if key is None else {**headers, signing.HEADER: signing.sign_canonical(body.signed, key, t)}


def _doubt(answer: Answer, headers: Mapping[str, str], trust: Trust) -> str | None:
    """Why the answer cannot be trusted to come from our functions, or None."""
    if "x-inngest-sdk" not in headers:
        return f"the answer with status {answer.status} is not from the Inngest SDK"
    if trust.keys is None:
        return None
    try:
        signing.verify_response(answer.body, headers.get(signing.HEADER), trust.keys, now_s=trust.now_s)
    except signing.SignatureMismatchError as error:
        return error.message
    return None


class _WireError(msgspec.Struct, kw_only=True):
    name: str = "Error"
    message: str = ""
    stack: str | None = None
    error: Any = None


class _WireOp(msgspec.Struct, kw_only=True, rename="camel"):
    id: str
    op: str
    name: str | None = None
    display_name: str | None = None
    opts: dict[str, Any] | None = None
    data: Any = None
    error: _WireError | None = None


class _WirePayload(msgspec.Struct, kw_only=True):
    data: dict[str, Any] | None = None
    v: str | None = None


def _ops_answered(body: JsonValue, headers: Mapping[str, str], *, no_retry: bool) -> Outcome:
    version = _request_version(headers)
    races = version is not None and version < REQUEST_VERSION_GROUPS
    wires = msgspec.convert(body, list[_WireOp])
    wires.sort(key=lambda wire: wire.op == Opcode.RUN_COMPLETE)  # last: what was run before it is remembered first
    if wires and wires[-1].op == Opcode.RUN_COMPLETE and isinstance(refused := _finished(wires[-1].data), CallFailed):
        return refused
    return OpsAnswered(
        ops=tuple(_op(wire, no_retry=no_retry, races=races) for wire in wires),
        inputs=tuple(asked for wire in wires if (asked := _input(wire)) is not None),
        request_version=version,
    )


def _op(wire: _WireOp, *, no_retry: bool, races: bool) -> Op:
    name = wire.display_name or wire.name or wire.id
    opts = wire.opts or {}
    race = races or opts.get("parallelMode") == "race"
    match wire.op:
        case Opcode.STEP_RUN:
            return _step_ran(wire.id, name, wire.data)
        case Opcode.STEP_ERROR | Opcode.STEP_FAILED:
            failure = _readable(wire.error or _WireError())
            final = no_retry or wire.op == Opcode.STEP_FAILED
            return StepErrored(step_id=wire.id, name=name, failure=failure, final=final)
        case Opcode.STEP_PLANNED:
            return StepPlanned(step_id=wire.id, name=name, race=race)
        case Opcode.SLEEP:
            until = opts.get("duration") or wire.name or ""
            return Sleeping(step_id=wire.id, name=name, until=str(until), race=race)
        case Opcode.WAIT_FOR_EVENT:
            return EventAwaited(
                step_id=wire.id,
                name=name,
                event_name=wire.name or "",
                condition=msgspec.convert(opts.get("if"), str | None),
                timeout=msgspec.convert(opts.get("timeout"), str),
                race=race,
            )
        case Opcode.INVOKE_FUNCTION:
            payload = msgspec.convert(opts.get("payload"), _WirePayload)
            return FunctionInvoked(
                step_id=wire.id,
                name=name,
                fn_id=msgspec.convert(opts.get("function_id"), str),
                data=payload.data,
                version=payload.v,
                timeout=msgspec.convert(opts.get("timeout"), str | None),
                race=race,
            )
        case Opcode.RUN_COMPLETE:
            return FunctionReturned(output=read_fragment(wire.data))
        case Opcode.DISCOVERY_REQUEST:
            return DiscoveryWanted()
        case other:
            return UnsupportedOp(op=other, name=name)


def _input(wire: _WireOp) -> StepInput | None:
    """What the step was asked to do, where its name does not say it all."""
    opts = wire.opts or {}
    match wire.op:
        case Opcode.SLEEP:
            asked: JsonValue = {"until": opts.get("duration") or wire.name}
        case Opcode.WAIT_FOR_EVENT:
            asked = {"event": wire.name, **opts}
        case Opcode.INVOKE_FUNCTION:
            asked = opts
        case _:
            asked = opts.get("input")
    if not asked:
        return None
    try:
        text = read_fragment(asked)
    except signing.NotCanonicalError:
        return None
    return StepInput(step_id=wire.id, op=wire.op, input=text) if text.size_bytes <= STEP_INPUT_MAX_BYTES else None


def _step_ran(step_id: str, name: str, data: JsonValue) -> Op:
    memo = read_fragment({"data": data})
    if memo.size_bytes <= STEP_OUTPUT_MAX_BYTES:
        return StepRan(step_id=step_id, name=name, memo=memo)
    message = f"step {name!r} gave {memo.size_bytes} bytes; the limit is {STEP_OUTPUT_MAX_BYTES}"
    failure = Failure(name="StepOutputTooLarge", message=message)
    return StepErrored(step_id=step_id, name=name, failure=failure, final=True)


def _finished(body: JsonValue) -> Outcome:
    output = read_fragment(body)
    if output.size_bytes <= STEP_OUTPUT_MAX_BYTES:
        return FunctionFinished(output=output)
    message = f"the function returned {output.size_bytes} bytes; the limit is {STEP_OUTPUT_MAX_BYTES}"
    return CallFailed(failure=Failure(name="OutputTooLarge", message=message), retriable=False)


def _failure(raw: bytes, *, status: int) -> Failure:
    """What the body says, in any of the forms that SDKs and what stands before them use."""
    try:
        body = _read(raw)
        error = _WireError(message=body) if isinstance(body, str) else msgspec.convert(body, _WireError)
    except (RawrError, msgspec.ValidationError):
        error = _WireError(name="UnexpectedAnswer", message=f"status {status} without an error body")
    if not error.message and isinstance(error.error, str):
        error = _WireError(name=error.name, message=error.error, stack=error.stack)
    return _readable(error)


def _readable(error: _WireError) -> Failure:
    """Error texts may quote file names that are not UTF-8; they are kept escaped."""

    def escaped(text: str) -> str:
        return text.encode(errors="backslashreplace").decode()

    stack = None if error.stack is None else escaped(error.stack)
    return Failure(name=escaped(error.name), message=escaped(error.message), stack=stack)


def _read(body: bytes) -> JsonValue:
    """The JSON of an answer. Lone surrogates are let in for the sake of error texts; nothing else keeps them."""
    try:
        return decode(body)
    except MalformedJsonError:
        try:
            value = json.loads(body)
        except (ValueError, RecursionError):
            value = None
        if value is None or not depth_within(value, DEPTH_MAX):
            raise
        return value
