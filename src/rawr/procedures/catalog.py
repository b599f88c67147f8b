"""Every procedure of an HQ, in the order of the published document."""

from __future__ import annotations

from typing import Final

from rawr.procedures.contract import Procedure
from rawr.procedures.coordination import COORDINATION_PROCEDURES
from rawr.procedures.state import STATE_PROCEDURES

PROCEDURES: Final[tuple[Procedure, ...]] = (*COORDINATION_PROCEDURES, *STATE_PROCEDURES)
