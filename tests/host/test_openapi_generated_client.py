"""A client that a stock generator makes of the committed document: it type-checks strictly, and its calls work.

Runs where node is and the kit's packages are installed (`make kit`); skipped with the reason elsewhere.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest
from tests.host.server_process import Server

from rawr.clock import SystemClock
from rawr.security.credentials import SecretsFolder, TokenStore

KIT: Final = Path(__file__).with_name("openapi_kit")
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "openapi" / "orpc.json"
DEADLINE_S: Final = 90


def node(folder: Path, program: str, *arguments: str) -> str:
    ran = subprocess.run(
        ["node", program, *arguments], cwd=folder, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_a_generated_client_type_checks_and_works(tmp_path: Path, server: Server) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not on PATH")
    if not (KIT / "node_modules" / "openapi-typescript").is_dir():
        pytest.skip("the generator is not installed: make kit")
    folder = tmp_path / "client"
    shutil.copytree(KIT, folder, ignore=shutil.ignore_patterns("node_modules"))
    (folder / "node_modules").symlink_to(KIT / "node_modules")
    node(folder, "node_modules/openapi-typescript/bin/cli.js", str(DOCUMENT), "-o", "api.ts")
    node(folder, "node_modules/typescript/bin/tsc")
    tokens = TokenStore(SecretsFolder(server.root / ".rawr" / "secrets").tokens_path(), SystemClock())
    url = server.ready().url
    printed = node(folder, "use.js", url, tokens.create("generated", ["orpc:*"]).token)
    assert json.loads(printed) == {"doubling": True, "ok": True, "known": True, "code": "RUN_NOT_FOUND"}
