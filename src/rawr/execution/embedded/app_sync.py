"""What an app says of itself when it registers: by a request of its own, or in its answer to ours. Pure.

Everything here was written by somebody else: it is checked once, and what does not fit is refused with a reason.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from rawr.errors import BadInputError
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.registration import functions_of
from rawr.wire import JsonValue

FUNCTIONS_MAX: Final = 1000
URL_MAX: Final = 2048
_APP_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")


class AppRefusedError(BadInputError):
    code = "ENGINE_APP_REFUSED"


class App(msgspec.Struct, frozen=True, kw_only=True):
    app_id: str
    url: str
    """Where its functions are called."""
    sdk: str
    functions: tuple[RegisteredFunction, ...]


class _Registration(msgspec.Struct, kw_only=True, rename="camel"):
    url: str
    functions: list[dict[str, Any]]
    app_version: str | None = None
    sdk: str = ""


class _Answered(msgspec.Struct, kw_only=True):
    app_id: str
    functions: list[dict[str, Any]]
    app_version: str | None = msgspec.field(default=None, name="appVersion")
    sdk_language: str = ""
    sdk_version: str = ""


def registering_app(body: JsonValue, *, only_loopback: bool) -> App:
    """The app that a `/fn/register` request is about. Its name is spelled `appName` by some SDKs, `appname` by others.

    Raises:
        AppRefusedError, UnsupportedFunctionError
    """
    if not isinstance(body, Mapping):
        raise AppRefusedError("the registration is not an object")
    wire = _converted(body, _Registration)
    app_id = next((value for key, value in body.items() if key.lower() == "appname"), None)
    return _app(app_id, wire.url, wire.sdk, wire.functions, app_version=wire.app_version, only_loopback=only_loopback)


def answered_app(body: JsonValue, *, url: str, only_loopback: bool) -> App:
    """The app that answered our in-band sync at `url`. Where it thinks that it is does not count.

    Raises:
        AppRefusedError, UnsupportedFunctionError
    """
    wire = _converted(body, _Answered)
    sdk = f"{wire.sdk_language}:{wire.sdk_version}"
    return _app(wire.app_id, url, sdk, wire.functions, app_version=wire.app_version, only_loopback=only_loopback)


def checked_url(url: str, *, only_loopback: bool) -> str:
    """`url`, if an engine may call it.

    Raises:
        AppRefusedError: it is no plain HTTP address, or not one of this machine where only such are allowed.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise AppRefusedError(f"the app's address {url[:200]!r} cannot be read") from error
    is_plain = len(url) <= URL_MAX and url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in ("http", "https") or not host or not is_plain:
        raise AppRefusedError(f"the app's address {url[:200]!r} is not an http or https address")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise AppRefusedError("the app's address has a user name, a password or a fragment in it")
    if only_loopback and not _is_loopback(host):
        raise AppRefusedError(
            f"the app's address {url[:200]!r} is not on this machine; with --dev no other is called",
            fix="serve the app on localhost, or run the engine with keys instead of --dev",
        )
    return url


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _app(
    app_id: object,
    url: str,
    sdk: str,
    configs: list[dict[str, Any]],
    *,
    app_version: str | None,
    only_loopback: bool,
) -> App:
    if not isinstance(app_id, str) or _APP_ID.match(app_id) is None:
        raise AppRefusedError(f"app id {str(app_id)[:200]!r}: use 1 to 128 of A-Z a-z 0-9 . _ -")
    if len(configs) > FUNCTIONS_MAX:
        raise AppRefusedError(f"{len(configs)} functions in one app; the limit is {FUNCTIONS_MAX}")
    functions = functions_of(configs, app_version)
    ids = [function.fn_id for function in functions]
    if len(set(ids)) != len(ids):
        raise AppRefusedError(f"two functions have the same id: {next(i for i in ids if ids.count(i) > 1)}")
    foreign = next((fn_id for fn_id in ids if not fn_id.startswith(f"{app_id}-")), None)
    if foreign is not None:
        raise AppRefusedError(f"function id {foreign!r} does not begin with the app's: {app_id}-")
    return App(app_id=app_id, url=checked_url(url, only_loopback=only_loopback), sdk=sdk[:100], functions=functions)


def _converted(body: JsonValue, into: type[Any]) -> Any:
    try:
        return msgspec.convert(body, into)
    except msgspec.ValidationError as error:
        raise AppRefusedError(f"the registration cannot be read: {error}") from error
