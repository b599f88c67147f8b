"""What a call can answer: steps that ran, failed or are planned, waits, a result or an error. Pure values."""

from __future__ import annotations

import msgspec

from rawr.execution.embedded.fragment import Fragment, fragment
from rawr.wire import JsonValue


class Failure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as function code and `inngest/function.failed` see it."""

    name: str
    message: str
    stack: str | None = None

    def memo(self) -> Fragment:
        return fragment({"error": self.as_json()})

    def as_json(self) -> dict[str, JsonValue]:
        parts = {"name": self.name, "message": self.message}
        return parts if self.stack is None else {**parts, "stack": self.stack}


class StepRan(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    memo: Fragment


class StepErrored(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    failure: Failure
    final: bool
    """No further attempt is wanted, whatever the number of retries."""


class StepPlanned(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    race: bool


class Sleeping(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    until: str
    """An ISO 8601 time, or a duration like `1h30m`."""
    race: bool


class EventAwaited(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    event_name: str
    condition: str | None
    """A CEL condition over `event` (what triggered the run) and `async` (the event that came)."""
    timeout: str
    race: bool


class FunctionInvoked(msgspec.Struct, frozen=True, kw_only=True):
    step_id: str
    name: str
    fn_id: str
    data: JsonValue
    version: str | None
    """`v` of the event that the invoked function gets."""
    timeout: str | None
    race: bool


class FunctionReturned(msgspec.Struct, frozen=True, kw_only=True):
    """The function has ended, told together with steps that it ran on the way."""

    output: Fragment


class DiscoveryWanted(msgspec.Struct, frozen=True, kw_only=True):
    """The app wants to be asked once more what comes next."""


class UnsupportedOp(msgspec.Struct, frozen=True, kw_only=True):
    op: str
    name: str


Op = (
    StepRan
    | StepErrored
    | StepPlanned
    | Sleeping
    | EventAwaited
    | FunctionInvoked
    | FunctionReturned
    | DiscoveryWanted
    | UnsupportedOp
)


class FunctionFinished(msgspec.Struct, frozen=True, kw_only=True):
    output: Fragment


class StepInput(msgspec.Struct, frozen=True, kw_only=True):
    """What a step was asked to do."""

    step_id: str
    op: str
    input: Fragment


class OpsAnswered(msgspec.Struct, frozen=True, kw_only=True):
    ops: tuple[Op, ...]
    inputs: tuple[StepInput, ...] = ()
    request_version: int | None = None
    """The version of the protocol that the app speaks in this run, if it said so."""


class CallFailed(msgspec.Struct, frozen=True, kw_only=True):
    """The call as a whole failed: an error in function code outside of steps, or no proper answer at all."""

    failure: Failure
    retriable: bool
    retry_after: str | None = None


class AppUnreachable(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody took the call, so nothing of it has run: no attempt."""


Outcome = FunctionFinished | OpsAnswered | CallFailed | AppUnreachable
