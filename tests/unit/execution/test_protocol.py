"""Times, answers and settings, without any engine around them."""

from __future__ import annotations

import pytest

from rawr.execution import signing
from rawr.execution.embedded import protocol
from rawr.execution.embedded.durations import inngest_backoff, retry_after_ms, wait_until_ms
from rawr.execution.embedded.outcomes import CallFailed, FunctionFinished, OpsAnswered, StepErrored, UnsupportedOp
from rawr.execution.embedded.protocol import Trust, parse_answer
from rawr.execution.ports import IngressResponse
from rawr.wire import encode

KEY = "0f" * 32
NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def answer(status: int, body: bytes, **headers: str) -> IngressResponse:
    signature = f"t=1&s={signing.mac_of_canonical(body, KEY, 1)}"
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return IngressResponse(
        status=status, headers={"X-Inngest-SDK": "inngest-py", "X-Inngest-Signature": signature, **more}, body=body
    )


@pytest.mark.parametrize(
    ("text", "due_ms"),
    [
        ("10s", NOW_MS + 10_000),
        ("1h30m", NOW_MS + 5_400_000),
        ("1.5s", NOW_MS + 1_500),
        ("250ms", NOW_MS + 250),
        ("2w", NOW_MS + 14 * 86_400_000),
        ("2026-01-01T00:00:10.500Z", NOW_MS + 10_500),
        ("2025-01-01T00:00:00Z", 1_735_689_600_000),
        ("2026-01-01T00:00:10", None),
        ("10", None),
        ("10x", None),
        ("", None),
        ("53w", None),
        ("2030-01-01T00:00:00Z", None),
    ],
)
def test_a_sleep_ends_at_an_iso_time_or_after_a_duration_within_a_year(text: str, due_ms: int | None) -> None:
    assert wait_until_ms(text, now_ms=NOW_MS) == due_ms


@pytest.mark.parametrize(
    ("text", "after_ms"),
    [("5", 5000), ("0", 1000), ("9999999", 86_400_000), ("2026-01-01T00:01:00.000Z", 60_000), ("soon", None)],
)
def test_retry_after_is_seconds_or_a_time(text: str, after_ms: int | None) -> None:
    due_ms = retry_after_ms(text, now_ms=NOW_MS)
    assert due_ms == (None if after_ms is None else NOW_MS + after_ms)


def test_waiting_times_are_those_of_inngest() -> None:
    backoff = inngest_backoff(lambda: 7)
    waits = [backoff(attempt) for attempt in range(12)]
    assert waits[:3] == [15_007, 30_007, 60_007]
    assert waits[9:] == [7_200_007] * 3


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"a":1}', b'[{"id":1,"op":"StepRun"}]', b"[" * 100 + b"]" * 100])
def test_an_answer_of_steps_that_makes_no_sense_is_a_final_failure(body: bytes) -> None:
    outcome = parse_answer(answer(206, body), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, CallFailed)
    assert not outcome.retriable
    assert outcome.failure.name == "AnswerInvalid"


@pytest.mark.parametrize("status", [201, 302, 400, 401, 404, 500, 503])
def test_every_other_status_is_a_failed_call_that_is_tried_again(status: int) -> None:
    outcome = parse_answer(answer(status, b'{"name":"E","message":"m"}', retry_after="7"), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, CallFailed)
    assert (outcome.retriable, outcome.retry_after, outcome.failure.message) == (True, "7", "m")


def test_an_error_body_that_is_no_error_is_named_by_its_status() -> None:
    outcome = parse_answer(answer(500, b"[1]"), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, CallFailed)
    assert outcome.failure.message == "status 500 without an error body"


def test_no_retry_makes_a_step_error_final() -> None:
    ops = encode([{"id": "x", "op": "StepError", "error": {"name": "E", "message": "m"}}])
    outcome = parse_answer(answer(206, ops, x_inngest_no_retry="true"), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, OpsAnswered)
    (op,) = outcome.ops
    assert isinstance(op, StepErrored)
    assert op.final


@pytest.mark.parametrize("op", ["AIGateway", "WaitForSignal", "Nonsense"])
def test_an_unknown_operation_keeps_its_name(op: str) -> None:
    outcome = parse_answer(answer(206, encode([{"id": "x", "op": op, "name": "n"}])), trust=Trust(keys=(KEY,)))
    assert outcome == OpsAnswered(ops=(UnsupportedOp(op=op, name="n"),))


def test_a_result_over_the_limit_fails_the_run_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STEP_OUTPUT_MAX_BYTES", 10)
    assert isinstance(parse_answer(answer(200, b'"12345678"'), trust=Trust(keys=(KEY,))), FunctionFinished)
    outcome = parse_answer(answer(200, b'"123456789"'), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, CallFailed)
    assert not outcome.retriable


def test_an_error_text_that_is_not_utf8_is_kept_escaped_and_retried() -> None:
    body = rb'{"name":"OSError","message":"no \udcff","stack":"at \udcff"}'
    outcome = parse_answer(answer(500, body), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, CallFailed)
    assert outcome.retriable
    assert (outcome.failure.message, outcome.failure.stack) == ("no \\udcff", "at \\udcff")
    ops = rb'[{"id":"x","op":"StepError","error":{"name":"E","message":"\udcff"}}]'
    outcome = parse_answer(answer(206, ops), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, OpsAnswered)
    assert isinstance(outcome.ops[0], StepErrored)


@pytest.mark.parametrize("data", ['"\\ud800"', "NaN", "1e999", "{}" + "]"])
def test_data_that_could_not_be_sent_back_is_a_final_failure(data: str) -> None:
    body = f'[{{"id":"x","op":"StepRun","data":{data}}}]'.encode()
    outcome = parse_answer(answer(206, body), trust=Trust(keys=(KEY,)))
    assert isinstance(outcome, CallFailed)
    assert not outcome.retriable
