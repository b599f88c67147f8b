"""The briefing as Markdown. Pure: the same findings give the same text."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence

from rawr.sdk import JsonValue

from .languages import LOCK_FILES
from .text import code, plain

Lines = Iterable[str]


def markdown(material: JsonValue) -> str:
    repository = material["repository"]
    sections: Sequence[tuple[str, Callable[[JsonValue], Lines]]] = (
        ("Activity", _activity),
        ("Hot files", _hot_files),
        ("Inventory", _inventory),
        ("Largest files", _largest),
        ("TODO and FIXME", _notes),
        ("Dependencies", _dependencies),
        ("Left out", _left_out),
    )
    lines = [f"# Briefing: {plain(repository['name'])}", "", summary(material), ""]
    for title, section in sections:
        lines += [f"## {title}", "", *_without_blank_end(section(material)), ""]
    lines += ["---", "", f"{code(repository['root'])}, {_moment(material['generatedAt'])} UTC."]
    return "\n".join(lines) + "\n"


def summary(material: JsonValue) -> str:
    """One paragraph that says what a person would ask first."""
    inventory, dependencies = material["inventory"], material["dependencies"]
    sentences = [*_history_said(material), *_period_said(material), *_content_said(inventory)]
    if dependencies["count"]:
        sentences.append(
            f"It declares {_count(dependencies['count'], 'dependency', 'dependencies')} "
            f"in {_count(len(dependencies['manifests']), 'manifest')}."
        )
    if inventory["notes"]["count"]:
        sentences.append(f"Open notes (TODO or FIXME): {_number(inventory['notes']['count'])}.")
    if dependencies["problems"]:
        sentences.append(f"{_count(len(dependencies['problems']), 'dependency manifest')} cannot be read.")
    return " ".join(sentences)


def _history_said(material: JsonValue) -> Lines:
    repository = material["repository"]
    name = f"**{plain(repository['name'])}**"
    head = repository["head"]
    if head is None:
        yield f"{name} has no commits yet."
        return
    most = "" if repository["commitsExact"] else "at least "
    where = "on a detached HEAD" if repository["branch"] is None else f"on branch {code(repository['branch'])}"
    yield (
        f"{name} has {most}{_count(repository['commits'], 'commit')} {where}; the newest, {_quoted(head['subject'])}, "
        f"is by {plain(head['author'])} of {_day(head['at'])}."
    )


def _period_said(material: JsonValue) -> Lines:
    activity = material["activity"]
    if material["repository"]["head"] is None:
        return
    if not activity["commits"]:
        yield f"Nothing was committed in the last {_count(material['days'], 'day')}."
        return
    hot = ""
    if activity["hotFiles"] and activity["hotFiles"][0]["commits"] > 1:
        hot = f", most often {code(activity['hotFiles'][0]['path'])}"
    yield (
        f"In the last {_count(material['days'], 'day')}, {_count(activity['authorCount'], 'author')} made "
        f"{_count(activity['commits'], 'commit')} that touched {_count(activity['fileCount'], 'file')}{hot}."
    )


def _content_said(inventory: JsonValue) -> Lines:
    if not inventory["files"]:
        yield "It holds no files."
        return
    written = [language for language in inventory["languages"] if language["language"] != LOCK_FILES]
    lines = sum(language["lines"] for language in written)
    mostly = f", mostly {_share(written[0], lines)}" if lines else ""
    looked_at_all = inventory["filesRead"] + inventory["binaryFiles"] == inventory["files"]
    least = "" if looked_at_all else "at least "
    yield f"It holds {_count(inventory['files'], 'file')} with {least}{_count(lines, 'line')} of text{mostly}."


def _activity(material: JsonValue) -> Lines:
    activity = material["activity"]
    if not activity["commits"]:
        yield f"No commits since {_day(material['since'])}."
        return
    yield (
        f"{_count(activity['commits'], 'commit')} on {_count(activity['activeDays'], 'day')} "
        f"since {_day(material['since'])}."
    )
    yield ""
    yield from _table(
        ("Author", "Commits"),
        ((plain(author["name"]), _number(author["commits"])) for author in activity["authors"]),
    )
    if activity["authorCount"] > len(activity["authors"]):
        yield ""
        yield f"And {_count(activity['authorCount'] - len(activity['authors']), 'more author', 'more authors')}."
    yield ""
    yield "The newest:"
    yield ""
    for commit in activity["recent"]:
        said = plain(commit["subject"]) or "(no message)"
        yield f"- {commit['day']} {code(commit['commit'][:10])} {said} ({plain(commit['author'])})"


def _hot_files(material: JsonValue) -> Lines:
    hot = material["activity"]["hotFiles"]
    if not hot:
        yield "No file was changed in the period."
        return
    yield from _table(("File", "Commits"), ((code(file["path"]), _number(file["commits"])) for file in hot))


def _inventory(material: JsonValue) -> Lines:
    inventory = material["inventory"]
    if not inventory["languages"]:
        yield "No text files."
        return
    rows = [
        (language["language"], _number(language["files"]), _number(language["lines"]), _size(language["bytes"]))
        for language in inventory["languages"]
    ]
    of_all = [sum(language[key] for language in inventory["languages"]) for key in ("files", "lines", "bytes")]
    rows.append(("**All**", _number(of_all[0]), _number(of_all[1]), _size(of_all[2])))
    yield from _table(("Language", "Files", "Lines", "Size"), rows)


def _largest(material: JsonValue) -> Lines:
    largest = material["inventory"]["largest"]
    if not largest:
        yield "No files."
        return
    yield from _table(
        ("File", "Size", "Lines"),
        (
            (code(file["path"]), _size(file["bytes"]), "" if file["lines"] is None else _number(file["lines"]))
            for file in largest
        ),
    )


def _notes(material: JsonValue) -> Lines:
    notes = material["inventory"]["notes"]
    if not notes["count"]:
        yield "None."
        return
    yield f"{_count(notes['count'], 'note')}:"
    yield ""
    for place in notes["places"]:
        yield f"- {code(place['path'] + ':' + str(place['line']))} {plain(place['text'])}"


def _dependencies(material: JsonValue) -> Lines:
    dependencies = material["dependencies"]
    if not dependencies["manifests"] and not dependencies["problems"]:
        yield "No manifest was found: no pyproject.toml, package.json, requirements\\*.txt, go.mod or Cargo.toml."
    for manifest in dependencies["manifests"]:
        if manifest["dependencies"]:
            yield f"### {code(manifest['path'])}"
            yield ""
            yield from _table(("Dependency", "Asked for", "Group"), map(_dependency_row, manifest["dependencies"]))
            yield ""
    empty = [code(manifest["path"]) for manifest in dependencies["manifests"] if not manifest["dependencies"]]
    if empty:
        yield f"Without dependencies: {', '.join(empty)}."
        yield ""
    for problem in dependencies["problems"]:
        yield f"- {code(problem['path'])} cannot be read: {plain(problem['why'])}"


def _dependency_row(dependency: JsonValue) -> tuple[str, ...]:
    spec = code(dependency["spec"]) if dependency["spec"] else "any"
    return plain(dependency["name"]), spec, plain(dependency["group"])


def _left_out(material: JsonValue) -> Lines:
    said = [line for part in ("activity", "inventory", "dependencies") for line in material[part]["leftOut"]]
    if not said:
        yield "Nothing: every commit of the period and every listed file was looked at."
    for line in said:
        yield f"- {plain(line)}"


def _without_blank_end(lines: Lines) -> list[str]:
    kept = list(lines)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    yield _row(head)
    yield _row(["---", *["---:" if name in {"Commits", "Files", "Lines", "Size"} else "---" for name in head[1:]]])
    for row in rows:
        yield _row(row)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _share(language: JsonValue, lines: int) -> str:
    return f"{language['language']} ({round(100 * language['lines'] / lines)} %)"


def _quoted(text: str) -> str:
    return f"“{plain(text)}”" if text else "without a message"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{_number(number)} {one if number == 1 else many or one + 's'}"


def _number(number: int) -> str:
    return f"{number:,}"


def _size(size_bytes: int) -> str:
    if size_bytes < 1024:
        return f"{size_bytes} B"
    size = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def _day(moment: str) -> str:
    day = datetime.date.fromisoformat(moment[:10])
    return f"{day.day} {day:%B %Y}"


def _moment(moment: str) -> str:
    return f"{_day(moment)}, {moment[11:16]}"
