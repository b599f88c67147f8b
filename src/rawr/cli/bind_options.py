"""Where a server listens, as `serve` and `up` let one say it."""

from __future__ import annotations

import click

host_option = click.option(
    "--host",
    metavar="ADDRESS",
    help="Instead of the configured one. Any but a loopback address needs [server] tls_cert and tls_key.",
)
insecure_bind_option = click.option(
    "--insecure-bind",
    is_flag=True,
    help="Let other machines reach the server without TLS: whoever is on the way can read every key.",
)
