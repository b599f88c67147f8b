"""What a command is given: the flags every command has, and the instance it is about, resolved on first use.

Every invocation imports this, `--help` too, so it imports nothing heavier than click.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from rawr import __version__
from rawr.cli.table import BASE_FLAGS, VERSION_FLAG, Flag

if TYPE_CHECKING:
    from pathlib import Path

    from rawr.cli.output import Outcome
    from rawr.ids import InstanceId
    from rawr.instance.layout import InstanceLayout
    from rawr.workspace.config import Config
    from rawr.workspace.root import ResolvedInstance

C = TypeVar("C", bound=Callable[..., Any])


class Instance(NamedTuple):
    """The instance that a command is about. (No msgspec and no dataclass here: both would slow `--help` down.)"""

    layout: InstanceLayout
    id: InstanceId
    source: str

    @property
    def root(self) -> Path:
        return self.layout.root


class Invocation:
    """One run of the command line: its flags, where it was started, and what it has found out since."""

    def __init__(self, argv: Sequence[str], *, environ: Mapping[str, str]) -> None:
        self.environ = environ
        # Read before anything is parsed, so that errors of parsing have the right form as well.
        self.json = asks_for_json(argv)
        self.quiet = False
        self.yes = False
        self.dry_run = False
        self.instance_given: str | None = None
        self.global_owner = False
        self.warnings: list[str] = []
        self.leave_at_once = False
        """Set when threads are still at work that must not keep the process from ending."""
        self.resolved: ResolvedInstance | None = None
        self._instance: Instance | None = None
        self._started_ns = time.perf_counter_ns()

    def take(self, flag: str, value: Any) -> None:
        """Note a base flag that was given."""
        match flag:
            case "json":
                pass  # was seen before parsing
            case "instance":
                self.instance_given = str(value)
            case "global_owner":
                self.global_owner = True
            case "quiet":
                self.quiet = True
            case "yes":
                self.yes = True
            case "dry_run":
                self.dry_run = True
            case _:
                raise AssertionError(flag)

    @property
    def cwd(self) -> Path:
        from pathlib import Path

        try:
            return Path.cwd()
        except FileNotFoundError:
            # The folder was removed under the shell. What needs it will say that there is no instance.
            return Path(self.environ.get("PWD", os.sep))

    @property
    def home(self) -> Path:
        """The user's folder: `HOME`, else what the system knows. Not absolute when neither says a path."""
        from pathlib import Path

        return Path(self.environ.get("HOME") or os.path.expanduser("~"))

    @property
    def instance(self) -> Instance:
        """The instance, found and identified once.

        Raises:
            InstanceNotFoundError, GlobalOwnerError, CorruptFileError, StorageError
        """
        if self._instance is None:
            self._instance = self._identified()
        return self._instance

    def resolve(self) -> ResolvedInstance:
        """Where the instance is, without reading or making its identity.

        Raises:
            InstanceNotFoundError, GlobalOwnerError
        """
        from rawr.workspace.root import resolve_instance

        if self.resolved is None:
            self.resolved = resolve_instance(
                flag=self.instance_given, environ=self.environ, cwd=self.cwd, global_owner=self._asked_global_owner()
            )
            for warning in self.resolved.warnings:
                self.warn(warning)
        return self.resolved

    @property
    def known_instance(self) -> Instance | None:
        """The instance, if a command has already asked for it."""
        return self._instance

    @property
    def duration_ms(self) -> int:
        return (time.perf_counter_ns() - self._started_ns) // 1_000_000

    def config(self) -> Config:
        """Raises ConfigError."""
        from rawr.workspace.config import load_config

        return load_config(self.instance.root, environ=self.environ)

    def warn(self, text: str) -> None:
        """Tell the caller about something that did not stop the command."""
        if text not in self.warnings:
            self.warnings.append(text)

    def say(self, text: str) -> None:
        """Progress, for a person who waits. Never on stdout, and not for machines."""
        if not self.json and not self.quiet:
            click.echo(text, err=True)

    def _asked_global_owner(self) -> Callable[[], Path] | None:
        from rawr.workspace.root import ALLOW_GLOBAL_OWNER

        if not self.global_owner and self.environ.get(ALLOW_GLOBAL_OWNER) != "1":
            return None
        from rawr.instance.owner import global_owner_root

        return lambda: global_owner_root(self.home)

    def _identified(self) -> Instance:
        from rawr.clock import SystemClock, UlidSource
        from rawr.instance.identity import identify
        from rawr.instance.layout import InstanceLayout

        resolved = self.resolve()
        layout = InstanceLayout(resolved.root)
        identity = identify(layout, UlidSource(SystemClock()))
        return Instance(layout=layout, id=identity.id, source=resolved.source)


