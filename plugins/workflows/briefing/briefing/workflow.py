"""The workflow `repo-briefing`: find the repository, look at it from three sides at once, join, judge, write."""

from __future__ import annotations

from typing import Final

from rawr.sdk import JsonValue, workflow_from

from .schemas import ACTIVITY, DEPENDENCIES, FINDINGS, INVENTORY, MATERIAL, REQUEST, REVIEWED, SCOPE, WRITTEN, Schema


def _desk(
    desk_id: str,
    kind: str,
    responsibility: str,
    handler: str,
    *,
    takes: Schema,
    gives: Schema,
    retries: int = 0,
    timeout_s: int = 60,
) -> dict[str, JsonValue]:
    return {
        "deskId": desk_id,
        "kind": f"desk:{kind}",
        "name": desk_id.capitalize(),
        "responsibility": responsibility,
        "domain": "briefing",
        "handler": handler,
        "inputSchema": takes,
        "outputSchema": gives,
        "memoryScope": {"persist": False},
        "runtimePolicy": {"retries": retries, "timeoutSeconds": timeout_s},
    }


def _handoff(upstream: str, downstream: str) -> dict[str, JsonValue]:
    return {"handoffId": f"{upstream}-to-{downstream}", "fromDeskId": upstream, "toDeskId": downstream}


_SIDES: Final = ("activity", "inventory", "dependencies")

REPO_BRIEFING: Final = workflow_from(
    {
        "workflowId": "repo-briefing",
        "version": 1,
        "name": "Repository briefing",
        "description": "Briefs you on a git repository: activity, inventory and dependencies, as a Markdown file.",
        "entryDeskId": "scope",
        "desks": [
            _desk("scope", "analysis", "Find the repository", "repo.scope", takes=REQUEST, gives=SCOPE),
            _desk(
                "activity",
                "analysis",
                "Say who changed what lately",
                "repo.activity",
                takes=SCOPE,
                gives=ACTIVITY,
                retries=1,
            ),
            _desk(
                "inventory",
                "analysis",
                "Count lines, files and open notes",
                "repo.inventory",
                takes=SCOPE,
                gives=INVENTORY,
                retries=1,
                timeout_s=180,
            ),
            _desk(
                "dependencies",
                "analysis",
                "Read the dependency manifests",
                "repo.dependencies",
                takes=SCOPE,
                gives=DEPENDENCIES,
                retries=1,
            ),
            _desk("join", "join", "Bring the findings together", "briefing.assemble", takes=FINDINGS, gives=MATERIAL),
            _desk(
                "review",
                "qa",
                "Refuse findings that are empty or contradict each other",
                "briefing.review",
                takes=MATERIAL,
                gives=REVIEWED,
            ),
            _desk(
                "write",
                "execution",
                "Write the briefing to .rawr/reports",
                "briefing.write",
                takes=REVIEWED,
                gives=WRITTEN,
                retries=2,
            ),
        ],
        "handoffs": [
            *(_handoff("scope", side) for side in _SIDES),
            _handoff("scope", "join"),
            *(_handoff(side, "join") for side in _SIDES),
            _handoff("join", "review"),
            _handoff("review", "write"),
        ],
        "observabilityProfile": "full",
    }
)
