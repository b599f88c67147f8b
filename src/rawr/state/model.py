"""The repo state: what the file says, what it must not say, and how enabling changes it. Pure.

The file is `{version, plugins: {enabled, disabled?, lastUpdatedAt}}`. Keys that we do not know belong to somebody
else and survive every change; anything else that does not fit is an error and never a reason to start afresh.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast

import msgspec

from rawr import wire
from rawr.errors import BadInputError, CorruptFileError
from rawr.ids import PluginId
from rawr.wire import JsonValue, Wire

VERSION: Final = 1
PLUGIN_ID_LENGTH_MAX: Final = 214  # the limit of npm package names
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# What JavaScript's String.prototype.trim takes away; Python's strip differs in a few control characters.
WHITE_SPACE: Final = "\t\n\v\f\r \xa0\u1680\u2028\u2029\u202f\u205f\u3000\ufeff" + "".join(
    map(chr, range(0x2000, 0x200B))
)


class StateCorruptError(CorruptFileError):
    """The state file is there and cannot be understood. It is left as it is."""

    code = "STATE_CORRUPT"


class StateVersionError(CorruptFileError):
    """The state file has a version that this rawr does not know. It is left as it is."""

    code = "STATE_VERSION_UNSUPPORTED"


class PluginState(Wire, frozen=True, kw_only=True):
    """Ids are trimmed, unique and in JavaScript's order. Enabling and disabling take the id out of the other list."""

    enabled: tuple[PluginId, ...]
    disabled: tuple[PluginId, ...] = ()
    last_updated_at: str


class RepoState(Wire, frozen=True, kw_only=True):
    version: int
    plugins: PluginState
    authority_repo_root: str | msgspec.UnsetType = msgspec.UNSET
    """The real path of the instance; added for callers, never in the file."""


class _WrittenPlugins(msgspec.Struct, rename="camel"):
    enabled: tuple[PluginId, ...]
    last_updated_at: str
    disabled: tuple[PluginId, ...] = ()


class _Written(msgspec.Struct):
    """The part of a file that is ours; other keys are passed over."""

    plugins: _WrittenPlugins


Document = Mapping[str, JsonValue]
"""The whole file, unknown keys included, once `decode` has accepted it."""


def decode(raw: bytes, *, path: str) -> Document:
    """The document in the bytes of the file at `path` (for messages). A byte order mark is accepted.

    Raises:
        StateCorruptError: not JSON, or not of the form above.
        StateVersionError: another version.
    """
    corrupt = _Complaint(path, len(raw))
    try:
        document = wire.decode(raw.removeprefix(_BYTE_ORDER_MARK))
    except wire.MalformedJsonError as error:
        raise corrupt.because(error.message) from error
    if not isinstance(document, dict):
        raise corrupt.because("it is not an object")
    version = document.get("version")
    if isinstance(version, int) and not isinstance(version, bool) and version != VERSION:
        raise StateVersionError(
            f"{path} has version {version}, this rawr knows {VERSION}",
            details={"path": path, "found": version, "known": VERSION},
            fix="update rawr",
        )
    if type(version) is not int:
        raise corrupt.because("`version` is not a whole number")
    _check_plugins(document.get("plugins"), corrupt)
    return document


def encode(document: Document) -> bytes:
    """The bytes that JavaScript's `JSON.stringify(document, null, 2) + "\\n"` gives."""
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def empty(*, at: str) -> Document:
    """What a missing file means."""
    return {"version": VERSION, "plugins": {"enabled": [], "lastUpdatedAt": at}}


def state_of(document: Document, *, at: str) -> RepoState:
    """The state in a document; `at` stands in when nobody has noted the time of the last change."""
    plugins = document["plugins"]
    return RepoState(
        version=VERSION,
        plugins=PluginState(
            enabled=_normal(plugins["enabled"]),
            disabled=_normal(plugins.get("disabled", [])),
            last_updated_at=plugins.get("lastUpdatedAt", at),
        ),
    )


def written_state(text: str) -> RepoState:
    """The state in a file that `encode` has written: what it says is in normal form."""
    written = msgspec.json.decode(text, type=_Written)
    return RepoState(version=VERSION, plugins=PluginState(**msgspec.structs.asdict(written.plugins)))


def enable(document: Document, plugin_id: PluginId, *, at: str) -> Document:
    """Enabled and hence no longer disabled."""
    plugins = document["plugins"]
    disabled = _normal(plugins.get("disabled", []))
    return _changed(
        document,
        enabled=_normal([*plugins["enabled"], plugin_id]),
        disabled=[other for other in disabled if other != plugin_id],
        at=at,
    )


def disable(document: Document, plugin_id: PluginId, *, at: str) -> Document:
    """Disabled on purpose, which is more than not enabled, and hence no longer enabled."""
    plugins = document["plugins"]
    return _changed(
        document,
        enabled=[other for other in _normal(plugins["enabled"]) if other != plugin_id],
        disabled=_normal([*plugins.get("disabled", []), plugin_id]),
        at=at,
    )


