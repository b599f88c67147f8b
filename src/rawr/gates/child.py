"""One gate in a process of its own: `python -m rawr.gates.child GATE ROOT` prints an Inspection as JSON.

A gate opens hosts and imports plugins; what it breaks or leaves behind dies with the process. The instance itself
is only read: hosts are opened in a scratch folder.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rawr.gates.model import Inspection
from rawr.gates.registry import gate_named
from rawr.hq import load_manifest


def main(argv: Sequence[str]) -> int:
    name, root = argv
    gate = gate_named(name)
    assert gate is not None, name
    logging.disable(logging.CRITICAL)  # probes provoke errors; the verdict reports what matters
    module, _, attribute = gate.target.partition(":")
    check = getattr(importlib.import_module(module), attribute)
    manifest = load_manifest(Path(root))
    with tempfile.TemporaryDirectory(prefix="rawr-gate-") as scratch:
        inspection: Inspection = asyncio.run(check(manifest, Path(scratch)))
    sys.stdout.buffer.write(msgspec.json.encode(inspection))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