class HelpWanted(Exception):  # noqa: N818 - a request, not an error
    """`--help` was given for the command of this context."""

    def __init__(self, context: click.Context) -> None:
        super().__init__()
        self.context = context


class VersionWanted(Exception):  # noqa: N818 - a request, not an error
    """`--version` was given, and not alone (`rawr.__main__` answers that)."""


_WANTED: Final = {"help": HelpWanted, "version": lambda _: VersionWanted()}
"""The flags that are questions of their own."""


class UnknownCommand(click.UsageError):
    """No command of that name in this group."""

    def __init__(self, name: str, known: Sequence[str], ctx: click.Context) -> None:
        from difflib import get_close_matches

        self.close = get_close_matches(name, known, n=3)
        meant = f"; did you mean {' or '.join(self.close)}?" if self.close else ""
        super().__init__(f"there is no command '{ctx.command_path} {name}'{meant}", ctx)


class RawrCommand(click.Command):
    """A command with the base flags. `dry_run` says whether it knows what it would do."""

    def __init__(self, *args: Any, dry_run: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "add_help_option": False})
        self.params.extend(base_options())
        self.knows_dry_run = dry_run

    def invoke(self, ctx: click.Context) -> Any:
        invocation: Invocation = ctx.obj
        if invocation.dry_run and not self.knows_dry_run:
            raise click.UsageError(f"--dry-run has no meaning for '{ctx.command_path}'", ctx)
        return super().invoke(ctx)


def command(name: str, short_help: str, *, dry_run: bool = False) -> Callable[[Callable[..., Outcome]], RawrCommand]:
    """Make a function `(invocation, **parameters) -> Outcome` a command. Its docstring is the long help."""

    from inspect import cleandoc

    def decorate(function: Callable[..., Outcome]) -> RawrCommand:
        long_help = f"{short_help}\n\n{cleandoc(function.__doc__ or '')}"
        made: RawrCommand = click.command(
            name, cls=RawrCommand, short_help=short_help, help=long_help, dry_run=dry_run
        )(click.pass_obj(function))
        return made

    return decorate


def base_options() -> list[click.Option]:
    """The flags that may stand before and after the command. Made anew: click keeps state in them."""
    return [_option(flag) for flag in BASE_FLAGS]


def version_option() -> click.Option:
    return _option(VERSION_FLAG)


def _option(flag: Flag) -> click.Option:
    return click.Option(
        list(flag.names),
        metavar=flag.metavar,
        is_flag=flag.metavar is None,
        is_eager=flag.name in _WANTED,
        expose_value=False,
        callback=_want(_WANTED[flag.name]) if flag.name in _WANTED else _take(flag.name),
        help=flag.help,
    )


def asks_for_json(argv: Sequence[str]) -> bool:
    options = argv[: argv.index("--")] if "--" in argv else argv
    return "--json" in options


def version_text() -> str:
    return f"rawr {__version__}"


def _take(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that notes the flag when it is given; what stands later, or nearer to the command, wins."""

    def note(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            ctx.obj.take(name, value)

    return note


def _want(wanted: Callable[[click.Context], Exception]) -> Callable[[click.Context, click.Parameter, Any], None]:
    """A callback that ends parsing at once."""

    def end(ctx: click.Context, _: click.Parameter, value: Any) -> None:
        if value and not ctx.resilient_parsing:
            raise wanted(ctx)

    return end


def is_terminal(stream: Any) -> bool:
    """Whether a person looks at the stream. A closed one has nobody."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def stdout_is_terminal() -> bool:
    return is_terminal(sys.stdout)
