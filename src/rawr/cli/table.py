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
        ("token", "revoke"): Command("rawr.cli.commands.token:revoke", "Take an API key back at once."),
        ("engine", "serve"): Command(
            "rawr.cli.commands.engine_serve:serve", "Run the durable engine as a server for apps of any Inngest SDK."
        ),
        ("gates", "run"): Command("rawr.gates.command:run", "Prove by driving it that this HQ behaves as it must."),
        ("gates", "list"): Command("rawr.gates.command:list_", "List the conformance gates and what they prove."),
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
    },
    groups={
        (): "rawr: a local-first AI headquarters.",
        ("instance",): "This HQ among others on this machine.",
        ("workflow",): "Workflows.",
        ("workflow", "coord"): "Coordination workflows: save, check, run and trace them.",
        ("plugins",): "Plugins of this HQ.",
        ("plugins", "web"): "Web plugins of this HQ: list, enable, disable.",
        ("token",): "API keys for /api/orpc and /api/workflows.",
        ("engine",): "The durable engine that runs workflows and functions.",
        ("gates",): "Conformance gates of this HQ.",
        ("state",): "What is enabled in this HQ, its history and its care.",
    },
)
