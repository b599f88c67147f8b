"""Showing a run while it is under way, on stderr: a live table on a terminal, plain lines otherwise, or nothing.

rich is imported only when there is a terminal to draw on.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import click

from rawr.cli.context import Invocation
from rawr.cli.output import clean, colour_wanted
from rawr.cli.timeline import elapsed_s, event_line
from rawr.coordination.model import EventType, TimelineEvent, Workflow

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class Progress(AbstractContextManager["Progress", None], Protocol):
    """Drawn while the `with` block lasts."""

    def event(self, event: TimelineEvent) -> None: ...


def progress_for(invocation: Invocation, workflow: Workflow) -> Progress:
    """The way of showing a run of `workflow` that suits who looks at it."""
    if invocation.json or invocation.quiet:
        return Silent()
    if sys.stderr.isatty() and colour_wanted(sys.stderr, invocation.environ):
        return LiveTable(workflow)
    return Lines()


class Silent:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def event(self, event: TimelineEvent) -> None:  # noqa: ARG002 - it is silent
        return None


class Lines(Silent):
    """One line for each event."""

    def __init__(self) -> None:
        self._first: TimelineEvent | None = None
        self._started: dict[str, TimelineEvent] = {}

    def event(self, event: TimelineEvent) -> None:
        self._first = self._first or event
        click.echo(event_line(event, self._first, self._started), err=True)


class LiveTable:
    """A line for each desk that changes as the desk does; left standing when the run has ended."""

    def __init__(self, workflow: Workflow) -> None:
        self._desks: dict[str, _DeskLine] = {
            desk.desk_id: _DeskLine(desk.desk_id, desk.name) for desk in workflow.desks
        }
        self._live: Live | None = None

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self._live = Live(get_renderable=self._table, console=console, refresh_per_second=10)
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def event(self, event: TimelineEvent) -> None:
        if isinstance(event.desk_id, str):
            line = self._desks.setdefault(event.desk_id, _DeskLine(event.desk_id, event.desk_id))
            line.take(event)

    def _table(self) -> Table:
        from rich.table import Table

        table = Table.grid(padding=(0, 2))
        for line in self._desks.values():
            table.add_row(*line.cells())
        return table


class _DeskLine:
    """What is known of one desk."""

    def __init__(self, desk_id: str, name: str) -> None:
        self._desk_id = desk_id
        self._name = name
        self._started: TimelineEvent | None = None
        self._last: TimelineEvent | None = None
        self._spinner: Any = None

    def take(self, event: TimelineEvent) -> None:
        if event.type is EventType.DESK_STARTED:
            self._started = event
        self._last = event

    def cells(self) -> tuple[Any, ...]:
        from rich.text import Text

        mark, style, note = self._state()
        return mark, Text(self._desk_id, style=style), Text(clean(self._name), style="dim"), Text(note, style=style)

    def _state(self) -> tuple[Any, str, str]:
        from rich.spinner import Spinner
        from rich.text import Text

        if self._last is None or self._started is None:
            return Text("·", style="dim"), "dim", "waits"
        took = f"{elapsed_s(self._started, self._last):.2f} s"
        match self._last.type:
            case EventType.DESK_COMPLETED:
                return Text("✓", style="green"), "", took
            case EventType.DESK_FAILED:
                detail = self._last.detail if isinstance(self._last.detail, str) else "failed"
                return Text("✗", style="red"), "red", clean(detail)
            case _:
                self._spinner = self._spinner or Spinner("dots")
                return self._spinner, "cyan", "works"
