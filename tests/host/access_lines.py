"""Where lines of the access log go in tests: into a list, as they stand in the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rawr.host.access import AccessLog, Answered, Times


def into(lines: list[Mapping[str, Any]]) -> AccessLog:
    def keep(answered: Answered) -> None:
        lines.append(msgspec.json.decode(answered.rendered(Times())))

    return keep
