"""`rawr open`: the way from the terminal into the console."""

from __future__ import annotations

from typing import Final

from rawr.cli.context import Invocation, command
from rawr.cli.output import Outcome

HINT: Final = "The link works once, and for five minutes."


@command("open", "Get a link to the console of this HQ, for a browser.")
def open_(invocation: Invocation) -> Outcome:
    """Whoever opens the link first is signed in until the server stops, for twelve hours at most, or two unused."""
    from rawr.cli.server import require_server
    from rawr.clock import SystemClock
    from rawr.security.credentials import SecretsFolder
    from rawr.security.sessions import LoginCodes

    instance = invocation.instance
    server = require_server(instance)
    codes = LoginCodes(SecretsFolder(instance.layout.secrets).login_codes_path(), SystemClock())
    # The code stands in the fragment, which browsers never send: no log and no referrer gets to see it.
    url = f"{server.url}/console/login#{codes.mint()}"
    return Outcome(data={"url": url, "hint": HINT}, text=f"{url}\n\n{HINT}")
