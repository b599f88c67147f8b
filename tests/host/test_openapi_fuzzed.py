"""schemathesis reads the committed document and tries a real server with it: what it says must be what comes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    missing_required_header,
    positive_data_acceptance,
    unsupported_method,
)
from tests.host.server_process import Server

from rawr.clock import SystemClock
from rawr.security.credentials import SecretsFolder, TokenStore

SCHEMA: Final = schemathesis.openapi.from_path(Path(__file__).parents[2] / "docs" / "openapi" / "orpc.json")
EXAMPLES: Final = 50
"""For each operation; the whole file takes a few seconds."""

EXCLUDED: Final = [
    unsupported_method,  # not found, as in the original
    positive_data_acceptance,  # what fits the schema may still be no valid workflow, and no run that there is
    ignored_auth,  # these two send the call again without its key, and cannot take away a key that comes from here
    missing_required_header,
]


class Target:
    def __init__(self, server: Server) -> None:
        self.base_url = f"{server.ready().url}/api/orpc"
        tokens = TokenStore(SecretsFolder(server.root / ".rawr" / "secrets").tokens_path(), SystemClock())
        self.headers = {"authorization": f"Bearer {tokens.create('fuzz', ['orpc:*']).token}"}


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    server = Server(tmp_path_factory.mktemp("fuzzed"))
    try:
        yield Target(server)
    finally:
        server.end()


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    phases=[Phase.explicit, Phase.generate],  # a found case is shown as it was found: shrinking one takes minutes
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_a_documented_one(case: schemathesis.Case[Any], target: Target) -> None:
    case.call_and_validate(base_url=target.base_url, headers=target.headers, excluded_checks=EXCLUDED)
