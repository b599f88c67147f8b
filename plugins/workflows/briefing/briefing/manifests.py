"""What a dependency manifest declares. One pure parser per format; a broken file raises `BrokenManifestError`.

URLs in specifications lose their user and password: a briefing is read by more people than a manifest.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

_NAME: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_CREDENTIALS: Final = re.compile(r"//[^/@\s]*@")
_SPEC_MAX: Final = 120


class BrokenManifestError(Exception):
    """The file cannot be understood; the text says why."""


class Dependency(NamedTuple):
    name: str
    spec: str
    group: str
    """`main`, or what the format calls it: `dev`, `optional docs`, `indirect`."""


def parser_of(name: str) -> Callable[[bytes], list[Dependency]] | None:
    """How to read a file of that name; None when it declares no dependencies."""
    if re.fullmatch(r"(.*[-_.])?requirements([-_.].*)?\.txt", name):
        return _requirements
    return _PARSERS.get(name)


def _pyproject(raw: bytes) -> list[Dependency]:
    document = _toml(raw)
    project = _table(document, "project")
    found = [*_python(project.get("dependencies"), "main")]
    for group, listed in _table(project, "optional-dependencies").items():
        found += _python(listed, f"optional {group}")
    for group, listed in _table(document, "dependency-groups").items():
        found += _python(listed, group)
    found += _python(_table(document, "build-system").get("requires"), "build")
    return [*found, *_poetry(_table(_table(document, "tool"), "poetry"))]


def _poetry(poetry: Mapping[str, Any]) -> Iterator[Dependency]:
    yield from (one for one in _named(poetry.get("dependencies"), "main") if one.name != "python")
    yield from _named(poetry.get("dev-dependencies"), "dev")
    for group, content in _table(poetry, "group").items():
        yield from _named(_table({"group": content}, "group").get("dependencies"), group)


def _package_json(raw: bytes) -> list[Dependency]:
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BrokenManifestError(f"it is no JSON: {error}") from error
    if not isinstance(document, dict):
        raise BrokenManifestError("it is no JSON object")
    groups = {"dependencies": "main", "devDependencies": "dev", "peerDependencies": "peer"}
    return [
        dependency
        for key, group in {**groups, "optionalDependencies": "optional"}.items()
        for dependency in _named(document.get(key), group)
    ]


def _cargo(raw: bytes) -> list[Dependency]:
    document = _toml(raw)
    tables = [("main", document), ("workspace", _table(document, "workspace"))]
    tables += [(f"target {name}", _table({"t": table}, "t")) for name, table in _table(document, "target").items()]
    found: list[Dependency] = []
    for place, table in tables:
        found += _named(table.get("dependencies"), place)
        found += _named(table.get("dev-dependencies"), "dev")
        found += _named(table.get("build-dependencies"), "build")
    return found


def _go_mod(raw: bytes) -> list[Dependency]:
    found = []
    inside = False
    for line in _text(raw).splitlines():
        stated, _, comment = line.partition("//")
        words = stated.split()
        if words[:1] == ["require"]:
            words = words[1:]
            if words == ["("]:
                inside = True
                continue
        elif not inside:
            continue
        if words == [")"]:
            inside = False
        elif len(words) >= 2:
            group = "indirect" if comment.strip().startswith("indirect") else "main"
            found.append(_dependency(words[0].strip('"'), words[1], group))
    return found


def _requirements(raw: bytes) -> list[Dependency]:
    found: list[Dependency] = []
    for line in _text(raw).replace("\\\r\n", " ").replace("\\\n", " ").splitlines():
        stated = re.sub(r"(^|\s)#.*", "", line).strip()
        stated = re.sub(r"\s--hash[= ]\S+", "", stated).strip()
        if stated.startswith(("-e ", "--editable")):
            found.append(_dependency(re.split(r"[ =]", stated, maxsplit=1)[1].strip(), "", "editable"))
        elif stated and not stated.startswith("-"):
            found += _python([stated], "main")
    return found


_PARSERS: Final[Mapping[str, Callable[[bytes], list[Dependency]]]] = {
    "pyproject.toml": _pyproject,
    "package.json": _package_json,
    "Cargo.toml": _cargo,
    "go.mod": _go_mod,
}


def _python(listed: Any, group: str) -> Iterator[Dependency]:
    """Requirements as Python writes them: a name, extras in brackets, then what it asks for."""
    for requirement in listed if isinstance(listed, list) else ():
        match = _NAME.match(requirement) if isinstance(requirement, str) else None
        if match is not None and not re.match(r"[a-z+]+://", requirement):
            yield _dependency(match.group(1), match.group(2), group)
        elif isinstance(requirement, str) and requirement.strip():
            yield _dependency(requirement.strip(), "", group)


def _named(table: Any, group: str) -> Iterator[Dependency]:
    for name, stated in table.items() if isinstance(table, dict) else ():
        spec = stated
        if isinstance(stated, dict):
            spec = next((stated[key] for key in ("version", "git", "path", "url") if key in stated), "")
            spec = "workspace" if stated.get("workspace") is True else spec
        yield _dependency(name, spec if isinstance(spec, str) else "", group)


def _dependency(name: str, spec: str, group: str) -> Dependency:
    return Dependency(name=_tidy(name), spec=_tidy(spec), group=_tidy(group))


def _tidy(text: str) -> str:
    return _CREDENTIALS.sub("//", " ".join(text.split()))[:_SPEC_MAX]


def _toml(raw: bytes) -> dict[str, Any]:
    try:
        return tomllib.loads(_text(raw))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise BrokenManifestError(f"it is no TOML: {error}") from error


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BrokenManifestError(f"it is not UTF-8: byte {error.start}") from error


def _table(holder: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, dict) else {}
