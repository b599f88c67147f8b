"""The commands and a server that is not plain HTTP on loopback."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Hq


def with_certificate(root: Path) -> None:
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    where = ["-keyout", str(root / "hq.key"), "-out", str(root / "hq.pem")]
    command = ["openssl", "req", "-x509", *new_key, *where, "-subj", "/CN=hq.example", "-days", "2"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    (root / "hq.key").chmod(0o600)
    (root / "rawr.toml").write_text('[server]\nport = 0\ntls_cert = "hq.pem"\ntls_key = "hq.key"\n')


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_the_commands_find_and_trust_their_own_server_over_tls(hq: Hq) -> None:
    with_certificate(hq.root)
    started = hq.json("up").data
    assert started["url"].startswith("https://127.0.0.1:")
    assert started["server"]["certificate"] == str((hq.root / "hq.pem").resolve())
    assert hq.json("status").data["running"] is True
    assert hq.json("workflow", "coord", "list").code == 0
    assert hq.json("open").data["url"].startswith("https://")
    assert hq.json("down").data["stopped"] is True


@pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")
def test_a_key_that_others_can_read_keeps_the_server_from_starting(hq: Hq) -> None:
    with_certificate(hq.root)
    (hq.root / "hq.key").chmod(0o644)
    refused = hq.json("up")
    assert refused.error["code"] == "TLS_FILES_UNUSABLE"
    assert "chmod 600" in refused.error["fix"]


def test_an_address_that_others_can_reach_is_refused_without_tls(hq: Hq) -> None:
    refused = hq.json("up", "--host", "0.0.0.0")
    assert refused.error["code"] == "INSECURE_BIND"
    assert "--insecure-bind" in refused.error["fix"]
    assert hq.json("status").data["running"] is False
    (hq.root / "rawr.toml").write_text('[server]\nport = 0\nhost = "0.0.0.0"\n')
    assert hq.json("up").error["code"] == "INSECURE_BIND"
    assert hq.json("workflow", "coord", "list").code == 0  # commands that listen nowhere go on


def test_another_loopback_address_needs_nothing(hq: Hq) -> None:
    started = hq.json("up", "--host", "127.0.0.2").data
    assert started["url"].startswith("http://127.0.0.2:")
    assert hq.json("status").data["running"] is True
