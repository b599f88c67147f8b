"""Joins what the desks found, and judges it: a briefing that says nothing or contradicts itself is not written."""

from __future__ import annotations

from collections.abc import Iterator

from rawr.sdk import DeskContext, DeskFailed, JsonValue, desk_handler


@desk_handler("briefing.assemble")
def assemble(found: JsonValue, ctx: DeskContext) -> JsonValue:  # noqa: ARG001 - every handler has a context
    """The findings of all upstream desks as one document."""
    scope = found["scope"]
    return {
        "repository": scope["repository"],
        "generatedAt": scope["generatedAt"],
        "since": scope["since"],
        "days": scope["limits"]["days"],
        "activity": found["activity"],
        "inventory": found["inventory"],
        "dependencies": found["dependencies"],
    }


@desk_handler("briefing.review")
def review(material: JsonValue, ctx: DeskContext) -> JsonValue:  # noqa: ARG001 - every handler has a context
    """`material`, once it says something and does not contradict itself."""
    name = material["repository"]["name"]
    if not material["repository"]["commits"] and not material["inventory"]["files"]:
        raise DeskFailed(f"{name} is empty: it has neither commits nor files, so there is nothing to brief on")
    wrong = list(contradictions(material))
    if wrong:
        raise DeskFailed(f"the findings about {name} contradict each other: {'; '.join(wrong)}")
    return {**material, "checked": ["not empty", "activity adds up", "inventory adds up", "dependencies add up"]}


def contradictions(material: JsonValue) -> Iterator[str]:
    """Every way in which the findings cannot all be true. Lists that are shortened can only be bounded."""
    yield from _in_activity(material["repository"], material["activity"])
    yield from _in_inventory(material["inventory"])
    declared = sum(manifest["count"] for manifest in material["dependencies"]["manifests"])
    if declared != material["dependencies"]["count"]:
        yield f"{material['dependencies']['count']} dependencies, but the manifests declare {declared}"


def _in_activity(repository: JsonValue, activity: JsonValue) -> Iterator[str]:
    commits, authors = activity["commits"], activity["authors"]
    if commits and repository["head"] is None:
        yield f"{commits} commits in the period, but the repository has none"
    if repository["commitsExact"] and commits > repository["commits"]:
        yield f"{commits} commits in the period, but only {repository['commits']} in all"
    by_authors, unlisted = sum(author["commits"] for author in authors), activity["authorCount"] - len(authors)
    if unlisted < 0 or (commits > 0) != (len(authors) > 0):
        yield f"{commits} commits in the period by {activity['authorCount']} authors, but {len(authors)} are listed"
    elif by_authors + unlisted > commits or (unlisted == 0 and by_authors != commits):
        yield f"{commits} commits in the period, but {by_authors} by its authors"
    for hot in activity["hotFiles"]:
        if hot["commits"] > commits:
            yield f"{hot['path']} changed in {hot['commits']} of {commits} commits"


def _in_inventory(inventory: JsonValue) -> Iterator[str]:
    for what, of_all in (("lines", "lines"), ("files", "filesRead")):
        of_languages = sum(language[what] for language in inventory["languages"])
        if of_languages != inventory[of_all]:
            yield f"{inventory[of_all]} {what} in all, but {of_languages} by language"
    if inventory["filesRead"] > inventory["files"]:
        yield f"{inventory['filesRead']} files read, but only {inventory['files']} listed"
    for large in inventory["largest"]:
        if large["bytes"] > inventory["bytes"]:
            yield f"{large['path']} is larger than all files together"
    if len(inventory["notes"]["places"]) > inventory["notes"]["count"]:
        yield f"{inventory['notes']['count']} notes, but {len(inventory['notes']['places'])} places"
