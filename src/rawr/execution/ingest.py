"""Durable functions as functions of the Inngest SDK, and their serve handler without any web framework.

The only importer of `inngest`; importing this module costs half a second, so the CLI never does. It refuses to
let the environment decide anything: signatures are always checked, with the key that was given and no other,
and nothing is sent to a network unless an API address was configured.
"""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from rawr.coordination.ports import EngineUnreachableError
from rawr.errors import BadInputError, RawrError
from rawr.execution.ports import (
    APP_ID,
    DurableFunction,
    EventSink,
    FunctionDeps,
    FunctionFailedError,
    Ingress,
    IngressRequest,
    IngressResponse,
    InngestServer,
    OutgoingEvent,
    RunStates,
    ServerEvents,
    Steps,
)
from rawr.wire import JsonValue, encode

with warnings.catch_warnings():
    # The SDK declares its models in a way that pydantic deprecates; that is no business of our users.
    warnings.simplefilter("ignore", DeprecationWarning)
    import inngest
    from inngest._internal import comm_lib, errors, middleware_lib, server_lib

SERVE_PATH: Final = "/api/inngest"
SEND_TIMEOUT_S: Final = 30.0
FAILURE_RETRIES: Final = 20

# The SDK wants an address even when it may never use it; this one cannot be resolved.
_NOWHERE: Final = "https://inngest.invalid"
_NO_KEY: Final = "none"
_NO_ANSWER: Final = "never received response while sending events"
"""What the SDK says after its last try."""
_FIX: Final = "rawr doctor"
_FAILED: Final = "inngest/function.failed"
_CANCELLED: Final = "inngest/function.cancelled"


def make_ingress(
    functions: Sequence[DurableFunction],
    deps: FunctionDeps,
    *,
    signing_key: str,
    event_sink: EventSink,
    serve_origin: str,
    app_id: str = APP_ID,
    server: InngestServer | None = None,
    run_states: RunStates | None = None,
) -> Ingress:
    """The serve handler of `functions`. Opens no connection.

    `serve_origin` (`http://127.0.0.1:4111`) is where an engine reaches this process, whatever a request says; a path
    in it is one that a proxy in front of us takes off. `server` is the real Inngest server, when there is one; its
    keys are then the ones that are accepted. Without one, `run_states` is asked for what is too large to be part of
    a call.
    """
    client = _Client(
        app_id=app_id, signing_key=signing_key, event_sink=event_sink, server=server, run_states=run_states
    )
    handler = comm_lib.CommHandler(
        client=client,
        enable_unauthed_sync=False,
        framework=server_lib.Framework.FAST_API,  # the closest of the names that servers know
        functions=[made for function in functions for made in _sdk_functions(client, function, deps)],
        streaming=inngest.Streaming.DISABLE,
    )
    return _SdkIngress(client, handler, serve_origin=serve_origin, may_register=server is not None)


def make_event_sink(server: InngestServer, *, app_id: str = APP_ID) -> ServerEvents:
    """The way of events to a real Inngest server. It repeats what got no answer; the server sees that as one event."""
    return _ServerEvents(_Client(app_id=app_id, signing_key=server.signing_key, event_sink=None, server=server))


class UnsupportedSyncError(BadInputError):
    code = "SYNC_UNSUPPORTED"


class EventsRefusedError(BadInputError):
    """The Inngest server did not take an event."""

    code = "EVENTS_REFUSED"


class FunctionExitedError(RawrError):
    """A function called `sys.exit()`, which would end the host. It is an error of the function like any other."""

    code = "FUNCTION_EXITED"


class UnknownRunError(BadInputError):
    code = "ENGINE_RUN_UNKNOWN"


