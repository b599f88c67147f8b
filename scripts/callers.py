"""Write the tables of docs/reference/callers.md from the one that the host decides by."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from rawr.security.policy import MATRIX, Family

PAGE: Final = Path(__file__).parents[1] / "docs" / "reference" / "callers.md"
NAMES: Final = {
    Family.RPC: "`/rpc`",
    Family.ORPC: "`/api/orpc`",
    Family.WORKFLOWS: "`/api/workflows`",
    Family.INGRESS: "`/api/inngest`",
    Family.CONSOLE: "`/console`",
    Family.OPEN: "open",
}

_PLACE: Final = re.compile(r"(?<=<!-- matrix -->\n).*?(?=<!-- /matrix -->)", re.DOTALL)


def matrix() -> str:
    """The classes by rows, the families by columns."""
    head = ["Class", "Evidence", *NAMES.values()]
    rows = [
        [
            f"`{name}`",
            admission.evidence.value,
            *("yes" if family in admission.families else "" for family in NAMES),
        ]
        for name, admission in MATRIX.items()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def with_tables(page: str) -> str:
    """The page with its tables as they are now."""
    return _PLACE.sub(matrix(), page)


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
    print(f"wrote {PAGE}")
