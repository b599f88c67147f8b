"""The real `@orpc/client` against a real server: what it sends we read, what we send it reads.

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

from rawr.security.credentials import SecretsFolder

KIT: Final = Path(__file__).with_name("orpc_kit")
KITS: Final = {"1.13.5": ("kit.mjs", 21), "1.16.1": ("kit.mjs", 21), "2.0.0-beta.16": ("kit_v2.mjs", 19)}
"""What drives each version, and how many checks it makes. The last one speaks version 2 of the protocol."""
DEADLINE_S: Final = 90


def why_not(version: str) -> str | None:
    if shutil.which("node") is None:
        return "node is not on PATH"
    if not (KIT / "node_modules" / f"client-{version}").is_dir():
        return f"@orpc/client {version} is not installed: make kit"
    return None


@pytest.mark.parametrize("version", sorted(KITS))
def test_the_real_client_and_we_understand_each_other(version: str, server: Server) -> None:
    if reason := why_not(version):
        pytest.skip(reason)
    key = SecretsFolder(server.root / ".rawr" / "secrets").cli_key()
    kit, checks = KITS[version]
    arguments = ["node", kit, version, server.ready().url, key]
    ran = subprocess.run(arguments, cwd=KIT, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    results = [json.loads(line) for line in ran.stdout.splitlines()]
    failed = [f"{result['check']}: {result['detail']}" for result in results if not result["ok"]]
    assert not failed, "\n".join(failed)
    assert (ran.returncode, len(results)) == (0, checks), ran.stderr


@pytest.mark.parametrize("version", sorted(KITS))
def test_the_kit_is_pinned(version: str) -> None:
    locked = json.loads((KIT / "package-lock.json").read_text())["packages"][f"node_modules/client-{version}"]
    assert (locked["name"], locked["version"]) == ("@orpc/client", version)
    assert locked["integrity"].startswith("sha512-")
