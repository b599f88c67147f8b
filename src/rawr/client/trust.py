"""Trust in one server by its certificate, as a file of the instance holds it. Names and authorities do not count."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from rawr.errors import RawrError

_END: Final = "-----END CERTIFICATE-----"


class CertificateUnreadableError(RawrError):
    code = "CERTIFICATE_UNREADABLE"


def trust_in(certificate: Path) -> ssl.SSLContext:
    """A context that talks to who holds the key of the first certificate in the file, and to nobody else.

    Raises:
        CertificateUnreadableError: there is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # We connect to an address of this machine, which the certificate of a public name does not have.
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    try:
        # The first alone: with the others of the file, whoever they signed for would be trusted as well.
        first, end, _ = certificate.read_text("ascii").partition(_END)
        context.load_verify_locations(cadata=first + end)
    except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
        raise CertificateUnreadableError(
            f"the certificate of the server cannot be read from {certificate}: {error}", fix="rawr down, then rawr up"
        ) from error
    return context
