"""Whether a due call may be made now: there must be room under its concurrency keys, and its run may start.

Every function here is part of one transition inside the caller's transaction; the decisions are in `limits`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rawr.execution.embedded import jobs
from rawr.execution.embedded.functions import RegisteredFunction
from rawr.execution.embedded.limits import concurrency_limit
from rawr.execution.embedded.transition import Transition

FunctionOf = Callable[[str], RegisteredFunction]


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A due call, as claims find it: the columns of the queue in this order."""

    job_id: str
    crashes: int
    fn_id: str
    throttle: str | None
    key1: str | None
    key2: str | None


def is_admitted(at: Transition, candidate: Candidate, function_of: FunctionOf) -> bool:
    """Whether the call may be made now; if not, it is parked until that may have changed."""
    full = _full_key(at, candidate, function_of)
    if full is not None:
        jobs.park(at, candidate.job_id, full)
        return False
    return True


def _full_key(at: Transition, candidate: Candidate, function_of: FunctionOf) -> str | None:
    for key in (candidate.key1, candidate.key2):
        if key is not None:
            limit = concurrency_limit(function_of(candidate.fn_id), key)
            if limit is not None and jobs.count_under_way(at, key) >= limit:
                return key
    return None
