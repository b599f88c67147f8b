"""The certificate and the key that the server shows who it is with: TLS 1.2 and newer, read again on demand."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

from rawr.errors import RawrError
from rawr.host.settings import TlsFiles


class TlsFilesError(RawrError):
    """The certificate or the key cannot be used."""

    code = "TLS_FILES_UNUSABLE"


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Raises TlsFilesError: a file is missing or no PEM, the key does not fit, or other users can read it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, files)
    return context


def reload(context: ssl.SSLContext, files: TlsFiles) -> None:
    """Show what is in the files now to new connections. Raises TlsFilesError, and then nothing has changed."""
    server_context(files)
    _load(context, files)


def _load(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        if stat.S_IMODE(files.key.stat().st_mode) & 0o077:
            raise _unusable(files.key, "can be read by other users", fix=f"chmod 600 {files.key}")
        # A key with a password would ask for it on the terminal.
        context.load_cert_chain(files.certificate, files.key, password=lambda: "")
    except FileNotFoundError as error:
        missing = files.key if files.certificate.exists() else files.certificate
        raise _unusable(missing, "is not there") from error
    except ssl.SSLError as error:
        what = f"and {files.key} are no certificate and key that belong together, in PEM and without a password"
        raise _unusable(files.certificate, what) from error
    except OSError as error:
        raise _unusable(files.certificate, f"cannot be read: {error}") from error


def _unusable(path: Path, what: str, *, fix: str = "see docs/reference/http.md, TLS") -> TlsFilesError:
    return TlsFilesError(f"{path} {what}", details={"path": str(path)}, fix=fix)
