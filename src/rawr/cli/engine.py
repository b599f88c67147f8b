"""The engine's file as the commands use it, and what all of them show alike."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
import msgspec

from rawr.cli.context import Invocation
from rawr.cli.output import Outcome, clean, show
from rawr.clock import SystemClock
from rawr.errors import RawrError
from rawr.execution.embedded.admin import EngineAdmin

T = TypeVar("T")

WATCH_S: Final = 0.5
"""Between two looks at the file's version, which is all that is read while nothing changes."""
LOOKS: Final = 10
"""After so many of them the answer is asked for again, whatever the version."""
VALUE_WIDTH: Final = 300


class EngineElsewhereError(RawrError):
    """An Inngest server is the engine of this HQ; the embedded one is not used."""

    code = "ENGINE_ELSEWHERE"


def with_engine(invocation: Invocation, work: Callable[[EngineAdmin], Awaitable[T]]) -> T:
    """Do something with the file of the embedded engine, whoever else works on it."""

    async def main() -> T:
        async with opened(invocation) as admin:
            return await work(admin)

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def opened(invocation: Invocation) -> AsyncIterator[EngineAdmin]:
    layout = invocation.instance.layout
    admin = await asyncio.to_thread(EngineAdmin, layout.engine_database, layout.run, SystemClock())
    try:
        yield admin
    finally:
        await asyncio.to_thread(admin.close)


def refuse_elsewhere(invocation: Invocation, what: str) -> None:
    """For commands that make no sense while an Inngest server is the engine.

    Raises:
        EngineElsewhereError
    """
    engine = invocation.config().engine
    if engine.mode == "inngest":
        raise EngineElsewhereError(
            f'{what}: the engine of this HQ is the Inngest server at {engine.base_url} ([engine] mode = "inngest")',
            details={"url": engine.base_url},
            fix=f"use its own pages, {engine.trace_url or engine.base_url}",
        )


def warn_elsewhere(invocation: Invocation) -> None:
    """For commands that show what the embedded engine still knows."""
    engine = invocation.config().engine
    if engine.mode == "inngest":
        invocation.warn(f"this is the embedded engine; new runs are with the Inngest server at {engine.base_url}")


def watched(
    invocation: Invocation,
    question: Callable[[EngineAdmin], Awaitable[Outcome]],
    *,
    is_over: Callable[[Outcome], bool] = lambda _: False,
) -> Outcome:
    """Show the answer again whenever it has changed, until it is over or Ctrl-C. For machines each is one line."""

    async def main() -> Outcome:
        async with opened(invocation) as admin:
            shown = None
            async for _ in _changes(admin):
                outcome = await question(admin)
                if shown is None or outcome.data != shown.data:
                    _show_again(invocation, outcome)
                    shown = outcome
                if is_over(outcome):
                    break
            assert shown is not None
            return msgspec.structs.replace(shown, is_shown=True)

    try:
        return asyncio.run(main())
    except KeyboardInterrupt:
        return Outcome(data=None, is_shown=True)


async def _changes(admin: EngineAdmin) -> AsyncIterator[None]:
    """Now, after every change of the file, and now and then: some answers depend on the time alone."""
    while True:
        seen = admin.data_version()
        yield
        for _ in range(LOOKS):
            await asyncio.sleep(WATCH_S)
            if admin.data_version() != seen:
                break


def _show_again(invocation: Invocation, outcome: Outcome) -> None:
    if invocation.json:
        sys.stdout.write(msgspec.json.encode({"ok": outcome.error is None, "data": outcome.data}).decode() + "\n")
        sys.stdout.flush()
        return
    if sys.stdout.isatty():
        click.clear()
    show(invocation, outcome.text + "\n")
    sys.stdout.flush()


def when(ms: int | None) -> str:
    """A time as people in its place read it, to the second; `-` for none."""
    if ms is None:
        return "-"
    return datetime.fromtimestamp(ms / 1000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def iso(ms: int | None) -> str | None:
    from rawr.wire import iso_from_ms

    return None if ms is None else iso_from_ms(ms)


def span(ms: int) -> str:
    """A length of time in one or two units: `41 ms`, `1.2 s`, `4 min 5 s`, `3 d 2 h`."""
    if ms < 1000:
        return f"{ms} ms"
    seconds = ms / 1000
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s"
    hours, rest_min = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {rest_min} min"
    return f"{hours // 24} d {hours % 24} h"


def shortened(value: Any, *, full: bool) -> str:
    """A JSON value on one line, cut with a note where it is long."""
    text = msgspec.json.encode(value).decode()
    if full or len(text) <= VALUE_WIDTH:
        return clean(text)
    return clean(text[:VALUE_WIDTH]) + f" … ({len(text)} characters; --full shows all)"


def wire(value: Any) -> Any:
    """For machines: milliseconds become ISO times, and their keys lose the unit."""
    return _timed(msgspec.to_builtins(value))


def _timed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_timed(child) for child in value]
    if not isinstance(value, dict):
        return value
    return dict(_timed_item(key, child) for key, child in value.items())


def _timed_item(key: str, child: Any) -> tuple[str, Any]:
    if key.endswith("Ms") and (child is None or isinstance(child, int)):
        return key[:-2], iso(child)
    # What came from outside stays as it is, whatever its keys are.
    return key, child if key in ("event", "output", "error", "data") else _timed(child)


def columns(rows: Sequence[tuple[str, ...]], header: tuple[str, ...]) -> str:
    """Left-aligned columns under a dim header."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    lines = [_line(header, widths)]
    return "\n".join([click.style(lines[0], dim=True), *[_line(row, widths) for row in rows]])


def _line(row: tuple[str, ...], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


@contextlib.contextmanager
def interrupted_is(message: str, *, fix: str) -> Iterator[None]:
    """Say what goes on without us when Ctrl-C ends the block."""
    from rawr.cli.output import LeftRunningError

    try:
        yield
    except KeyboardInterrupt as error:
        raise LeftRunningError(message, details={}, fix=fix) from error
