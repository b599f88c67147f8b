"""The keys that a real Inngest server and this instance know each other by: from the environment, else from files.

They are made by that server, not by us, so nothing is made here. No message shows a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rawr.errors import RawrError
from rawr.security.credentials import read_private

EVENT_KEY: Final = ("INNGEST_EVENT_KEY", "inngest-event.key")
SIGNING_KEY: Final = ("INNGEST_SIGNING_KEY", "inngest-signing.key")
SIGNING_KEY_FALLBACK: Final = ("INNGEST_SIGNING_KEY_FALLBACK", "inngest-signing-fallback.key")

# The SDK reads the text as bytes in hex; the server's own key has no prefix.
_SIGNING: Final = re.compile(r"(?:signkey-\w+-)?(?:[0-9a-fA-F]{2}){1,128}\Z", re.ASCII)
# It is a segment of a path.
_EVENT: Final = re.compile(r"[A-Za-z0-9._~-]{1,256}\Z")


class InngestKeyMissingError(RawrError):
    code = "ENGINE_KEY_MISSING"


class InngestKeyInvalidError(RawrError):
    code = "ENGINE_KEY_INVALID"


class InngestKeys(msgspec.Struct, frozen=True, kw_only=True):
    event_key: str
    signing_key: str
    signing_key_fallback: str | None

    def __repr__(self) -> str:
        return "InngestKeys(...)"  # never into a log


class ServerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The keys of a server of our own that apps register with."""

    event_keys: tuple[str, ...]
    signing_keys: tuple[str, ...]
    """What it signs with, and then what it accepts as well while keys are rotated."""

    def __repr__(self) -> str:
        return "ServerKeys(...)"  # never into a log


def read_server_keys(
    *, event_key_file: Path | None, signing_key_file: Path | None, environ: Mapping[str, str]
) -> ServerKeys:
    """The keys from the files, one in a line, where files are given; else from the variables that SDKs read. Blocking.

    Raises:
        InngestKeyMissingError, InngestKeyInvalidError: naming the variable and the option.
        SecretExposedError, StorageError: a file can be read by others, or not by us.
    """
    signing = [environ.get(variable, "") for variable, _ in (SIGNING_KEY, SIGNING_KEY_FALLBACK)]
    events = environ.get(EVENT_KEY[0], "").split(",")
    return ServerKeys(
        event_keys=_listed(event_key_file, events, EVENT_KEY[0], "--event-key-file", _EVENT),
        signing_keys=_listed(signing_key_file, signing, SIGNING_KEY[0], "--signing-key-file", _SIGNING),
    )


def _listed(
    path: Path | None, given: Sequence[str], variable: str, option: str, form: re.Pattern[str]
) -> tuple[str, ...]:
    where = variable
    if path is not None:
        where = str(path)
        raw = read_private(path)
        if raw is None:
            raise InngestKeyMissingError(
                f"{path} is not there", details={"path": where}, fix=f"make it, or set {variable}"
            )
        given = raw.decode("utf-8", "replace").splitlines()
    keys = tuple(text for text in (text.strip() for text in given) if text)
    if not keys:
        raise InngestKeyMissingError(
            f"without --dev a key is needed, and {where} has none",
            details={"source": where},
            fix=f"set {variable}, or name a file of mode 600 with {option} FILE; only --dev needs none",
        )
    if any(form.match(key) is None for key in keys):
        raise InngestKeyInvalidError(
            f"{where} does not hold keys of Inngest's form",
            details={"source": where},
            fix="a signing key is an even number of hexadecimal digits, with or without signkey-...- before it",
        )
    return keys


def read_inngest_keys(secrets: Path, environ: Mapping[str, str]) -> InngestKeys:
    """The keys, where a variable goes before the file of the folder `secrets`. Blocking.

    Raises:
        InngestKeyMissingError, InngestKeyInvalidError: naming the variable and the file.
        SecretExposedError, StorageError: a file can be read by others, or not by us.
    """
    return InngestKeys(
        event_key=_required(EVENT_KEY, _EVENT, secrets, environ),
        signing_key=_required(SIGNING_KEY, _SIGNING, secrets, environ),
        signing_key_fallback=_key(SIGNING_KEY_FALLBACK, _SIGNING, secrets, environ),
    )


def _required(source: tuple[str, str], form: re.Pattern[str], secrets: Path, environ: Mapping[str, str]) -> str:
    key = _key(source, form, secrets, environ)
    if key is None:
        variable, file = source
        raise InngestKeyMissingError(
            f"in mode 'inngest' {variable} must be set, or {secrets / file} hold the key",
            details={"variable": variable, "path": str(secrets / file)},
            fix=f"set {variable}, or write the key to {secrets / file} with mode 600",
        )
    return key


def _key(source: tuple[str, str], form: re.Pattern[str], secrets: Path, environ: Mapping[str, str]) -> str | None:
    variable, file = source
    text, where = environ.get(variable, "").strip(), variable
    if not text:
        raw = read_private(secrets / file)
        if raw is None:
            return None
        text, where = raw.decode("utf-8", "replace").strip(), str(secrets / file)
    if form.match(text) is None:
        raise InngestKeyInvalidError(
            f"{where} does not hold a key of Inngest's form",
            details={"source": where},
            fix="copy it again from the Inngest server; a signing key is hexadecimal, with or without signkey-...-",
        )
    return text
