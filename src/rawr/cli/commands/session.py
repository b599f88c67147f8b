"""`rawr session …`: who is signed in to the console."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome
from rawr.errors import BadInputError

if TYPE_CHECKING:
    from rawr.security.sessions import Sessions


@command("list", "List the sessions of the console.")
def list_(invocation: Invocation) -> Outcome:
    """When a session was last used is known to the minute or so."""
    from rawr.clock import SystemClock
    from rawr.security.credentials import SecretsFolder
    from rawr.security.last_used import LastUsed
    from rawr.security.sessions import SESSION_LIVES_MS
    from rawr.wire import iso_from_ms

    clock = SystemClock()
    used = LastUsed(SecretsFolder(invocation.instance.layout.secrets).last_used_path(), clock).stored()
    now_ms = clock.now_ms()
    live = [
        session
        for session in _sessions(invocation).stored()
        if session.is_live(now_ms, used_at_ms=used.get(session.session_id))
    ]
    rows = [
        {
            "id": session.session_id,
            "openedAt": iso_from_ms(session.opened_at_ms),
            "lastUsedAt": iso_from_ms(used.get(session.session_id, session.opened_at_ms)),
            "expiresAt": iso_from_ms(session.opened_at_ms + SESSION_LIVES_MS),
        }
        for session in live
    ]
    text = "\n".join(f"{row['id']}  opened {row['openedAt']}  used {row['lastUsedAt']}" for row in rows)
    return Outcome(data={"sessions": rows}, text=text or "nobody is signed in")


@command("revoke", "Sign out one session, or all.")
@click.argument("session_id", metavar="[ID]", required=False)
@click.option("--all", "every", is_flag=True, help="All of them.")
def revoke(invocation: Invocation, session_id: str | None, every: bool) -> Outcome:
    """A running server does not know it from its next request on."""
    if every == (session_id is not None):
        raise BadInputError("give the id of a session, or --all", fix="rawr session list")
    sessions = _sessions(invocation)
    if session_id is None:
        count = sessions.end_all()
        return Outcome(data={"revoked": count}, text=f"signed out: {count}")
    sessions.revoke(session_id)
    return Outcome(data={"revoked": 1}, text=f"signed out {session_id}")


def _sessions(invocation: Invocation) -> Sessions:
    from rawr.clock import SystemClock
    from rawr.security.credentials import SecretsFolder
    from rawr.security.sessions import Sessions

    return Sessions(SecretsFolder(invocation.instance.layout.secrets).sessions_path(), SystemClock())
