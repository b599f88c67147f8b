"""Every procedure of an HQ: those that are published, in the order of the document, and the streams of `/rpc`."""

from __future__ import annotations

from typing import Final

from rawr.procedures.contract import Procedure, StreamProcedure
from rawr.procedures.coordination import COORDINATION_PROCEDURES, COORDINATION_STREAMS
from rawr.procedures.state import STATE_PROCEDURES

PROCEDURES: Final[tuple[Procedure, ...]] = (*COORDINATION_PROCEDURES, *STATE_PROCEDURES)
STREAMS: Final[tuple[StreamProcedure, ...]] = COORDINATION_STREAMS
