"""`rawr token …`: keys for programs, and the key of the command line itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome, clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rawr.security.credentials import NewToken, TokenRecord, TokenStore

CLI_KEY: Final = "cli"
"""Stands for the key of the command line where the id of another key would be."""
MS_PER_DAY: Final = 86_400_000
MS_PER_MINUTE: Final = 60_000
RATE_MAX: Final = 10_000_000


@command("create", "Make an API key. It is shown once.")
@click.option("--name", required=True, help="What the key is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    help="orpc:*, orpc:NAMESPACE, workflows:* or workflows:CAPABILITY; rpc:* or rpc:NAMESPACE. May be repeated.",
)
@click.option(
    "--class",
    "caller_class",
    type=click.Choice(["external", "trusted-service", "internal"]),
    default="external",
    help="external for /api, the others for /rpc.",
)
@click.option(
    "--principal", type=click.Choice(["person", "agent", "service"]), default="service", help="Who will hold it."
)
@click.option("--expires-in-days", type=click.FloatRange(min=0, min_open=True), help="When it ends to be valid.")
@click.option("--rate-per-minute", type=click.IntRange(1, RATE_MAX), help="How often it may call.")
def create(
    invocation: Invocation,
    *,
    name: str,
    scopes: tuple[str, ...],
    caller_class: str,
    principal: str,
    expires_in_days: float | None,
    rate_per_minute: int | None,
) -> Outcome:
    """Only its hash is kept. A running server accepts it at once: Authorization: Bearer TOKEN."""
    from rawr.security.policy import CallerClass, PrincipalKind

    made = _store(invocation).create(
        name,
        scopes,
        caller_class=CallerClass(caller_class),
        principal=PrincipalKind(principal),
        expires_at_ms=_end_of(expires_in_days),
        rate_per_minute=rate_per_minute,
    )
    return _shown_once(made)


@command("list", "List API keys, without their secrets.")
def list_(invocation: Invocation) -> Outcome:
    """When a key was last used is known to the minute or so."""
    from rawr.clock import SystemClock
    from rawr.security.credentials import SecretsFolder
    from rawr.security.last_used import LastUsed

    records = _store(invocation).records()
    used = LastUsed(SecretsFolder(invocation.instance.layout.secrets).last_used_path(), SystemClock()).stored()
    public = [_public(record, used) for record in records]
    return Outcome(data={"tokens": public}, text="\n".join(map(_row, public)) or "no API keys")


@command("rotate", "Give an API key a new secret. It is shown once.")
@click.argument("token_id", metavar="ID")
@click.option(
    "--overlap-minutes",
    type=click.FloatRange(0, 30 * 24 * 60),
    default=60.0,
    show_default=True,
    help="How long the secret before still works.",
)
@click.option("--expires-in-days", type=click.FloatRange(min=0, min_open=True), help="A new end.")
def rotate(invocation: Invocation, token_id: str, overlap_minutes: float, expires_in_days: float | None) -> Outcome:
    """Its id, name, scopes and rate stay. The id cli is the key of the command line: that is replaced at once."""
    if token_id == CLI_KEY:
        return _rotate_cli_key(invocation)
    overlap_ms = round(overlap_minutes * MS_PER_MINUTE)
    return _shown_once(
        _store(invocation).rotate(token_id, overlap_ms=overlap_ms, expires_at_ms=_end_of(expires_in_days))
    )


@command("revoke", "Take an API key back at once.")
@click.argument("token_id", metavar="ID")
def revoke(invocation: Invocation, token_id: str) -> Outcome:
    """Running servers refuse it from their next call on."""
    record = _store(invocation).revoke(token_id)
    return Outcome(data={"revoked": _public(record)}, text=f"revoked {record.token_id} ({clean(record.name)})")


def _rotate_cli_key(invocation: Invocation) -> Outcome:
    from rawr.security.credentials import SecretsFolder

    folder = SecretsFolder(invocation.instance.layout.secrets)
    folder.renew_cli_key()
    path = str(folder.cli_key_path())
    return Outcome(data={"rotated": CLI_KEY, "path": path}, text=f"{path} holds a new key")


def _shown_once(made: NewToken) -> Outcome:
    return Outcome(
        data={"token": made.token, **_public(made.record)},
        text=f"{made.token}\n\nThis is the only time that it is shown. Its id is {made.record.token_id}.",
    )


def _end_of(days: float | None) -> int | None:
    from rawr.clock import SystemClock

    return None if days is None else SystemClock().now_ms() + round(days * MS_PER_DAY)


def _public(record: TokenRecord, used_at_ms: Mapping[str, int] | None = None) -> dict[str, object]:
    """The record without the hashes, which nobody needs to see."""
    from rawr.wire import iso_from_ms

    before = record.before
    times = {
        "expiresAt": record.expires_at_ms,
        "formerSecretEndsAt": None if before is None else before.ends_at_ms,
        "lastUsedAt": None if used_at_ms is None else used_at_ms.get(record.token_id),
    }
    return {
        "id": record.token_id,
        "name": record.name,
        "class": record.caller_class.value,
        "scopes": list(record.scopes),
        "principal": record.principal.value,
        "createdAt": record.created_at,
        **({} if record.rate_per_minute is None else {"ratePerMinute": record.rate_per_minute}),
        **{name: iso_from_ms(at_ms) for name, at_ms in times.items() if at_ms is not None},
    }


def _row(public: Mapping[str, object]) -> str:
    scopes = public["scopes"]
    assert isinstance(scopes, list)
    return "  ".join(
        (
            str(public["id"]),
            f"{public['class']}/{public['principal']}",
            " ".join(scopes),
            f"used {public.get('lastUsedAt', 'never')}",
            f"ends {public.get('expiresAt', 'never')}",
            f"{public.get('ratePerMinute', 'default')}/min",
            clean(str(public["name"])),
        )
    )


def _store(invocation: Invocation) -> TokenStore:
    from rawr.clock import SystemClock
    from rawr.security.credentials import TokenStore

    return TokenStore(invocation.instance.layout.tokens, SystemClock())
