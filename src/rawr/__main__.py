"""The `rawr` command. Answers `--version` and `--help` before any framework is imported; the rest is in `rawr.cli`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rawr import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["--version"], ["-V"]):
        sys.stdout.write(f"rawr {__version__}\n")
        return 0
    try:
        if arguments in (["--help"], ["-h"]):
            from rawr.cli.help import group_help
            from rawr.cli.table import TABLE

            sys.stdout.write(f"{group_help(TABLE, ())}\n")
            return 0
        from rawr.cli.main import run

        return run(arguments)
    except KeyboardInterrupt:  # while modules were still being imported
        if "--json" in arguments:
            sys.stdout.write('{"ok": false, "error": {"code": "INTERRUPTED", "message": "interrupted"}}\n')
        return 130


if __name__ == "__main__":
    sys.exit(main())