class _Client(inngest.Inngest):
    """The SDK's client with our event sink in place of its HTTP calls, deaf to the environment."""

    def __init__(
        self,
        *,
        app_id: str,
        signing_key: str,
        event_sink: EventSink | None,
        server: InngestServer | None,
        run_states: RunStates | None = None,
    ) -> None:
        super().__init__(
            app_id=app_id,
            api_base_url=_NOWHERE if server is None else server.api_url,
            event_api_base_url=_NOWHERE if server is None else server.event_url,
            event_key=_NO_KEY if server is None else server.event_key,
            is_production=True,  # the other mode checks no signature at all
            signing_key=signing_key if server is None else server.signing_key,
            logger=_silent_logger(),
        )
        # The SDK takes these two from the environment, and has no argument for them.
        self._env = None
        self._signing_key_fallback = None if server is None else server.signing_key_fallback
        self._http_client._env = None  # noqa: SLF001 - its transport has copies
        self._http_client._signing_key_fallback = self._signing_key_fallback  # noqa: SLF001
        self._event_sink = event_sink
        self._run_states = run_states
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        await self._http_client._http_client.aclose()  # noqa: SLF001 - the SDK keeps its connections for ever
        self._http_client._http_client_sync.close()  # noqa: SLF001

    def serve_on(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def send(self, events: inngest.Event | list[inngest.Event], *, skip_middleware: bool = False) -> list[str]:
        batch = events if isinstance(events, list) else [events]
        if self._event_sink is None:
            return await super().send(batch, skip_middleware=skip_middleware)
        if skip_middleware:
            return await self._event_sink.send([_outgoing(event) for event in batch])
        middleware = middleware_lib.MiddlewareManager.from_client(self, raw_request=None, timings=None)
        _raise_if_error(await middleware.before_send_events(batch))
        ids = await self._event_sink.send([_outgoing(event) for event in batch])
        _raise_if_error(await middleware.after_send_events(inngest.SendEventsResult(ids=ids)))
        return ids

    def send_sync(self, events: inngest.Event | list[inngest.Event], *, skip_middleware: bool = False) -> list[str]:
        """For code in worker threads; the events are accepted on the serving loop."""
        assert self._loop is not None, "events can be sent once the ingress has been called"
        sending = self.send(events, skip_middleware=skip_middleware)
        return asyncio.run_coroutine_threadsafe(sending, self._loop).result(timeout=SEND_TIMEOUT_S)

    async def _get_batch(self, run_id: str) -> list[server_lib.Event] | Exception:
        if self._run_states is None:
            return await super()._get_batch(run_id)
        events = await self._run_states.run_events(run_id)
        if events is None:
            return UnknownRunError(f"there is no run {run_id}")
        return [server_lib.Event.model_validate(event) for event in events]

    async def _get_steps(self, run_id: str) -> dict[str, object] | Exception:
        if self._run_states is None:
            return await super()._get_steps(run_id)
        return await self._run_states.run_memos(run_id)


class _ServerEvents:
    def __init__(self, client: _Client) -> None:
        self._client = client

    async def send(self, events: Sequence[OutgoingEvent]) -> list[str]:
        batch = [inngest.Event(name=event.name, data=dict(event.data), id=event.event_id or "") for event in events]
        origin = self._client.event_api_origin
        try:
            ids = await self._client.send(batch, skip_middleware=True)
        except errors.SendEventsError as error:
            if str(error) == _NO_ANSWER:
                raise EngineUnreachableError(f"the Inngest server at {origin} gives no answer", fix=_FIX) from error
            raise EventsRefusedError(f"the Inngest server at {origin} refused an event: {error}", fix=_FIX) from error
        except (ValueError, errors.Error) as error:  # an answer that is none of Inngest's
            raise EngineUnreachableError(f"what answers at {origin} is no Inngest server", fix=_FIX) from error
        if len(ids) != len(batch):  # the SDK takes an answer without ids for success
            raise EventsRefusedError(f"the Inngest server at {origin} took {len(ids)} of {len(batch)} events", fix=_FIX)
        return ids

    async def close(self) -> None:
        await self._client.close()


class _SdkIngress:
    def __init__(
        self, client: _Client, handler: comm_lib.CommHandler, *, serve_origin: str, may_register: bool
    ) -> None:
        self._client = client
        self._handler = handler
        self._serve_url = urlsplit(serve_origin)
        self._may_register = may_register

    async def handle(self, request: IngressRequest) -> IngressResponse:
        self._client.serve_on(asyncio.get_running_loop())
        call = comm_lib.CommRequest(
            body=request.body,
            headers=dict(request.headers),
            public_path=None,
            query_params=dict(request.query),
            raw_request=request,
            request_url=request.url,
            serve_origin=f"{self._serve_url.scheme}://{self._serve_url.netloc}",
            serve_path=self._serve_url.path.rstrip("/") + SERVE_PATH,
        )
        match request.method:
            case "POST":
                return _response(await self._handler.post(call))
            case "PUT":
                return await self._sync(request, call)
            case "GET":
                return _response(self._handler.get_sync(call))
            case method:
                return IngressResponse(status=405, headers={}, body=f"method {method} not allowed".encode())

    async def close(self) -> None:
        await self._client.close()

    async def _sync(self, request: IngressRequest, call: comm_lib.CommRequest) -> IngressResponse:
        """Answer with our functions; or, with a configured server only, let the SDK go and register them."""
        kinds = [value for name, value in request.headers.items() if name.lower() == "x-inngest-sync-kind"]
        if kinds != ["in_band"] and not self._may_register:
            error = UnsupportedSyncError("only in-band sync: no Inngest server is configured to register with")
            body = {"code": error.code, "message": error.message}
            return IngressResponse(status=400, headers={"content-type": "application/json"}, body=encode(body))
        return _response(await self._handler.put(call))


class _SdkSteps:
    """`Steps` on the SDK's context."""

    def __init__(self, ctx: inngest.Context) -> None:
        self._ctx = ctx

    @property
    def engine_run_id(self) -> str:
        return self._ctx.run_id

    async def run(self, step_id: str, body: Callable[[int], Awaitable[JsonValue]]) -> JsonValue:
        async def attempt() -> JsonValue:
            with _failures_told():
                return await body(self._ctx.attempt)

        return await self._ctx.step.run(step_id, attempt)

    async def race(self, branches: Sequence[Callable[[], Awaitable[None]]]) -> None:
        within = tuple(partial(_not_exiting, branch) for branch in branches)
        await self._ctx.group.parallel(within, parallel_mode=inngest.ParallelMode.RACE)


async def _not_exiting(branch: Callable[[], Awaitable[None]]) -> None:
    """A branch is a task of its own, and one that lets `sys.exit()` through ends the event loop."""
    with _failures_told():
        await branch()


@contextmanager
def _failures_told() -> Iterator[None]:
    """What goes wrong within, as the SDK understands it. `sys.exit()` must not end the host."""
    try:
        yield
    except FunctionFailedError as error:
        raise inngest.NonRetriableError(str(error), quiet=True) from error
    except SystemExit as error:
        raise FunctionExitedError(f"it called sys.exit({error.code!r})") from error


def _sdk_functions(client: _Client, function: DurableFunction, deps: FunctionDeps) -> list[inngest.Function[Any]]:
    """The function and its failure handler, which also hears when a run of the function was cancelled.

    The handler is what the SDK itself would make of `on_failure`, but for its retries: the SDK allows it none, and
    what is recorded there must not be lost because a disk was full for a minute.
    """

    async def run(ctx: inngest.Context) -> JsonValue:
        steps: Steps = _SdkSteps(ctx)
        with _failures_told():
            return await function.body(deps, steps, ctx.event.data)

    async def give_up(ctx: inngest.Context) -> None:
        ended: Any = ctx.event.data
        message = str(ended["error"]["message"])
        if ctx.event.name == _CANCELLED:
            message = f"the engine's run was cancelled: {message}"
        with _failures_told():
            await function.on_failure(deps, ended["event"]["data"], message)

    make = client.create_function(
        fn_id=function.function_id,
        name=function.name,
        retries=function.retries,
        trigger=inngest.TriggerEvent(event=function.event_name),
    )
    make_failure = client.create_function(
        fn_id=f"{function.function_id}-failure",
        name=f"{function.name} (failure)",
        retries=FAILURE_RETRIES,
        trigger=[
            inngest.TriggerEvent(
                event=event, expression=f"event.data.function_id == '{client.app_id}-{function.function_id}'"
            )
            for event in (_FAILED, _CANCELLED)
        ],
    )
    return [make(run), make_failure(give_up)]


def _outgoing(event: inngest.Event) -> OutgoingEvent:
    return OutgoingEvent(name=event.name, data=event.data, event_id=event.id or None, ts_ms=event.ts or None)


def _raise_if_error(error: Exception | None) -> None:
    if error is not None:
        raise error


def _response(answer: comm_lib.CommResponse) -> IngressResponse:
    body = answer.body_bytes()
    if isinstance(body, Exception):
        raise body
    return IngressResponse(status=answer.status_code, headers=answer.headers, body=body)


def _silent_logger() -> logging.Logger:
    """A logger of nobody: the SDK logs errors of user code, whose texts may hold payloads and secrets."""
    logger = logging.Logger("inngest")  # noqa: LOG001 - a registered one could be switched on again
    logger.disabled = True
    return logger
