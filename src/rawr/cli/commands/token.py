"""`rawr token …`: API keys for the published route families."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from rawr.security.credentials import TokenRecord, TokenStore


@command("create", "Make an API key. It is shown once.")
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    help="orpc:*, orpc:NAMESPACE, workflows:* or workflows:CAPABILITY. May be repeated.",
)
@click.option(
    "--principal", type=click.Choice(["person", "agent", "service"]), default="service", help="Who will hold it."
)
@click.option("--expires-in-days", type=click.FloatRange(min=0, min_open=True), help="When it ends to be valid.")
def create(
    invocation: Invocation, name: str, scopes: tuple[str, ...], principal: str, expires_in_days: float | None
) -> Outcome:
    """Only its hash is kept. A running server accepts it at once: Authorization: Bearer TOKEN."""
    from rawr.clock import SystemClock
    from rawr.security.policy import PrincipalKind

    expires_at_ms = None
    if expires_in_days is not None:
        expires_at_ms = SystemClock().now_ms() + round(expires_in_days * 86_400_000)
    made = _store(invocation).create(name, scopes, principal=PrincipalKind(principal), expires_at_ms=expires_at_ms)
    return Outcome(
        data={"token": made.token, **_public(made.record)},
        text=f"{made.token}\n\nThis is the only time that it is shown. Its id is {made.record.token_id}.",
    )


@command("list", "List API keys, without their secrets.")
def list_(invocation: Invocation) -> Outcome:
    records = _store(invocation).records()
    rows = [
        f"{record.token_id}  {record.created_at}  {' '.join(record.scopes)}  {clean(record.name)}" for record in records
    ]
    return Outcome(data={"tokens": [_public(record) for record in records]}, text="\n".join(rows) or "no API keys")


@command("revoke", "Take an API key back at once.")
@click.argument("token_id", metavar="ID")
def revoke(invocation: Invocation, token_id: str) -> Outcome:
    """Running servers refuse it from their next call on."""
    record = _store(invocation).revoke(token_id)
    return Outcome(data={"revoked": _public(record)}, text=f"revoked {record.token_id} ({clean(record.name)})")


def _public(record: TokenRecord) -> dict[str, object]:
    """The record without the hash, which nobody needs to see."""
    from rawr.wire import iso_from_ms

    public: dict[str, object] = {
        "id": record.token_id,
        "name": record.name,
        "scopes": list(record.scopes),
        "principal": record.principal.value,
        "createdAt": record.created_at,
    }
    if record.expires_at_ms is not None:
        public["expiresAt"] = iso_from_ms(record.expires_at_ms)
    return public


def _store(invocation: Invocation) -> TokenStore:
    from rawr.clock import SystemClock
    from rawr.security.credentials import TokenStore

    return TokenStore(invocation.instance.layout.tokens, SystemClock())
