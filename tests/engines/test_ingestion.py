"""Events as they come in Inngest's own form: partial acceptance, ids that follow from a seed, times to come."""

from __future__ import annotations

import base64
from typing import Any

import inngest
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ulid import ULID

from rawr.execution.embedded.ingestion import Seed, parse_events, parse_seed

NOW_MS = 1_767_225_600_000
SEED = f"{NOW_MS},{base64.b64encode(bytes(range(10))).decode()}"


def function(client: inngest.Inngest) -> Any:
    async def fn(ctx: inngest.Context) -> Any:
        return ctx.event.id

    return [client.create_function(fn_id="fn", trigger=inngest.TriggerEvent(event="go"))(fn)]


def test_events_before_a_bad_one_are_accepted_and_the_rest_is_not(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        got = await bench.engine.ingest([{"name": "go"}, {"name": ""}, {"name": "go"}], None)
        assert len(got.ids) == 1
        assert got.refusal is not None
        assert got.refusal.startswith("event 1: event name ''")
        await bench.engine.run_due()
        assert [run.output for run in await bench.engine.runs(10)] == got.ids

    on_bench(function, scenario)


def test_the_same_request_sent_again_is_the_same_events_and_starts_nothing_twice(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        body = [{"name": "go", "data": {}}, {"name": "go", "data": {}}]
        first = await bench.engine.ingest(body, SEED)
        second = await bench.engine.ingest(body, SEED)
        assert first == second
        assert len(set(first.ids)) == 2
        await bench.engine.run_due()
        assert len(await bench.engine.runs(10)) == 2

    on_bench(function, scenario)


def test_an_event_id_starts_a_function_once_within_24_hours(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        for _ in range(2):
            await bench.engine.ingest({"name": "go", "id": "mine"}, None)
        bench.clock.advance(24 * 3600 * 1000 - 1)
        await bench.engine.ingest({"name": "go", "id": "mine"}, None)
        await bench.engine.run_due()
        assert [run.output for run in await bench.engine.runs(10)] == ["mine"]
        bench.clock.advance(1)
        await bench.engine.ingest({"name": "go", "id": "mine"}, None)
        await bench.engine.run_due()
        assert [run.output for run in await bench.engine.runs(10)] == ["mine", "mine"]

    on_bench(function, scenario)


def test_an_event_that_is_still_to_come_starts_its_runs_then(on_bench: Any) -> None:
    async def scenario(bench: Any) -> None:
        await bench.engine.ingest({"name": "go", "ts": NOW_MS + 5000}, None)
        bench.clock.advance(4999)
        assert await bench.engine.run_due() == 0
        bench.clock.advance(1)
        assert await bench.engine.run_due() == 1

    on_bench(function, scenario)


@pytest.mark.parametrize(
    "raw",
    [
        1,
        "go",
        None,
        {},
        {"name": 1},
        {"name": "x" * 513},
        {"name": "inngest/function.failed"},
        {"name": "go", "data": [1]},
        {"name": "go", "ts": 1},
        {"name": "go", "ts": 1.5},
        {"name": "go", "ts": 5_000_000_000_000},
        {"name": "go", "id": "x" * 513},
        {"name": "go", "data": {"x": "y" * 600_000}},
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(raw: Any) -> None:
    parsed = parse_events(raw, seed=None, new_ulid=lambda: "U", now_ms=NOW_MS)
    assert parsed.events == ()
    assert parsed.refusal is not None
    assert parsed.refusal.startswith("event 0: ")


def test_a_request_has_at_most_5000_events() -> None:
    assert len(parse_events([{"name": "go"}] * 5000, seed=None, new_ulid=lambda: "U", now_ms=NOW_MS).events) == 5000
    assert parse_events([{"name": "go"}] * 5001, seed=None, new_ulid=lambda: "U", now_ms=NOW_MS).events == ()


@pytest.mark.parametrize(
    "header",
    [None, "", "1", "0,AAECAwQFBgcICQ==", "x,AAECAwQFBgcICQ==", "1,AAEC", "1,AAECAwQFBgcI====", "1,!!!!AwQFBgcICQ=="],
)
def test_a_seed_that_is_none_is_not_used(header: str | None) -> None:
    assert parse_seed(header) is None


@given(st.integers(1, 2**47), st.binary(min_size=10, max_size=10), st.integers(0, 4999))
def test_a_seed_gives_ulids_of_its_time_and_entropy(ms: int, entropy: bytes, index: int) -> None:
    seed = parse_seed(f"{ms},{base64.b64encode(entropy).decode()}")
    assert seed == Seed(ms=ms, entropy=entropy)
    made = ULID.from_str(seed.ulid(index)).bytes
    assert int.from_bytes(made[:6], "big") == ms
    assert made[6:12] == entropy[:6]
    assert int.from_bytes(made[12:], "big") == (int.from_bytes(entropy[6:], "big") + index) % 2**32
