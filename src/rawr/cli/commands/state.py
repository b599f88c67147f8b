"""`rawr state show|path|history|diff|restore`: what the state is, was, and is to be again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
import msgspec

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from rawr.state.changes import Change
    from rawr.state.difference import Difference, ListChange
    from rawr.state.history import Past, Revision
    from rawr.state.store import RepoStateStore

HISTORY_LIMIT = 20
_revision = click.argument("revision", metavar="REV", type=click.IntRange(min=0))


@command("show", "Show which plugins are enabled.")
def show(invocation: Invocation) -> Outcome:
    store = _store(invocation)
    found = store.snapshot()
    plugins = found.state.plugins
    rows = [f"enabled   {', '.join(plugins.enabled) or 'none'}"]
    if plugins.disabled:
        rows.append(f"disabled  {', '.join(plugins.disabled)}")
    rows.append(f"revision  {found.revision}")
    data = {"state": msgspec.to_builtins(found.state), "revision": found.revision, "statePath": str(store.path)}
    return Outcome(data=data, text=clean("\n".join(rows)))


@command("path", "Show where the state is kept.")
def path(invocation: Invocation) -> Outcome:
    """For people it prints the path of the state alone; --json has the other files too."""
    files = _store(invocation).files
    data = {
        "statePath": str(files.state),
        "lockPath": str(files.lock_file),
        "kernelLockPath": str(files.kernel_lock),
        "journalPath": str(files.journal),
        "requestsPath": str(files.requests),
        "quarantined": [str(put_aside) for put_aside in files.quarantined],
        "exists": files.state.exists(),
    }
    return Outcome(data=data, text=str(files.state))


@command("history", "List the revisions of the state.")
@click.option("--limit", type=click.IntRange(min=1), default=HISTORY_LIMIT, show_default=True, help="At most so many.")
def history(invocation: Invocation, limit: int) -> Outcome:
    """Newest first. The journal forgets old revisions when it has grown past 1 MiB."""
    past = _past(invocation)
    shown = past.revisions[:limit]
    data = {"revisions": [_row(revision) for revision in shown], "known": len(past.revisions)}
    rows = [
        f"{row.revision:>6}  {row.at or 'not in the journal yet':<24}  {', '.join(map(_word, row.changes))}"
        for row in shown
    ]
    return Outcome(data=data, text=clean("\n".join(rows)) or "the state was never changed")


@command("diff", "Show what changed since a revision.")
@_revision
@click.argument("other", metavar="[REV2]", type=click.IntRange(min=0), required=False)
def diff(invocation: Invocation, revision: int, other: int | None) -> Outcome:
    """From REV to REV2, or to the state as it is. The time of the last change is left out: it always differs."""
    found = _difference(_past(invocation), revision, other)
    data = {"from": revision, "to": other, **msgspec.to_builtins(found)}
    return Outcome(data=data, text=clean(_lines(found)))


@command("restore", "Make the state what it was at a revision.", dry_run=True)
@_revision
def restore(invocation: Invocation, revision: int) -> Outcome:
    """That is a change like any other: a new revision, and nothing of the history is lost."""
    past = _past(invocation)
    wanted = past.revision(revision)
    if invocation.dry_run:
        found = _difference(past, None, revision)
        planned = {"action": "restore", "revision": revision, **msgspec.to_builtins(found)}
        return Outcome(data={"planned": planned}, text=clean(f"would restore revision {revision}\n{_lines(found)}"))
    result = _store(invocation).restore(revision, wanted.text)
    data = {"restored": revision, "revision": result.revision, "state": msgspec.to_builtins(result.state)}
    return Outcome(data=data, text=f"restored revision {revision} as revision {result.revision}")


def _difference(past: Past, before: int | None, after: int | None) -> Difference:
    from rawr.state.difference import difference

    return difference(past.document(before), past.document(after))


def _row(revision: Revision) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(revision)
    row["recorded"] = row.pop("is_recorded")
    del row["text"]
    return row


def _word(change: Change) -> str:
    match change.op:
        case "adopt":
            return "written by another program"
        case "recall":
            return "its own changes were lost in a power cut"
        case "recover":
            return f"restored from revision {change.rev}; the corrupt bytes are in {change.quarantine}"
        case "restore":
            return f"restore {change.rev}"
        case _:
            return change.op if change.id is None else f"{change.op} {change.id}"


def _lines(found: Difference) -> str:
    rows = [*_marked("enabled", found.enabled), *_marked("disabled", found.disabled)]
    rows += [f"~ {key}" for key in found.keys]
    return "\n".join(rows) or "no difference"


def _marked(name: str, change: ListChange) -> list[str]:
    return [f"+ {name} {entry}" for entry in change.gained] + [f"- {name} {entry}" for entry in change.lost]


def _past(invocation: Invocation) -> Past:
    from rawr.state.history import past_of

    return past_of(_store(invocation).files)


def _store(invocation: Invocation) -> RepoStateStore:
    from rawr.clock import SystemClock
    from rawr.state.store import RepoStateStore

    return RepoStateStore(invocation.instance.root, SystemClock(), notify=invocation.warn)
