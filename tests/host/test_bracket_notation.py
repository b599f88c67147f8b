"""Query strings against answers that oRPC's own parser gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rawr.errors import BadInputError
from rawr.host.bracket_notation import parse_bracketed, path_segments

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "data" / "orpc_vectors.json").read_text())[
    "bracket"
]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["q"]))
def test_a_query_means_what_it_means_to_orpc(vector: dict[str, Any]) -> None:
    value = parse_bracketed(parse_qsl(vector["q"], keep_blank_values=True))
    if vector["decoded"] == "array length 10000":
        assert len(value["a"]) == 10_000
    else:
        assert value == vector["decoded"]


def test_empty_places_are_bounded_over_the_whole_query() -> None:
    with pytest.raises(BadInputError, match="places empty"):
        parse_bracketed([("a[9999]", "x"), ("b[9999]", "x")])


def test_nesting_is_bounded() -> None:
    with pytest.raises(BadInputError, match="nested deeper"):
        parse_bracketed([("a" + "[b]" * 100, "x")])


@given(st.lists(st.tuples(st.text(alphabet="ab[]01\\", max_size=12), st.text(max_size=2)), max_size=8))
def test_any_fields_parse_to_json(pairs: list[tuple[str, str]]) -> None:
    json.dumps(parse_bracketed(pairs))


@given(st.text(alphabet="ab[]\\", max_size=20))
def test_every_key_has_at_least_one_segment(key: str) -> None:
    assert path_segments(key)
