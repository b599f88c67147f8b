"""The requests that an engine server answers, each in the shape of Inngest's API.

One table says who may send what; a handler reads, calls one function of the engine, and renders.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NamedTuple

from rawr import __version__
from rawr.clock import Clock
from rawr.execution.embedded.app_sync import AppRefusedError, registering_app
from rawr.execution.embedded.engine import Engine
from rawr.execution.embedded.registration import UnsupportedFunctionError
from rawr.execution.embedded.registry import FunctionTakenError
from rawr.host.dispatch import answered
from rawr.host.engine_server.access import Access, Doorkeeper, is_from_a_page
from rawr.host.engine_server.answers import (
    app_json,
    data_answer,
    error_answer,
    event_json,
    fault_answer,
    run_json,
    step_json,
)
from rawr.host.engine_server.query import events_asked, fields_of, limit_of, runs_to_cancel, ulid_of
from rawr.host.engine_server.settings import DEV_WARNING, EngineServerSettings
from rawr.host.request import Request
from rawr.host.responses import Response, json_response
from rawr.wire import JsonValue, decode, iso_from_ms

Handler = Callable[[Request, str], Awaitable[Response]]
"""`handler(request, what the path names)`."""

RUNS_OF_EVENT_MAX: Final = 1000
_REGISTRATION_FAULTS: Final = (AppRefusedError, FunctionTakenError, UnsupportedFunctionError)


class Route(NamedTuple):
    access: Access
    handler: Handler


class EngineApi:
    """Answers requests to an engine. `app_states` is what is known of the apps at given addresses."""

    def __init__(
        self, engine: Engine, settings: EngineServerSettings, *, clock: Clock, app_states: Mapping[str, str]
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._app_states = app_states
        self._door = Doorkeeper(event_keys=settings.event_keys, signing_keys=settings.signing_keys)
        key, signed = Access.EVENT_KEY, Access.SIGNING_KEY
        self._routes: Mapping[tuple[str, str], Route] = {
            ("GET", "/health"): Route(Access.OPEN, self._health),
            ("GET", "/dev"): Route(Access.OPEN, self._dev),
            ("POST", "/fn/register"): Route(signed, self._register),
            ("POST", "/e/*"): Route(key, self._events),
            ("GET", "/v0/runs/*/batch"): Route(signed, self._batch),
            ("GET", "/v0/runs/*/actions"): Route(signed, self._actions),
            ("GET", "/v1/apps"): Route(signed, self._apps),
            ("GET", "/v1/events"): Route(signed, self._event_list),
            ("GET", "/v1/events/*"): Route(signed, self._event),
            ("GET", "/v1/events/*/runs"): Route(signed, self._event_runs),
            ("GET", "/v1/runs/*"): Route(signed, self._run),
            ("GET", "/v1/runs/*/steps"): Route(signed, self._steps),
            ("DELETE", "/v1/runs/*"): Route(signed, self._cancel_run),
            ("POST", "/v1/cancellations"): Route(signed, self._cancel_many),
        }

    async def __call__(self, request: Request) -> Response:
        answer = await answered(self._answer(request), fault_answer)
        kind = (b"x-inngest-server-kind", self._settings.kind.encode())
        return Response(
            status=answer.status,
            content_type=answer.content_type,
            body=answer.body,
            headers=(*answer.headers, kind),
        )

    async def _answer(self, request: Request) -> Response:
        shape, named = _shape(request.path)
        route = self._routes.get((request.method, shape))
        if is_from_a_page(request):
            return error_answer(403, "requests of web pages are not taken")
        if route is None:
            known = any(path == shape for _, path in self._routes)
            return error_answer(405, "method not allowed") if known else error_answer(404, "not found")
        request.notes.family = "engine"
        request.notes.operation = shape
        if not self._door.lets_in(request, route.access, named):
            return error_answer(401, f"this needs a valid {route.access}")
        return await route.handler(request, named)

    async def _body(self, request: Request) -> JsonValue:
        limits = self._settings.limits
        return decode(await request.body(limit_bytes=limits.body_bytes, timeout_s=limits.body_s))

    # --- for everybody

    async def _health(self, request: Request, named: str) -> Response:
        del request, named
        body: dict[str, Any] = {"status": 200, "message": "OK", "mode": self._settings.kind}
        if self._settings.is_dev:
            body["warning"] = DEV_WARNING
        return json_response(body)

    async def _dev(self, request: Request, named: str) -> Response:
        """By this SDKs in dev mode find out that a dev server is here."""
        del request, named
        if not self._settings.is_dev:
            return error_answer(404, "not found")
        apps = await self._engine.inspection.apps()
        return json_response(
            {
                "version": f"rawr {__version__}",
                "startOpts": {"dev": True},
                "functions": [
                    {"id": one.fn_id, "slug": one.fn_id, "name": one.name, "config": one.config}
                    for app in apps
                    for one in app.functions
                ],
                "handlers": [{"url": url, "state": state} for url, state in self._app_states.items()],
                "isSingleNodeService": False,
                "isMissingSigningKey": False,
                "isMissingEventKeys": False,
                "features": {},
                "warning": DEV_WARNING,
            }
        )

    # --- for apps

    async def _register(self, request: Request, named: str) -> Response:
        del named
        expected = request.header(b"x-inngest-expected-server-kind")
        kind = self._settings.kind
        if expected is not None and expected != kind:
            return error_answer(400, f"expected server kind {expected[:32]}, got {kind}", ok=False)
        try:
            app = registering_app(await self._body(request), only_loopback=self._settings.is_dev)
            modified = await self._engine.register(app.app_id, app.functions, url=app.url)
        except _REGISTRATION_FAULTS as error:
            return error_answer(400, error.message, code=error.code, ok=False)
        return json_response({"ok": True, "modified": modified, "app_id": app.app_id, "sync_id": request.request_id})

    async def _events(self, request: Request, named: str) -> Response:
        del named
        ingested = await self._engine.ingest(await self._body(request), request.header(b"x-inngest-event-id-seed"))
        if ingested.refusal is not None:
            return error_answer(400, ingested.refusal, ids=ingested.ids)
        return json_response({"ids": ingested.ids, "status": 200})

    async def _batch(self, request: Request, named: str) -> Response:
        del request
        events = await self._engine.run_events(ulid_of(named, "a run id"))
        return _unknown("run", named) if events is None else json_response(events)

    async def _actions(self, request: Request, named: str) -> Response:
        del request
        if await self._engine.run(ulid_of(named, "a run id")) is None:
            return _unknown("run", named)
        return json_response(await self._engine.run_memos(named))

    # --- for people and their programs

    async def _apps(self, request: Request, named: str) -> Response:
        del request, named
        return self._data([app_json(app) for app in await self._engine.inspection.apps()])

    async def _event_list(self, request: Request, named: str) -> Response:
        del named
        asked = events_asked(request.query)
        found = await self._engine.inspection.events(asked)
        cursor = found[-1].ulid if len(found) == asked.limit else None
        return self._data([event_json(event) for event in found], cursor=cursor)

    async def _event(self, request: Request, named: str) -> Response:
        del request
        event = await self._engine.inspection.event(ulid_of(named, "an event id"))
        return _unknown("event", named) if event is None else self._data(event_json(event))

    async def _event_runs(self, request: Request, named: str) -> Response:
        fields = fields_of(request.query)
        limit = limit_of(fields) if "limit" in fields else RUNS_OF_EVENT_MAX
        if await self._engine.inspection.event(ulid_of(named, "an event id")) is None:
            return _unknown("event", named)
        return self._data([run_json(run) for run in await self._engine.inspection.runs_of_event(named, limit)])

    async def _run(self, request: Request, named: str) -> Response:
        del request
        run = await self._engine.inspection.run(ulid_of(named, "a run id"))
        return _unknown("run", named) if run is None else self._data(run_json(run))

    async def _steps(self, request: Request, named: str) -> Response:
        del request
        if await self._engine.inspection.run(ulid_of(named, "a run id")) is None:
            return _unknown("run", named)
        return self._data([step_json(step) for step in await self._engine.inspection.steps(named)])

    async def _cancel_run(self, request: Request, named: str) -> Response:
        del request
        if await self._engine.cancel(ulid_of(named, "a run id"), "cancelled by a request"):
            return Response(status=204, content_type=b"application/json", body=b"")
        if await self._engine.run(named) is None:
            return _unknown("run", named)
        return error_answer(409, f"run {named} has ended already")

    async def _cancel_many(self, request: Request, named: str) -> Response:
        del named
        which = runs_to_cancel(await self._body(request))
        if not await self._engine.inspection.has_function(which.fn_id):
            return error_answer(404, f"there is no function {which.fn_id[:256]!r}")
        cancelled = await self._engine.cancel_where(which)
        body = {
            "id": request.request_id,
            "function_id": which.fn_id,
            "started_after": iso_from_ms(which.queued_from_ms) if which.queued_from_ms else None,
            "if": which.condition,
            "cancelled": len(cancelled),
        }
        return self._data(body, status=201)

    def _data(self, data: JsonValue, *, status: int = 200, cursor: str | None = None) -> Response:
        return data_answer(data, now_ms=self._clock.now_ms(), status=status, cursor=cursor)


def _shape(path: str) -> tuple[str, str]:
    """The path with `*` for the segment that names something, and that segment as it came."""
    match path.split("/"):
        case ["", "e", key]:
            return "/e/*", key
        case ["", ("v0" | "v1") as version, ("runs" | "events") as kind, named, *rest]:
            return "/".join(["", version, kind, "*", *rest]), named
    return path, ""


def _unknown(what: str, named: str) -> Response:
    return error_answer(404, f"there is no {what} {named}")
