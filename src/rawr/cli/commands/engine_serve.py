"""`rawr engine serve`: the durable engine as a server of its own, for apps of any Inngest SDK."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

import click

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome

if TYPE_CHECKING:
    from rawr.security.inngest_keys import ServerKeys

_FILE = click.Path(path_type=Path)


class Asked(TypedDict):
    host: str
    port: int
    dev: bool
    apps: tuple[str, ...]
    data: Path | None
    event_key_file: Path | None
    signing_key_file: Path | None
    trusted: tuple[str, ...]
    retention: str | None
    retry_interval: str | None


@command("serve", "Run the durable engine as a server for apps of any Inngest SDK.")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8288, show_default=True, help="0 takes a free one.")
@click.option("--dev", is_flag=True, help="Serve unsigned apps of this machine, and ask nobody for a key.")
@click.option(
    "--app",
    "-u",
    "apps",
    multiple=True,
    metavar="URL",
    envvar="RAWR_ENGINE_APPS",
    help="Ask the app at URL for its functions. Repeatable; or RAWR_ENGINE_APPS, with blanks between.",
)
@click.option("--data", type=_FILE, metavar="DIR", help="Where its file is; by default in the HQ around here, if any.")
@click.option("--event-key-file", type=_FILE, metavar="FILE", help="Event keys, one in a line.")
@click.option("--signing-key-file", type=_FILE, metavar="FILE", help="The signing key; below it one that ends soon.")
@click.option("--trusted-host", "trusted", multiple=True, metavar="NAME", help="Another host name it is called by.")
@click.option("--retention", metavar="TIME", help="Forget what ended that long ago: 30d, 12h. By default nothing.")
@click.option("--retry-interval", metavar="TIME", help="Between two attempts, instead of Inngest's backoff: 1s.")
def serve(invocation: Invocation, **asked: Unpack[Asked]) -> Outcome:
    """Apps in TypeScript, Go or Python register with it, send it events, and have their functions run: steps are
    remembered, and runs survive that the server or an app is killed at any moment.

    Without --dev it needs a signing key and an event key: INNGEST_SIGNING_KEY (and INNGEST_SIGNING_KEY_FALLBACK) and
    INNGEST_EVENT_KEY, or the files. Keys are never arguments. It needs no HQ, and ends on Ctrl-C or SIGTERM.
    """
    from rawr.host.engine_server.server import serve_engine
    from rawr.host.engine_server.settings import EngineServerSettings

    keys = _keys(invocation, asked)
    settings = EngineServerSettings(
        host=asked["host"],
        port=asked["port"],
        data=(asked["data"] or default_data(invocation)).resolve(),
        event_keys=() if keys is None else keys.event_keys,
        signing_keys=() if keys is None else keys.signing_keys,
        apps=asked["apps"],
        trusted_hosts=asked["trusted"],
        retention_ms=_ms(asked["retention"], "--retention"),
        retry_ms=_ms(asked["retry_interval"], "--retry-interval"),
    )
    serve_engine(settings)
    return Outcome(data={"stopped": True})


def default_data(invocation: Invocation) -> Path:
    """In the HQ around here or that was named; else in the user's data folder."""
    from rawr.workspace.root import InstanceNotFoundError

    try:
        return invocation.resolve().root / ".rawr" / "engine-server"
    except InstanceNotFoundError:
        if invocation.instance_given is not None:
            raise
    given = invocation.environ.get("XDG_DATA_HOME", "")
    base = Path(given) if Path(given).is_absolute() else invocation.home / ".local" / "share"
    return base / "rawr" / "engine"


def _keys(invocation: Invocation, asked: Asked) -> ServerKeys | None:
    from rawr.security.inngest_keys import read_server_keys

    event_key_file, signing_key_file = asked["event_key_file"], asked["signing_key_file"]
    if not asked["dev"]:
        return read_server_keys(
            event_key_file=event_key_file, signing_key_file=signing_key_file, environ=invocation.environ
        )
    if event_key_file is not None or signing_key_file is not None:
        raise click.UsageError("--dev looks at no key: leave --event-key-file and --signing-key-file out")
    return None


def _ms(text: str | None, option: str) -> int | None:
    from rawr.execution.embedded.durations import duration_ms

    if text is None:
        return None
    length_ms = duration_ms(text)
    if not length_ms:
        raise click.UsageError(f"{option} {text!r} is not a time like 30d, 12h or 1s, up to a year")
    return length_ms
