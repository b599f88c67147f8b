"""TLS on a real server, with certificates of the moment."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.host.server_process import DEADLINE_S, Server

from rawr.client.http import HqClient, ServerAnswerError
from rawr.client.trust import CertificateUnreadableError
from rawr.host.settings import HostSettings, InsecureBindError, TlsFiles
from rawr.host.tls import TlsFilesError, server_context

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made by openssl")


def certificate(folder: Path, name: str = "hq") -> TlsFiles:
    files = TlsFiles(certificate=folder / f"{name}.pem", key=folder / f"{name}.key")
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    where = ["-keyout", str(files.key), "-out", str(files.certificate)]
    subject = ["-subj", f"/CN={name}.example", "-days", "2"]
    subprocess.run(["openssl", "req", "-x509", *new_key, *where, *subject], check=True, capture_output=True, timeout=60)
    files.key.chmod(0o600)
    return files


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return certificate(tmp_path)


@pytest.fixture
def secure(root: Path, files: TlsFiles) -> Iterator[Server]:
    root.mkdir()
    server = Server(root, tls={"certificate": str(files.certificate), "key": str(files.key)})
    server.ready()
    yield server
    server.end()


def shown(server: Server) -> str:
    with (
        socket.create_connection(("127.0.0.1", server.port()), timeout=DEADLINE_S) as plain,
        _careless().wrap_socket(plain) as connection,
    ):
        return ssl.DER_cert_to_PEM_cert(connection.getpeercert(binary_form=True) or b"")


def _careless() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def test_a_client_that_has_the_certificate_is_served_and_urls_say_https(secure: Server, files: TlsFiles) -> None:
    record = secure.ready()
    assert record.url.startswith("https://127.0.0.1:")
    assert record.certificate == str(files.certificate.resolve())
    assert secure.client().health()["ok"] is True
    state = secure.client().call("state/getRuntimeState", {}, dict[str, object])
    assert "state" in state


def test_a_client_with_another_certificate_sends_nothing(secure: Server, tmp_path: Path) -> None:
    other = certificate(tmp_path, "other")
    client = HqClient(secure.ready().url, secure.cli_key(), certificate=other.certificate)
    with pytest.raises(ServerAnswerError, match="not who it should be"):
        client.health()
    with pytest.raises(ServerAnswerError, match="not who it should be"):
        HqClient(secure.ready().url, secure.cli_key()).health()
    with pytest.raises(CertificateUnreadableError):
        HqClient(secure.ready().url, "", certificate=tmp_path / "none.pem").health()
    assert [line for line in secure.access_lines() if line["address"]] == []  # the engine's own calls have none


def test_old_protocols_are_not_spoken(secure: Server) -> None:
    context = _careless()
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="deprecated"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", secure.port()), timeout=DEADLINE_S) as plain,
        pytest.raises((ssl.SSLError, ConnectionResetError)),
    ):
        context.wrap_socket(plain)


def test_plain_http_gets_no_answer(secure: Server) -> None:
    with socket.create_connection(("127.0.0.1", secure.port()), timeout=DEADLINE_S) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in connection.recv(65536)
    assert secure.client().health()["ok"] is True


def test_a_new_certificate_is_shown_after_sighup_and_a_bad_one_never(
    secure: Server, files: TlsFiles, tmp_path: Path
) -> None:
    first = shown(secure)
    assert first.strip() == files.certificate.read_text().strip()
    renewed = certificate(tmp_path, "renewed")
    files.certificate.write_bytes(renewed.certificate.read_bytes())
    secure.process.send_signal(signal.SIGHUP)  # the key does not fit yet
    wait_for_log(secure, "the certificate stays as it was")
    assert shown(secure) == first
    files.key.write_bytes(renewed.key.read_bytes())
    secure.process.send_signal(signal.SIGHUP)
    wait_for_log(secure, "the certificate was read again")
    assert shown(secure).strip() == renewed.certificate.read_text().strip()
    assert secure.client().health()["ok"] is True


def wait_for_log(server: Server, text: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while text not in server.log():
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)


def test_a_key_that_others_can_read_is_refused(files: TlsFiles) -> None:
    files.key.chmod(0o640)
    with pytest.raises(TlsFilesError, match="can be read by other users") as refused:
        server_context(files)
    assert refused.value.fix == f"chmod 600 {files.key}"


def test_files_that_are_missing_or_do_not_fit_are_named(files: TlsFiles, tmp_path: Path) -> None:
    other = certificate(tmp_path, "other")
    with pytest.raises(TlsFilesError, match="belong together"):
        server_context(TlsFiles(certificate=files.certificate, key=other.key))
    with pytest.raises(TlsFilesError, match=r"gone\.key is not there"):
        server_context(TlsFiles(certificate=files.certificate, key=tmp_path / "gone.key"))
    with pytest.raises(TlsFilesError, match=r"gone\.pem is not there"):
        server_context(TlsFiles(certificate=tmp_path / "gone.pem", key=files.key))


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(files: TlsFiles, tmp_path: Path) -> None:
    locked = tmp_path / "locked.key"
    command = ["openssl", "ec", "-aes256", "-passout", "pass:secret", "-in", str(files.key), "-out", str(locked)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    locked.chmod(0o600)
    with pytest.raises(TlsFilesError, match="without a password"):
        server_context(TlsFiles(certificate=files.certificate, key=locked))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "hq.example"])
def test_more_than_loopback_without_tls_is_refused_unless_it_is_meant(host: str, files: TlsFiles) -> None:
    with pytest.raises(InsecureBindError) as refused:
        HostSettings(bind_host=host)
    assert "--insecure-bind" in (refused.value.fix or "")
    assert HostSettings(bind_host=host, insecure_bind=True).is_exposed
    assert not HostSettings(bind_host=host, tls=files).is_exposed


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9", "::1", "localhost"])
def test_loopback_needs_no_certificate(host: str) -> None:
    assert not HostSettings(bind_host=host).is_exposed
