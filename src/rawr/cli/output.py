"""What a command gives back and how it is shown: one JSON document for machines, text for people.

With `--json` stdout holds exactly one document, whatever happens: usage errors, unknown commands, Ctrl-C and our
own faults included. For people the answer goes to stdout and everything else to stderr. A stack trace is never
shown; that of an unexpected fault goes into `.rawr/logs/cli.log`.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, TextIO

import click
import msgspec

from rawr import __version__
from rawr.cli.context import Invocation, UnknownCommand, is_terminal
from rawr.cli.exit_codes import OK, exit_code_of
from rawr.errors import RawrError


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a command found or did. `text` may be styled; the styles go when nobody would see them."""

    data: Any
    text: str = ""
    error: RawrError | None = None
    """Why the command failed although it has something to show."""
    is_shown: bool = False
    """Everything has been shown already, as it happened."""


class UsageError(RawrError):
    """The command line cannot be understood."""

    code = "USAGE"


class CommandNotFoundError(UsageError):
    code = "COMMAND_NOT_FOUND"


class UnexpectedError(RawrError):
    """A fault of ours."""

    code = "INTERNAL"


class InterruptError(RawrError):
    """Ctrl-C."""

    code = "INTERRUPTED"


class LeftRunningError(KeyboardInterrupt):
    """Ctrl-C while something was waited for that goes on without us."""

    def __init__(self, message: str, *, details: Mapping[str, object], fix: str) -> None:
        super().__init__(message)
        self.error = InterruptError(message, details=details, fix=fix)


def render(invocation: Invocation, outcome: Outcome) -> int:
    """Show the outcome; the exit code."""
    if outcome.is_shown:
        return _exit_code(outcome.error)
    if invocation.json:
        _write_document(_envelope(invocation, outcome))
        return _exit_code(outcome.error)
    for warning in invocation.warnings:
        _write(sys.stderr, f"{click.style('warning:', fg='yellow')} {clean(warning)}", invocation)
    if outcome.text:
        _write(sys.stdout, outcome.text, invocation)
    if outcome.error is not None:
        sys.stdout.flush()
        _write_error(outcome.error, invocation)
    return _exit_code(outcome.error)


def show(invocation: Invocation, text: str) -> None:
    """Write text for people to stdout now, before the command has ended."""
    _write(sys.stdout, text, invocation)


def render_error(invocation: Invocation, error: Exception) -> int:
    """Show what ended the command; the exit code."""
    return render(invocation, Outcome(data=None, error=as_rawr_error(invocation, error)))


def render_usage_error(invocation: Invocation, error: click.ClickException) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rawr"
    if isinstance(error, UnknownCommand):
        problem: RawrError = CommandNotFoundError(
            error.format_message(), details={"suggestions": error.close}, fix=f"{command} --help"
        )
    else:
        problem = UsageError(error.format_message(), details={"command": command}, fix=f"{command} --help")
    return render_error(invocation, problem)


def render_interrupt(invocation: Invocation, interrupt: KeyboardInterrupt) -> int:
    error = interrupt.error if isinstance(interrupt, LeftRunningError) else InterruptError("interrupted")
    return render_error(invocation, error)


def as_rawr_error(invocation: Invocation, error: Exception) -> RawrError:
    """The fault as callers are told about it. One that nobody foresaw is written to the log."""
    if isinstance(error, RawrError):
        return error
    name = type(error).__name__
    place = _keep_trace(invocation, error)
    where = f"; the trace is in {place}" if place else ""
    return UnexpectedError(f"rawr itself failed: {name}: {error}{where}", details={"exception": name, "log": place})


def clean(text: str) -> str:
    """Text from elsewhere without what could drive a terminal."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\N{REPLACEMENT CHARACTER}" for char in text)


def colour_wanted(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether styled text makes sense: `NO_COLOR`, then `FORCE_COLOR`, then `TERM=dumb` and a terminal decide."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return environ.get("TERM") != "dumb" and is_terminal(stream)


def _exit_code(error: RawrError | None) -> int:
    return OK if error is None else exit_code_of(error.code)


def _envelope(invocation: Invocation, outcome: Outcome) -> dict[str, object]:
    document: dict[str, object] = {"ok": outcome.error is None}
    if outcome.error is not None:
        document["error"] = _error_document(outcome.error)
    if outcome.error is None or outcome.data is not None:
        document["data"] = outcome.data
    if invocation.warnings:
        document["warnings"] = list(invocation.warnings)
    document["meta"] = _meta(invocation)
    return document


def _error_document(error: RawrError) -> dict[str, object]:
    document: dict[str, object] = {"code": error.code, "message": error.message}
    if error.details is not None:
        document["details"] = dict(error.details)
    if error.fix is not None:
        document["fix"] = error.fix
    return document


def _meta(invocation: Invocation) -> dict[str, object]:
    meta: dict[str, object] = {"rawrVersion": __version__, "durationMs": invocation.duration_ms}
    if (instance := invocation.known_instance) is not None:
        meta["instance"] = {"root": str(instance.root), "id": instance.id, "source": instance.source}
    elif (resolved := invocation.resolved) is not None:
        meta["instance"] = {"root": str(resolved.root), "source": resolved.source}
    return meta


def _write_document(document: Mapping[str, object]) -> None:
    """Exactly one JSON document, two-space indented, UTF-8 whatever the locale."""
    try:
        raw = msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=2)
    except (UnicodeEncodeError, msgspec.MsgspecError):
        # Arguments and paths that are no UTF-8 come as lone surrogates; JSON can only escape those.
        raw = json.dumps(msgspec.to_builtins(document, enc_hook=str), indent=2).encode("ascii")
    sys.stdout.flush()
    sys.stdout.buffer.write(raw + b"\n")
    sys.stdout.buffer.flush()


def _write_error(error: RawrError, invocation: Invocation) -> None:
    _write(sys.stderr, f"{click.style('error:', fg='red', bold=True)} {clean(error.message)}", invocation)
    for line in _details_for_people(error):
        _write(sys.stderr, f"  {clean(line)}", invocation)
    if error.fix is not None:
        _write(sys.stderr, f"  {click.style('try:', fg='cyan')} {clean(error.fix)}", invocation)


_LISTS_FOR_PEOPLE: Final = ("errors", "issues", "log")
"""Details that are lists of what a person must read; the others repeat what the message says."""


def _details_for_people(error: RawrError) -> list[str]:
    details = error.details or {}
    rows = [row for name in _LISTS_FOR_PEOPLE for row in _as_list(details.get(name))]
    return [row if isinstance(row, str) else _one_line(row) for row in rows]


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _one_line(row: Any) -> str:
    if isinstance(row, Mapping) and "message" in row:
        return f"{row['code']}: {row['message']}" if "code" in row else str(row["message"])
    return str(row)


def _write(stream: TextIO, text: str, invocation: Invocation) -> None:
    shown = text if colour_wanted(stream, invocation.environ) else click.unstyle(text)
    encoding = stream.encoding or "utf-8"
    stream.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def _keep_trace(invocation: Invocation, error: Exception) -> str | None:
    """Append the stack trace to the log of the instance; where that is, or None when it cannot be kept."""
    instance = invocation.known_instance
    if instance is None:
        return None
    path = instance.layout.cli_log
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="backslashreplace") as log:
            log.write("".join(traceback.format_exception(error)) + "\n")
        return str(path)
    return None
