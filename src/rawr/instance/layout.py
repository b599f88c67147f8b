"""Where each file of an instance lies. Paths only; touches nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec


class InstanceLayout(msgspec.Struct, frozen=True):
    """All paths below one instance root. `docs/reference/files.md` lists them for people."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / ".rawr"

    @property
    def identity(self) -> Path:
        return self.data / "instance.json"

    @property
    def coordination_database(self) -> Path:
        return self.data / "coordination.sqlite"

    @property
    def engine_database(self) -> Path:
        return self.data / "engine.sqlite"

    @property
    def run(self) -> Path:
        return self.data / "run"

    @property
    def server_record(self) -> Path:
        return self.run / "server.json"

    @property
    def server_lock(self) -> Path:
        return self.run / "server.lock"

    @property
    def start_lock(self) -> Path:
        """Held while a server is being started, so that two starts at once make one server."""
        return self.run / "start.lock"

    @property
    def logs(self) -> Path:
        return self.data / "logs"

    @property
    def server_log(self) -> Path:
        return self.logs / "server.log"

    @property
    def access_log(self) -> Path:
        return self.logs / "access.jsonl"

    @property
    def cli_log(self) -> Path:
        return self.logs / "cli.log"

    @property
    def secrets(self) -> Path:
        return self.data / "secrets"

    @property
    def tokens(self) -> Path:
        return self.secrets / "tokens.json"

    @property
    def reports(self) -> Path:
        return self.data / "reports"
