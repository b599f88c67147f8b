"""Where the files of a repo state lie. Paths only; changes nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec


class StateFiles(msgspec.Struct, frozen=True, kw_only=True):
    root: Path
    """The real path of the instance: aliases of one instance share every file."""
    folder: Path
    state: Path
    """The state itself. Readers need nothing else."""
    lock_file: Path
    """The lock of the TypeScript rawr: a file that is there while somebody writes."""
    lock_note: Path
    """Who holds the kernel lock, or held it last. While a rawr of this kind writes, the lock file is a name of it."""
    kernel_lock: Path
    """Never removed. Its content is the mark of the last durable commit."""
    turnstile: Path
    """Held by the one who has waited too long for the kernel lock, so that newcomers stand behind."""
    journal: Path
    requests: Path
    """What processes that wait for the kernel lock ask of whoever holds it."""

    @property
    def quarantined(self) -> tuple[Path, ...]:
        """What was put aside because it could not be understood, oldest first."""
        return tuple(sorted((*self.folder.glob("state.json.corrupt-*"), *self.folder.glob("state.journal.damaged-*"))))

    def journal_quarantine(self, at_ms: int) -> Path:
        """Where a damaged journal goes, before it is written anew with the lines that can be read."""
        return self.folder / f"state.journal.damaged-{at_ms}"

    def quarantine(self, at_ms: int) -> Path:
        """Where the bytes of a corrupt state go that was found at that time."""
        return self.folder / f"state.json.corrupt-{at_ms}"


def files_of(root: Path | str) -> StateFiles:
    real = Path(root).resolve()
    folder = real / ".rawr" / "state"
    return StateFiles(
        root=real,
        folder=folder,
        state=folder / "state.json",
        lock_file=folder / "state.lock",
        lock_note=folder / "state.holder",
        kernel_lock=folder / "state.flock",
        turnstile=folder / "state.turn",
        journal=folder / "state.journal",
        requests=folder / "state.queue",
    )
