"""How the TypeScript rawr changes the repo state, its mistakes included: a stand-in that needs no Node.

It knows only the lock file. It judges a lock stale by age and process, removes whatever is there by then, and
removes whatever is there when it is done. A state that it cannot read is an empty one.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

JUDGED_STALE = "judged stale"
INSIDE = "inside"


class OriginalTimeoutError(Exception):
    pass


class Original:
    """One process of it. `pause` is called at two places, so that a test can park it there."""

    def __init__(
        self,
        root: Path,
        *,
        timeout_s: float = 60.0,
        retry_s: float = 0.025,
        stale_s: float = 60.0,
        pause: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._folder = root.resolve() / ".rawr" / "state"
        self._lock = self._folder / "state.lock"
        self._state = self._folder / "state.json"
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._stale_s = stale_s
        self._pause = pause
        self._numbers = count()

    def enable(self, plugin_id: str) -> None:
        descriptor = self._acquire()
        try:
            state = self._read()
            self._pause(INSIDE)
            plugins = state["plugins"]
            plugins["enabled"] = sorted({*plugins["enabled"], plugin_id})
            plugins["lastUpdatedAt"] = _now()
            self._write(state)
        finally:
            os.close(descriptor)
            self._lock.unlink(missing_ok=True)

    def _acquire(self) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        started_s = time.monotonic()
        while True:
            try:
                descriptor = os.open(self._lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                if self._removed_as_stale():
                    continue
            else:
                os.write(descriptor, json.dumps({"pid": os.getpid(), "acquiredAt": _now()}).encode())
                return descriptor
            if time.monotonic() - started_s >= self._timeout_s:
                raise OriginalTimeoutError
            time.sleep(self._retry_s)

    def _removed_as_stale(self) -> bool:
        try:
            age_s = time.time() - self._lock.stat().st_mtime
            note = self._lock.read_bytes()
        except FileNotFoundError:
            return True
        if age_s < self._stale_s or _names_a_living_process(note):
            return False
        self._pause(JUDGED_STALE)
        self._lock.unlink(missing_ok=True)
        return True

    def _read(self) -> dict[str, Any]:
        try:
            found = json.loads(self._state.read_bytes())
            assert found["version"] == 1
            plugins = {key: value for key, value in found["plugins"].items() if key in ("enabled", "disabled")}
        except Exception:  # noqa: BLE001 - this is what it does
            plugins = {"enabled": []}
        return {"version": 1, "plugins": plugins}

    def _write(self, state: dict[str, Any]) -> None:
        name = f"state.{os.getpid()}.{round(time.time() * 1000)}.{next(self._numbers)}.tmp"
        temporary = self._folder / name
        temporary.write_text(json.dumps(state, indent=2, ensure_ascii=False) + "\n")
        temporary.replace(self._state)


def _names_a_living_process(note: bytes) -> bool:
    try:
        pid = int(json.loads(note)["pid"])
    except (ValueError, KeyError, TypeError):
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
