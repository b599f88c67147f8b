"""Every command by its path, and the flags that all of them take. Data only, so that `--help` imports no command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

Path = tuple[str, ...]


class Command(NamedTuple):
    target: str
    """`module:attribute` of a click command of the same name and short help."""
    help: str


class Flag(NamedTuple):
    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    """Of its value; None when it takes none."""

    @property
    def name(self) -> str:
        """Its last name in Python's spelling: `dry_run`."""
        return self.names[-1].lstrip("-").replace("-", "_")


class Table(NamedTuple):
    commands: Mapping[Path, Command]
    groups: Mapping[Path, str]
    """The help of each group."""

    def children(self, path: Path) -> list[tuple[str, str]]:
        """`(name, short help)` of what is directly below a group, in the order of the table."""
        rows: dict[str, str] = {}
        for command_path, command in self.commands.items():
            if command_path[: len(path)] == path and len(command_path) > len(path):
                child = command_path[: len(path) + 1]
                rows.setdefault(child[-1], command.help if child == command_path else self.groups[child])
        return list(rows.items())


VERSION_FLAG: Final = Flag(("-V", "--version"), "Show the version.")

BASE_FLAGS: Final = (
    Flag(("--json",), "Print exactly one JSON document on stdout."),
    Flag(("-I", "--instance"), "The HQ to work on; by default the one around here.", "DIR"),
    Flag(("--global-owner",), "Outside of any HQ, work on the global owner."),
    Flag(("-q", "--quiet"), "No progress messages."),
    Flag(("-y", "--yes"), "Say yes to every question."),
    Flag(("--dry-run",), "Say what would be done, and do nothing."),
    Flag(("-h", "--help"), "Show this help."),
)
"""They may stand before and after the command."""

