"""A server in a process of its own, as tests start, watch and kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rawr.client.http import HqClient
from rawr.host.run_folder import RunFolder, ServerRecord
from rawr.security.credentials import SecretsFolder

PROGRAM = Path(__file__).with_name("server_program.py")
DEADLINE_S = 40.0


class Server:
    def __init__(self, root: Path, port: int = 0, **given: Any) -> None:
        """`given`: settings of the host in place of those of the program."""
        self.root = root
        self.run_folder = RunFolder(root / ".rawr" / "run")
        environment = {**os.environ, "INNGEST_DEV": "1"}  # must not weaken anything
        # A file, not a pipe: nobody reads while a test makes its calls, and a full pipe would stop the server.
        self._log = root.parent / f"server-{time.monotonic_ns()}.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(root), str(port), json.dumps(given)], stderr=log, env=environment
            )

    def ready(self) -> ServerRecord:
        deadline = time.monotonic() + DEADLINE_S
        # A predecessor's record can be seen for a moment after its successor has taken the lock.
        while (record := self.run_folder.running()) is None or record.pid != self.process.pid:
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, "the server did not come up"
            time.sleep(0.02)
        return record

    def client(self) -> HqClient:
        record = self.ready()
        certificate = None if record.certificate is None else Path(record.certificate)
        return HqClient(record.url, self.cli_key(), timeout_s=20, certificate=certificate)

    def cli_key(self) -> str:
        return SecretsFolder(self.root / ".rawr" / "secrets").cli_key()

    def port(self) -> int:
        return int(self.ready().url.rpartition(":")[2])

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def end(self) -> None:
        """Whatever state it is in."""
        self.process.kill()
        self.process.wait(DEADLINE_S)

    def access_lines(self) -> list[dict[str, Any]]:
        """What the access log says so far."""
        text = (self.root / ".rawr" / "logs" / "access.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def log(self) -> str:
        return self._log.read_text()
