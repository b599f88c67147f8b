"""Asking before something that cannot be taken back."""

from __future__ import annotations

import sys

import click

from rawr.cli.context import Invocation, is_terminal
from rawr.errors import RawrError


class ConfirmationNeededError(RawrError):
    """Nobody is there to be asked, or the answer was no. Nothing was done."""

    code = "CONFIRMATION_NEEDED"


def confirm(invocation: Invocation, question: str) -> None:
    """Go on only with a yes: `--yes`, or a person's.

    Raises:
        ConfirmationNeededError
    """
    if invocation.yes:
        return
    if invocation.json or not is_terminal(sys.stdin) or not click.confirm(question, err=True):
        raise ConfirmationNeededError(f"not confirmed: {question}", fix="add --yes; --dry-run shows what is meant")
