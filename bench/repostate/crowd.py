"""Many processes that start together and add their ids to one state; what each measured."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Final

from bench.repostate.judgement import Process
from bench.repostate.writers import Writer

START_TIMEOUT_S: Final = 60.0


class LostUpdateError(Exception):
    """A change that was acknowledged is not there, or one that nobody made is. No number counts then."""


def crowd(writer: Writer, root: Path, *, processes: int, changes: int) -> list[Process]:
    """`processes` times `changes` ids, all different.

    Raises:
        LostUpdateError
        EOFError: a process failed; it has said why on its own.
    """
    root.mkdir()
    writer.prepare(root)
    ids = [[f"@bench/p{process}-{change}" for change in range(changes)] for process in range(processes)]
    measured = _run(writer, root, ids)
    verify({one for mine in ids for one in mine}, writer.found(root), writer=writer.name)
    return measured


def verify(expected: set[str], found: set[str], *, writer: str) -> None:
    if expected != found:
        raise LostUpdateError(f"{writer}: {len(expected - found)} changes lost, {len(found - expected)} unknown")


def _run(writer: Writer, root: Path, ids: Sequence[Sequence[str]]) -> list[Process]:
    forking = multiprocessing.get_context("fork")  # starts at once, so that the barrier is all that is waited for
    barrier = forking.Barrier(len(ids))
    receivers, members = [], []
    for mine in ids:
        receiver, sender = forking.Pipe(duplex=False)
        member = forking.Process(target=_member, args=(writer, root, mine, barrier, sender), daemon=True)
        member.start()
        sender.close()  # the member's end is the only one: when it dies, we see the end
        receivers.append(receiver)
        members.append(member)
    try:
        return [receiver.recv() for receiver in receivers]
    finally:
        for member, receiver in zip(members, receivers, strict=True):
            member.terminate()
            member.join()
            receiver.close()


def _member(writer: Writer, root: Path, ids: Sequence[str], barrier: Barrier, sender: Connection) -> None:
    add = writer.open(root)
    took_s = []
    barrier.wait(START_TIMEOUT_S)
    began_s = time.monotonic()
    for plugin_id in ids:
        before_s = time.monotonic()
        add(plugin_id)
        took_s.append(time.monotonic() - before_s)
    sender.send(Process(began_s=began_s, ended_s=time.monotonic(), took_s=tuple(took_s)))