def touched(document: Document, *, at: str) -> Document:
    """The document as it is, changed at that time."""
    plugins = state_of(document, at=at).plugins
    return _changed(document, enabled=plugins.enabled, disabled=plugins.disabled, at=at)


def replaced(document: Document, after: object, *, at: str, is_set: bool) -> Document:
    """The document with the lists of `after`, which somebody made, for those that it has.

    Ids that are in `document` already are kept as they are, whoever wrote them; a new one has to be a plugin id.
    The time of the change is that of `after` when it `is_set` as it stands, and `at` when a change left it alone.

    Raises:
        BadInputError: `after` is no state of this version, or a new id is none.
    """
    if not isinstance(after, RepoState):
        raise BadInputError(f"a repo state is a RepoState, this is a {type(after).__name__}")
    if after.version != VERSION:
        raise BadInputError(f"a repo state has version {VERSION}, this one has {after.version}")
    before = state_of(document, at=at).plugins
    known = {*before.enabled, *before.disabled}
    for entry in (*after.plugins.enabled, *after.plugins.disabled):
        if entry not in known:
            plugin_id_of(entry)
    when = after.plugins.last_updated_at
    return _changed(
        document,
        enabled=_normal(after.plugins.enabled),
        disabled=_normal(after.plugins.disabled),
        at=when if is_set or when != before.last_updated_at else at,
    )


def plugin_id_of(text: str) -> PluginId:
    """`text` as a plugin id: trimmed, 1 to 214 characters.

    Raises:
        BadInputError: it is not one.
    """
    if not isinstance(text, str):
        raise BadInputError(f"a plugin id is a text, this is a {type(text).__name__}")
    trimmed = text.strip(WHITE_SPACE)
    if not trimmed:
        raise BadInputError("a plugin id is empty")
    if len(trimmed) > PLUGIN_ID_LENGTH_MAX:
        raise BadInputError(f"a plugin id has at most {PLUGIN_ID_LENGTH_MAX} characters, this one has {len(trimmed)}")
    try:
        trimmed.encode()
    except UnicodeEncodeError as error:
        raise BadInputError("a plugin id is not valid Unicode") from error
    return PluginId(trimmed)


class _Complaint:
    """What every message about one corrupt file says."""

    def __init__(self, path: str, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes

    def because(self, reason: str) -> StateCorruptError:
        return StateCorruptError(
            f"{self._path} ({self._size_bytes} bytes) cannot be understood: {reason}",
            details={"path": self._path, "sizeBytes": self._size_bytes, "reason": reason},
            fix=f"rawr state repair; or correct {self._path}, or move it away to start with no plugin enabled",
        )


def _check_plugins(plugins: JsonValue, corrupt: _Complaint) -> None:
    if not isinstance(plugins, dict):
        raise corrupt.because("`plugins` is not an object")
    for key, value in (("enabled", plugins.get("enabled")), ("disabled", plugins.get("disabled", []))):
        if not isinstance(value, list) or not set(map(type, value)) <= {str}:
            raise corrupt.because(f"`plugins.{key}` is not a list of texts")
    if not isinstance(plugins.get("lastUpdatedAt", ""), str):
        raise corrupt.because("`plugins.lastUpdatedAt` is not a text")


def _normal(entries: Sequence[str]) -> tuple[PluginId, ...]:
    """Trimmed, without empty and repeated ones, in JavaScript's order. Quick for what is nearly so already."""
    text = "".join(entries)
    is_plain = text.isascii() and text.isprintable() and " " not in text  # nothing to trim
    trimmed = dict.fromkeys(entries if is_plain else [entry.strip(WHITE_SPACE) for entry in entries])
    trimmed.pop("", None)
    ordered = sorted(trimmed, key=None if text.isascii() else _javascript_order)
    return cast("tuple[PluginId, ...]", tuple(ordered))


def _javascript_order(text: str) -> bytes:
    return text.encode("utf-16-be")  # JavaScript compares UTF-16 units


def _changed(document: Document, *, enabled: Iterable[str], disabled: Iterable[str], at: str) -> Document:
    """The known keys in their published order, then whatever else was there, as it was."""
    lists = {"enabled": list(enabled), "disabled": list(disabled)}
    if not lists["disabled"]:
        del lists["disabled"]
    known = {**lists, "lastUpdatedAt": at}
    plugins = {**known, **_without(document["plugins"], ("enabled", "disabled", "lastUpdatedAt"))}
    return {"version": VERSION, "plugins": plugins, **_without(document, ("version", "plugins"))}


def _without(document: Document, keys: tuple[str, ...]) -> dict[str, JsonValue]:
    return {key: value for key, value in document.items() if key not in keys}
