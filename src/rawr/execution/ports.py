"""What durable functions, the engine and the HTTP transport are to each other. Shapes only, no framework.

A `DurableFunction` is declared once in the manifest; `execution/ingest.py` turns it into a function of the
Inngest SDK; an engine (embedded, or a real Inngest server) drives it by signed calls into `/api/inngest`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from rawr.clock import Clock
from rawr.coordination.model import Run
from rawr.coordination.ports import CoordinationStore
from rawr.errors import RawrError
from rawr.ids import DeskId, RunId, WorkflowId
from rawr.wire import JsonValue

APP_ID: Final = "rawr-coordination"
"""The app that the functions of an instance are, to whoever drives them."""


class DeskContext(Protocol):
    """What a desk handler is given besides its input."""

    @property
    def run_id(self) -> RunId: ...
    @property
    def workflow_id(self) -> WorkflowId: ...
    @property
    def desk_id(self) -> DeskId: ...
    @property
    def attempt(self) -> int:
        """1 for the first try of this desk in this run."""
        ...

    @property
    def instance_root(self) -> Path: ...
    @property
    def memory(self) -> JsonValue:
        """What this desk remembered last, or None."""
        ...

    @property
    def idempotency_key(self) -> str:
        """The same for every delivery of this desk in this run: give it to whatever must happen once."""
        ...

    def remember(self, value: JsonValue) -> None:
        """What to keep when the desk succeeds; by default its output. Kept only if its memory persists."""
        ...


DeskHandler = Callable[[Any, DeskContext], Any]
"""`handler(input, ctx) -> output`, sync (runs in a thread) or async. JSON in, JSON out."""


class FinishedEffects(Protocol):
    """The only way for a finished hook to act on the world: what is done through it is remembered with the run."""

    @property
    def idempotency_key(self) -> str:
        """The same for every delivery of this hook for this run."""
        ...

    def once(self, key: str, effect: Callable[[], Any]) -> Any:
        """Do `effect()` unless it is recorded under `key` for this run and hook; its JSON result, now or from then.

        An async hook awaits this. The record is durable when it returns; a process that dies between the effect
        and its record does the effect again at the next delivery.
        """
        ...


class FinishedHook(msgspec.Struct, frozen=True, kw_only=True):
    """A hook that hears of ended runs: at least once each, so it must be idempotent, and nothing depends on it."""

    name: str
    workflow_id: WorkflowId | None
    """None for the runs of all workflows."""
    call: Callable[[Run, FinishedEffects], Any]
    """Sync (runs in a thread) or async."""


class Steps(Protocol):
    """The durable operations that a function body has. Bodies run again and again; steps run once."""

    @property
    def engine_run_id(self) -> str:
        """The engine's own id of this run, by which its pages show it."""
        ...

    async def run(self, step_id: str, body: Callable[[int], Awaitable[JsonValue]]) -> JsonValue:
        """Run `body(attempt)` once and remember what it gave; `attempt` counts from 0.

        A body that raises is tried again with backoff, up to the function's retries.
        """
        ...

    async def race(self, branches: Sequence[Callable[[], Awaitable[None]]]) -> None:
        """Run branches of steps at the same time; the function body runs again after *each* finished step.

        A branch that has nothing to do yet returns. This returns in the pass in which no branch has a step
        left to run.
        """
        ...


class FunctionDeps(msgspec.Struct, frozen=True, kw_only=True):
    """What the host gives to every durable function of one instance."""

    store: CoordinationStore
    desk_handlers: Mapping[str, DeskHandler]
    clock: Clock
    instance_root: Path
    finished_hooks: tuple[FinishedHook, ...] = ()
    trace_url: str | None = None
    """Where the pages of a real Inngest server begin; None with the embedded engine, which has none."""


class DurableFunction(msgspec.Struct, frozen=True, kw_only=True):
    """A durable function as the manifest declares it."""

    function_id: str
    name: str
    event_name: str
    retries: int
    """Retries of each step and of the function itself, 0 to 20."""
    body: Callable[[FunctionDeps, Steps, Mapping[str, JsonValue]], Awaitable[JsonValue]]
    """`body(deps, steps, event_data)`. It raises `FunctionFailedError` to end the run as failed."""
    on_failure: Callable[[FunctionDeps, Mapping[str, JsonValue], str], Awaitable[None]]
    """`on_failure(deps, event_data, error_message)`: the engine has given up, or was told to cancel the run. At least
    once, so idempotent.
    """


class FunctionFailedError(Exception):
    """Ends a durable function at once, without retries. Its text becomes the run's error."""


class OutgoingEvent(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    data: Mapping[str, JsonValue]
    event_id: str | None = None
    """De-duplicates for 24 h: the same id starts a function once."""
    ts_ms: int | None = None
    """When it happened, in Unix milliseconds; now, if None. Runs of an event that is still to come start then."""
    version: str | None = None
    """`v`, the version of its form, which is up to its sender."""
    user: Mapping[str, JsonValue] = {}


class EventSink(Protocol):
    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        """Durably accept events; return the ids that the engine gave them."""
        ...


class InngestServer(msgspec.Struct, frozen=True, kw_only=True):
    """A real Inngest server: where it is, and the keys by which it and we know each other."""

    api_url: str
    event_url: str
    trace_url: str
    event_key: str
    signing_key: str
    signing_key_fallback: str | None = None
    """Accepted as well, while a key is rotated."""

    @property
    def signing_keys(self) -> tuple[str, ...]:
        return (
            (self.signing_key,) if self.signing_key_fallback is None else (self.signing_key, self.signing_key_fallback)
        )

    def __repr__(self) -> str:
        return f"InngestServer({self.api_url!r})"  # a log that shows settings must not show keys


class ServerEvents(EventSink, Protocol):
    """The way of events to a real Inngest server."""

    async def close(self) -> None:
        """Hang up. Nothing can be sent afterwards."""
        ...


class RunStates(Protocol):
    """What an engine knows of a run, for calls that are too large to hold it (the SDK's `use_api`)."""

    async def run_events(self, run_id: str) -> list[JsonValue] | None:
        """What triggered the run; None if there is no such run."""
        ...

    async def run_memos(self, run_id: str) -> dict[str, JsonValue]:
        """The results of its finished steps by step id, in the forms that calls carry."""
        ...


class IngressRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One call into `/api/inngest`, after the guard has verified its signature."""

    method: str
    url: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class IngressResponse(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Ingress(Protocol):
    """The serve handler of the durable functions, without any web framework around it."""

    async def handle(self, request: IngressRequest) -> IngressResponse: ...

    async def close(self) -> None:
        """Give up connections to an Inngest server, where there are any."""
        ...


class RunCode(Protocol):
    """The code that the functions of this process are made of, by tokens `name@version`; see `embedded.pins`."""

    def offered(self) -> frozenset[str]:
        """All code that this process has."""
        ...

    async def used(self, fn_id: str, events: Sequence[JsonValue]) -> frozenset[str] | None:
        """The code that a run of this function with these events uses; None for a function that is not ours."""
        ...


class AppUnreachableError(RawrError):
    """Nobody took the call, so nothing of it has run."""

    code = "APP_UNREACHABLE"


class EngineCall(Protocol):
    """How an engine reaches the functions of one app: in process through the guarded ASGI app, or over HTTP.

    Raises:
        AppUnreachableError: nobody is there.
    """

    async def __call__(
        self, method: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> IngressResponse: ...