TABLE: Final = Table(
    commands={
        ("up",): Command("rawr.cli.commands.up:up", "Start the server of this HQ in the background."),
        ("down",): Command("rawr.cli.commands.down:down", "Stop the server of this HQ."),
        ("status",): Command("rawr.cli.commands.status:status", "Show whether the server of this HQ runs, and where."),
        ("open",): Command("rawr.cli.commands.open:open_", "Get a link to the console of this HQ, for a browser."),
        ("serve",): Command("rawr.cli.commands.serve:serve", "Run the server in the foreground."),
        ("init",): Command("rawr.cli.commands.init:init", "Make a folder an HQ with one small workflow."),
        ("instance", "current"): Command(
            "rawr.cli.commands.instance:current", "Show which HQ commands work on here, and why."
        ),
        ("doctor",): Command("rawr.cli.commands.doctor:doctor", "Check what an HQ needs, and say what is wrong."),
        ("version",): Command("rawr.cli.commands.version:version", "Show the version of rawr."),
        ("workflow", "coord", "create"): Command(
            "rawr.cli.commands.coord_edit:create", "Save a new workflow of two desks to begin from."
        ),
        ("workflow", "coord", "list"): Command("rawr.cli.commands.coord_edit:list_", "List the workflows of this HQ."),
        ("workflow", "coord", "validate"): Command(
            "rawr.cli.commands.coord_edit:validate", "Check a saved workflow and list every reason against it."
        ),
        ("workflow", "coord", "run"): Command("rawr.cli.commands.coord_run:run", "Run a workflow durably."),
        ("workflow", "coord", "status"): Command("rawr.cli.commands.coord_read:status", "Show a run."),
        ("workflow", "coord", "trace"): Command(
            "rawr.cli.commands.coord_read:trace", "Show the timeline of a run and check that it is complete."
        ),
        ("plugins", "web", "list"): Command("rawr.cli.commands.plugins_web:list_", "List web plugins."),
        ("plugins", "web", "enable"): Command("rawr.cli.commands.plugins_web:enable", "Enable a web plugin."),
        ("plugins", "web", "disable"): Command("rawr.cli.commands.plugins_web:disable", "Disable a web plugin."),
        ("plugins", "web", "status"): Command(
            "rawr.cli.commands.plugins_web:status", "Show which web plugins are enabled and can be served."
        ),
        ("token", "create"): Command("rawr.cli.commands.token:create", "Make an API key. It is shown once."),
        ("token", "list"): Command("rawr.cli.commands.token:list_", "List API keys, without their secrets."),
        ("token", "rotate"): Command(
            "rawr.cli.commands.token:rotate", "Give an API key a new secret. It is shown once."
        ),
        ("token", "revoke"): Command("rawr.cli.commands.token:revoke", "Take an API key back at once."),
        ("session", "list"): Command("rawr.cli.commands.session:list_", "List the sessions of the console."),
        ("session", "revoke"): Command("rawr.cli.commands.session:revoke", "Sign out one session, or all."),
        ("gates", "run"): Command("rawr.gates.command:run", "Prove by driving it that this HQ behaves as it must."),
        ("gates", "list"): Command("rawr.gates.command:list_", "List the conformance gates and what they prove."),
        ("engine", "serve"): Command(
            "rawr.cli.commands.engine_serve:serve", "Run the durable engine as a server for apps of any Inngest SDK."
        ),
        ("engine", "status"): Command(
            "rawr.cli.commands.engine:status", "Show what the engine has to do, and who works."
        ),
        ("engine", "runs"): Command("rawr.cli.commands.engine_runs:runs", "List the runs of durable functions."),
        ("engine", "run"): Command(
            "rawr.cli.commands.engine_runs:run", "Show a run: its steps, and what it waits for."
        ),
        ("engine", "events"): Command("rawr.cli.commands.engine_events:events", "List events, newest first."),
        ("engine", "send"): Command("rawr.cli.commands.engine_events:send", "Send an event."),
        ("engine", "cancel"): Command("rawr.cli.commands.engine_cancel:cancel", "End runs."),
        ("engine", "drain"): Command("rawr.cli.commands.engine:drain", "Let everything that is left run to its end."),
        ("engine", "vacuum"): Command(
            "rawr.cli.commands.engine_care:vacuum", "Forget old runs and give their space back."
        ),
        ("engine", "repair"): Command(
            "rawr.cli.commands.engine_care:repair", "Put a damaged file of the engine aside."
        ),
        ("state", "show"): Command("rawr.cli.commands.state:show", "Show which plugins are enabled."),
        ("state", "path"): Command("rawr.cli.commands.state:path", "Show where the state is kept."),
        ("state", "history"): Command("rawr.cli.commands.state:history", "List the revisions of the state."),
        ("state", "diff"): Command("rawr.cli.commands.state:diff", "Show what changed since a revision."),
        ("state", "restore"): Command("rawr.cli.commands.state:restore", "Make the state what it was at a revision."),
        ("state", "verify"): Command(
            "rawr.cli.commands.state_care:verify", "Check the files of the state, and say who holds its lock."
        ),
        ("state", "repair"): Command("rawr.cli.commands.state_care:repair", "Set right what can safely be."),
        ("state", "unlock"): Command(
            "rawr.cli.commands.state_care:unlock", "Remove the lock file of a process that is gone."
        ),
        ("engine", "accept-code"): Command(
            "rawr.cli.commands.engine_code:accept_code", "Let a run that waits for its old code go on with the new."
        ),
        ("engine", "replay"): Command(
            "rawr.cli.commands.engine_code:replay", "Compare what runs have done with what the code would do."
        ),
        ("engine", "rerun"): Command(
            "rawr.cli.commands.engine_code:rerun", "Run a run again as a new run, with the code that there is now."
        ),
    },
    groups={
        (): "rawr: a local-first AI headquarters.",
        ("instance",): "This HQ among others on this machine.",
        ("workflow",): "Workflows.",
        ("workflow", "coord"): "Coordination workflows: save, check, run and trace them.",
        ("plugins",): "Plugins of this HQ.",
        ("plugins", "web"): "Web plugins of this HQ: list, enable, disable.",
        ("token",): "Keys for programs: make, list, rotate, revoke.",
        ("session",): "Who is signed in to the console.",
        ("gates",): "Conformance gates of this HQ.",
        ("engine",): "The durable engine of this HQ: its runs, events and file.",
        ("state",): "What is enabled in this HQ, its history and its care.",
    },
)
