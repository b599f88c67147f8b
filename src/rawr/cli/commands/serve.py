"""`rawr serve`: the server itself. `rawr up` starts it in the background."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from rawr.cli.bind_options import host_option, insecure_bind_option
from rawr.cli.context import Invocation, command
from rawr.cli.host_settings import host_settings
from rawr.cli.output import Outcome
from rawr.errors import RawrError

if TYPE_CHECKING:
    from rawr.host.settings import HostSettings


@command("serve", "Run the server in the foreground.")
@click.option("--port", type=click.IntRange(0, 65535), help="Instead of the configured one; 0 takes a free one.")
@host_option
@insecure_bind_option
@click.option("--background", is_flag=True, hidden=True, help="Report errors as one line of JSON, for `rawr up`.")
def serve(invocation: Invocation, port: int | None, host: str | None, insecure_bind: bool, background: bool) -> Outcome:
    """It ends on Ctrl-C or SIGTERM, after the requests that are under way, and at once when told again.

    Its log goes to stderr; what was asked of it goes to .rawr/logs/access.jsonl. SIGHUP opens that file anew and
    reads the certificate again.
    """
    try:
        settings = _settings(invocation, port, host, insecure_bind)
        _serve(invocation, settings)
    except RawrError as error:
        if background:
            _report(error)
        raise
    return Outcome(data={"stopped": True})


def _settings(invocation: Invocation, port: int | None, host: str | None, insecure_bind: bool) -> HostSettings:
    return host_settings(
        invocation.config(),
        root=invocation.instance.root,
        environ=invocation.environ,
        port=port,
        host=host,
        insecure_bind=insecure_bind,
    )


def _serve(invocation: Invocation, settings: HostSettings) -> None:
    from rawr.host.serve import serve as serve_until_stopped
    from rawr.hq import load_manifest

    instance = invocation.instance
    manifest = load_manifest(instance.root)
    serve_until_stopped(instance.root, instance.id, manifest, settings)


def _report(error: RawrError) -> None:
    """What `rawr up` reads from the log when the server ends before it was ready."""
    from rawr.wire import encode

    entry = {"level": "error", "code": error.code, "message": error.message, "details": error.details, "fix": error.fix}
    sys.stderr.write(encode(entry).decode() + "\n")
