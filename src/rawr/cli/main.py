"""From arguments to an exit code: groups that read the static table, and the one place where faults are caught."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

import click

from rawr.cli.context import (
    HelpWanted,
    Invocation,
    RawrCommand,
    UnknownCommand,
    VersionWanted,
    base_options,
    version_option,
    version_text,
)
from rawr.cli.help import group_help
from rawr.cli.table import TABLE, Command, Path, Table

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from rawr.cli.output import Outcome


def run(argv: Sequence[str], *, table: Table = TABLE) -> int:
    """Run one command line and return its exit code. Nothing is raised but what ends the process anyway."""
    root = LazyGroup((), table)
    if instruction := os.environ.get("_RAWR_COMPLETE"):
        return _complete(root, instruction)
    invocation = Invocation(argv, environ=os.environ)
    try:
        exit_code = _run(root, list(argv), invocation)
    except BrokenPipeError:
        return _reader_has_gone()
    if invocation.leave_at_once:
        _leave(exit_code)
    return exit_code


class LazyGroup(click.Group):
    """A group whose commands are rows of the table; a command is imported only when it runs."""

    def __init__(self, path: Path, table: Table) -> None:
        text = table.groups[path]
        super().__init__(
            name=path[-1] if path else "rawr", help=text, short_help=text, add_help_option=False, no_args_is_help=False
        )
        self.params.extend(base_options() if path else [version_option(), *base_options()])
        self._path = path
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name, _ in self._table.children(self._path)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        path = (*self._path, cmd_name)
        if path in self._table.groups:
            return LazyGroup(path, self._table)
        row = self._table.commands.get(path)
        return None if row is None else load(row)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = self.get_command(ctx, args[0])
        if found is None and not ctx.resilient_parsing:
            raise UnknownCommand(args[0], self.list_commands(ctx), ctx)
        return args[0] if found else None, found, args[1:]

    def get_help(self, ctx: click.Context) -> str:  # noqa: ARG002 - click's signature
        return group_help(self._table, self._path)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        names = [
            CompletionItem(name, help=text)
            for name, text in self._table.children(self._path)
            if name.startswith(incomplete)
        ]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


def load(row: Command) -> RawrCommand:
    """The command of a row of the table."""
    module, _, attribute = row.target.partition(":")
    found = getattr(import_module(module), attribute)
    assert isinstance(found, RawrCommand), row.target
    return found


def _run(root: LazyGroup, argv: list[str], invocation: Invocation) -> int:
    try:
        outcome = _outcome(root, argv, invocation)
    except HelpWanted as wanted:
        return _show(invocation, wanted.context.get_help(), "help")
    except VersionWanted:
        return _show(invocation, version_text(), "version")
    except KeyboardInterrupt as interrupt:
        from rawr.cli.output import render_interrupt

        return render_interrupt(invocation, interrupt)
    except click.ClickException as error:
        from rawr.cli.output import render_usage_error

        return render_usage_error(invocation, error)
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge: whatever went wrong, the caller gets one document
        from rawr.cli.output import render_error

        return render_error(invocation, error)
    from rawr.cli.output import render

    return render(invocation, outcome)


def _outcome(root: LazyGroup, argv: list[str], invocation: Invocation) -> Outcome:
    with root.make_context("rawr", argv, obj=invocation) as context:
        outcome: Any = root.invoke(context)
    return outcome  # type: ignore[no-any-return]  # click does not know what commands return


def _show(invocation: Invocation, text: str, name: str) -> int:
    if invocation.json:
        from rawr import __version__
        from rawr.cli.output import Outcome, render

        return render(invocation, Outcome(data={name: __version__ if name == "version" else text}))
    click.echo(text)
    return 0


def _complete(root: LazyGroup, instruction: str) -> int:
    from click.shell_completion import shell_complete

    return shell_complete(root, {}, "rawr", "_RAWR_COMPLETE", instruction)


def _leave(exit_code: int) -> NoReturn:
    """End the process without waiting for its threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_code)


def _reader_has_gone() -> int:
    """`rawr ... | head` has what it wanted. Python would complain again when it flushes stdout at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
