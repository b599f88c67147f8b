"""Which code a run belongs to: pinned at its first call, held while nobody has that code, pinned anew by who accepts
other code.

Code is told by tokens, `name@version`; the engine knows no more of them. A run needs all of its tokens, and an engine
that lacks one never calls it. While another engine that lives has them, the run is left to that one; else the run is
held: its due calls are parked where no claim looks, its timers and waits go on, and a reason is kept. It goes on by
itself when an engine that has the code comes.
Every function here is part of one transition inside the caller's transaction.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping, Sequence
from enum import Enum, auto
from typing import Final

import msgspec

from rawr.errors import BadInputError
from rawr.execution.embedded import jobs
from rawr.execution.embedded.admission import Candidate
from rawr.execution.embedded.jobs import HELD_ON
from rawr.execution.embedded.model import Claim, Held
from rawr.execution.embedded.transition import Transition
from rawr.storage.sqlite import one, rows, run
from rawr.wire import encode_canonical

SHORT: Final = 12
"""So much of a version is shown to people."""
_SERVES_WITH_ALL: Final = (
    "SELECT 1 FROM offers o WHERE o.fn_id = ?1 AND (?2 IS NULL OR o.version = ?2) AND NOT EXISTS"
    " (SELECT 1 FROM json_each(?3) t WHERE NOT EXISTS"
    " (SELECT 1 FROM offered_code c WHERE c.owner = o.owner AND c.token = t.value)) LIMIT 1"
)


class CodeNotAcceptedError(BadInputError):
    """The run is not held, or nobody has the code that it would go on with."""

    code = "ENGINE_CODE_NOT_ACCEPTED"


class Standing(Enum):
    """Who may make the next call of a run."""

    OURS = auto()
    ELSEWHERE = auto()
    """An engine that lives can, and we leave it to that one."""
    NOWHERE = auto()


class Judge:
    """Judges due calls for one engine, once for each kind of them."""

    def __init__(self, at: Transition, serves: Mapping[str, str], has: Collection[str]) -> None:
        self._at = at
        self._serves = serves
        self._has = has
        self._of = functools.cache(self._judged)
        self.left: set[str] = set()
        """What is left to others, as `kind_of` names it."""

    def standing(self, candidate: Candidate) -> Standing:
        if candidate.code is None:
            return Standing.OURS
        standing = self._of(candidate.fn_id, candidate.version, candidate.code)
        if standing is Standing.ELSEWHERE:
            self.left.add(f"{candidate.fn_id}|{candidate.version}|{candidate.code}")
        return standing

    def _judged(self, fn_id: str, version: str, code: str) -> Standing:
        has_all = self._has_all(code)
        if has_all and self._serves[fn_id] == version:
            return Standing.OURS
        if self._is_served(fn_id, version, code):
            return Standing.ELSEWHERE
        if has_all:
            return Standing.OURS
        return Standing.ELSEWHERE if self._is_served(fn_id, None, code) else Standing.NOWHERE

    def _has_all(self, code: str) -> bool:
        return all(token in self._has for token in _tokens(code))

    def _is_served(self, fn_id: str, version: str | None, code: str) -> bool:
        return one(self._at.connection, _SERVES_WITH_ALL, (fn_id, version, code)) is not None


def pin(at: Transition, claim: Claim, tokens: Collection[str]) -> bool:
    """Settle what code the run of this claim belongs to; False when the claim does not hold its job any more."""
    held = one(
        at.connection,
        "SELECT 1 FROM queue WHERE job_id = ? AND lease_owner = ? AND generation = ?",
        (claim.job_id, claim.owner, claim.generation),
    )
    if held is None:
        return False
    _set_code(at, claim.run_id, _text(tokens))
    return True


def hold(at: Transition, candidate: Candidate) -> None:
    """Nobody can make this call: keep it out of the way, and its run held with a reason."""
    assert candidate.code is not None
    jobs.park(at, candidate.job_id, _held_on(candidate.fn_id, candidate.code))
    row = one(at.connection, "SELECT run_id FROM queue WHERE job_id = ?", (candidate.job_id,))
    assert row is not None
    reason = _reason(at, row[0], candidate.fn_id, _tokens(candidate.code))
    newly = one(
        at.connection,
        "UPDATE runs SET held_at = ?, held_reason = ? WHERE run_id = ? AND held_at IS NULL RETURNING 1",
        (at.now_ms, reason, row[0]),
    )
    if newly is not None:
        at.held.append(Held(run_id=row[0], reason=reason))


def offer_code(at: Transition, owner: str, fn_ids: Collection[str], tokens: Collection[str]) -> None:
    """This engine has this code from now on; what is held for want of it goes on."""
    run(at.connection, "DELETE FROM offered_code WHERE owner = ?", (owner,))
    at.connection.execute_many("INSERT INTO offered_code VALUES (?, ?)", [(owner, token) for token in set(tokens)])
    for fn_id, code in rows(at.connection, "SELECT DISTINCT fn_id, code FROM runs WHERE held_at IS NOT NULL"):
        if fn_id in fn_ids and set(_tokens(code)) <= set(tokens):
            run(at.connection, "UPDATE queue SET parked_on = NULL WHERE parked_on = ?", (_held_on(fn_id, code),))
            run(
                at.connection,
                "UPDATE runs SET held_at = NULL, held_reason = NULL"
                " WHERE fn_id = ? AND code = ? AND held_at IS NOT NULL",
                (fn_id, code),
            )


def withdraw_code(at: Transition, owners: Sequence[str]) -> None:
    """These engines have no code any more."""
    run(
        at.connection,
        "DELETE FROM offered_code WHERE owner IN (SELECT value FROM json_each(?))",
        (encode_canonical(list(owners)).decode(),),
    )


def accept_code(at: Transition, run_id: str, tokens: Collection[str], by: str) -> None:
    """Let a held run go on with this code, and note who wanted it so.

    Raises:
        CodeNotAcceptedError: the run is not held, or those who serve its function have other code.
    """
    fn_id, before = held_code(at, run_id)
    after = _text(tokens)
    is_served = one(at.connection, "SELECT 1 FROM offers WHERE fn_id = ? LIMIT 1", (fn_id,)) is not None
    if is_served and one(at.connection, _SERVES_WITH_ALL, (fn_id, None, after)) is None:
        raise CodeNotAcceptedError(
            f"the process that serves {fn_id} has other code than is on the disk now",
            details={"runId": run_id},
            fix="rawr down, then rawr up, so that it has what you accept",
        )
    _set_code(at, run_id, after)
    run(
        at.connection,
        "UPDATE queue SET parked_on = NULL WHERE run_id = ? AND parked_on = ?",
        (run_id, _held_on(fn_id, before)),
    )
    run(at.connection, "UPDATE runs SET held_at = NULL, held_reason = NULL WHERE run_id = ?", (run_id,))
    run(at.connection, "INSERT INTO accepted_code VALUES (?, ?, ?, ?, ?)", (run_id, at.now_ms, by, before, after))


def held_code(at: Transition, run_id: str) -> tuple[str, str]:
    """The function of a held run, and the code that it waits for.

    Raises:
        CodeNotAcceptedError: there is no such run, or it is not held.
    """
    row = one(at.connection, "SELECT fn_id, code, held_at, ended_at FROM runs WHERE run_id = ?", (run_id,))
    if row is None:
        raise CodeNotAcceptedError(f"there is no run {run_id}", fix="rawr engine runs")
    fn_id, code, held_at, ended_at = row
    if ended_at is not None:
        raise CodeNotAcceptedError(f"run {run_id} has ended", fix=f"rawr engine rerun {run_id}")
    if held_at is None:
        raise CodeNotAcceptedError(f"run {run_id} does not wait for code", details={"runId": run_id})
    return fn_id, code


def _set_code(at: Transition, run_id: str, code: str) -> None:
    run(at.connection, "UPDATE runs SET code = ? WHERE run_id = ?", (code, run_id))
    run(at.connection, "UPDATE queue SET code = ? WHERE run_id = ?", (code, run_id))


def _reason(at: Transition, run_id: str, fn_id: str, wanted: Sequence[str]) -> str:
    offered = rows(
        at.connection,
        "SELECT DISTINCT c.token FROM offered_code c JOIN offers o ON o.owner = c.owner WHERE o.fn_id = ?"
        " ORDER BY c.token",
        (fn_id,),
    )
    there = [token for (token,) in offered]
    changes = "; ".join(_change(token, there) for token in wanted if token not in there)
    what = changes or "no process has all of it at once"
    return (
        f"the code that it began with is gone: {what}. Go on with the code that is there:"
        f" rawr engine accept-code {run_id}. Begin again with it: rawr engine rerun {run_id}"
    )


def _change(token: str, there: Sequence[str]) -> str:
    name, _, before = token.rpartition("@")
    now = [other.rpartition("@")[2][:SHORT] for other in there if other.rpartition("@")[0] == name]
    return f"{name} was {before[:SHORT]} and is {' or '.join(now) or 'not there'} now"


def _held_on(fn_id: str, code: str) -> str:
    return f"{HELD_ON}{fn_id}|{code}"


def _text(tokens: Collection[str]) -> str:
    return encode_canonical(sorted(set(tokens))).decode()


def _tokens(code: str) -> list[str]:
    return msgspec.json.decode(code, type=list[str])
