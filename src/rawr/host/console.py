"""`/console/`: pages for a person, who gets in by a login code and stays in by a session cookie.

Everything is read-only but signing in and out. A page asks the same service that the procedure families ask, and
each of its parts may fail alone.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from rawr import __version__
from rawr.clock import Clock
from rawr.console.views import Failed, Loaded, LoginView, OverviewView, Part, ProblemView, RunView, View
from rawr.coordination.model import Run, Workflow
from rawr.coordination.ports import RunNotFoundError
from rawr.coordination.service import CoordinationService, InvalidRunIdError
from rawr.errors import BadInputError, RawrError
from rawr.host.auth import cookie_values, sends_json, session_cookie
from rawr.host.authority import Authority, CredentialsUnavailableError
from rawr.host.dispatch import answered
from rawr.host.errors import ErrorBody, error_body, json_required, too_many_requests
from rawr.host.plugins_web import EnabledPlugins
from rawr.host.request import Request
from rawr.host.responses import Response, after, json_response, shared
from rawr.hq import Manifest, WebMount
from rawr.ids import InstanceId
from rawr.security.policy import Decision, Family, Verdict
from rawr.security.sessions import LoginCodes, Sessions

if TYPE_CHECKING:
    from rawr.console.pages import Asset, Pages

PREFIX: Final = "/console"
HOME: Final = "/console/"
LOGIN: Final = "/console/login"
LOGOUT: Final = "/console/logout"

RUNS_SHOWN: Final = 20
LOGIN_BODY_BYTES: Final = 4096
LOGIN_BODY_S: Final = 10.0

PROTECTION: Final = shared(
    (b"x-content-type-options", b"nosniff"),
    (
        b"content-security-policy",
        (
            b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
            b"require-trusted-types-for 'script'; trusted-types 'none'"
        ),
    ),
    # Not no-referrer: with that, browsers send `Origin: null` even with our own forms.
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
"""On every answer of the console, in place of what the other answers have."""

_HTML: Final = b"text/html; charset=utf-8"
_RUN: Final = re.compile(r"/console/runs/([A-Za-z0-9][A-Za-z0-9._-]{0,127})\Z")

_ALLOWED: Final = {LOGIN: b"GET, HEAD, POST", LOGOUT: b"POST"}

_log: Final = logging.getLogger("rawr.host")

T = TypeVar("T")


class ConsoleParts(msgspec.Struct, frozen=True, kw_only=True):
    """What the console needs besides what every family has."""

    root: str
    port: int
    """Names the cookie: cookies of one host name do not know ports."""
    coordination: CoordinationService
    login_codes: LoginCodes
    sessions: Sessions


class _LoginBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    code: str


class ConsoleFamily:
    def __init__(
        self,
        parts: ConsoleParts,
        manifest: Manifest,
        *,
        authority: Authority,
        instance_id: InstanceId,
        enabled_plugins: EnabledPlugins,
        clock: Clock,
    ) -> None:
        self._parts = parts
        self._manifest = manifest
        self._authority = authority
        self._instance_id = instance_id
        self._enabled_plugins = enabled_plugins
        self._clock = clock
        self._pages: Pages | None = None

    async def __call__(self, request: Request) -> Response:
        work = self._safe_read(request) if request.method in ("GET", "HEAD") else self._safe_write(request)
        return msgspec.structs.replace(await work, protection=PROTECTION)

    async def _safe_read(self, request: Request) -> Response:
        try:
            return await self._read(request)
        except (RunNotFoundError, InvalidRunIdError):
            return await self._not_found()
        except Exception as error:  # noqa: BLE001 - a person looks at this: never a blank page
            body = error_body(error)
            view = ProblemView(heading="This page cannot be shown", message=body.message, request_id=request.request_id)
            return await self._page(view, status=body.status)

    async def _read(self, request: Request) -> Response:
        path = request.path
        if path.startswith(f"{PREFIX}/assets/"):
            return await self._asset(request)
        if path == LOGIN:
            request.notes.operation = "login"
            return await self._page(LoginView(next_path=next_path(request.query)))
        if path in ("/", PREFIX):
            return _see_other(HOME)
        decision = await self._authority.decision(request, Family.CONSOLE)
        if decision.is_admitted:
            return await self._signed_in(request)
        if decision.verdict is Verdict.TOO_MANY:
            return await self._too_many(decision)
        return _see_other(f"{LOGIN}?next={path}" if _is_page(path) else LOGIN)

    async def _signed_in(self, request: Request) -> Response:
        if request.path == HOME:
            request.notes.operation = "overview"
            return await self._page(await self._overview())
        if run_id := _RUN.match(request.path):
            request.notes.operation = "run"
            request.notes.route = f"{PREFIX}/runs/{{runId}}"
            return await self._page(await self._run(run_id[1]))
        return await self._not_found()

    async def _safe_write(self, request: Request) -> Response:
        return await answered(self._write(request), _refused)

    async def _write(self, request: Request) -> Response:
        if request.method != "POST" or request.path not in (LOGIN, LOGOUT):
            return _wrong_method(_ALLOWED.get(request.path, b"GET, HEAD"))
        request.notes.operation = request.path.removeprefix(f"{PREFIX}/")
        return await (self._log_in(request) if request.path == LOGIN else self._log_out(request))

    async def _log_in(self, request: Request) -> Response:
        if not sends_json(request.headers):
            return _refused(json_required())
        code = _code_in(await request.body(limit_bytes=LOGIN_BODY_BYTES, timeout_s=LOGIN_BODY_S))
        if not await self._kept(lambda: self._parts.login_codes.redeem(code)):
            wait_s = self._authority.wait_after_failure_s(request)
            return after(wait_s, _refused(too_many_requests())) if wait_s else _refused(_code_refused())
        await self._end_sessions(request)
        made = await self._kept(self._parts.sessions.open)
        return json_response({"ok": True}, headers=(self._set_cookie(request, made.secret),))

    async def _log_out(self, request: Request) -> Response:
        await self._end_sessions(request)
        return _see_other(LOGIN, self._set_cookie(request, "", "Max-Age=0"))

    def _set_cookie(self, request: Request, value: str, *more: str) -> tuple[bytes, bytes]:
        # Over plain HTTP a browser would not take a cookie that is only for TLS.
        secure = ("Secure",) if request.scheme == "https" else ()
        name = session_cookie(self._parts.port, scheme=request.scheme)
        parts = (f"{name}={value}", "Path=/", "HttpOnly", "SameSite=Strict", *secure, *more)
        return (b"set-cookie", "; ".join(parts).encode())

    async def _end_sessions(self, request: Request) -> None:
        given = cookie_values(request.headers, session_cookie(self._parts.port, scheme=request.scheme))
        if given:
            await self._kept(lambda: self._parts.sessions.close(given))

    async def _kept(self, work: Callable[[], T]) -> T:
        """What `work` makes of the files of codes and sessions, which callers are told nothing of."""
        try:
            return await asyncio.to_thread(work)
        except RawrError as error:
            _log.error("login codes or sessions cannot be used: %s: %s", error.code, error.message)
            message = "the sessions of this HQ cannot be read or written; its log says why"
            raise CredentialsUnavailableError(message) from error

    async def _overview(self) -> OverviewView:
        coordination = self._parts.coordination
        workflows, runs, enabled = await asyncio.gather(
            _part(coordination.list_workflows()),
            _part(coordination.list_runs(limit=RUNS_SHOWN)),
            _part(self._enabled_plugins()),
        )
        return OverviewView(
            root=self._parts.root,
            instance_id=self._instance_id,
            version=__version__,
            now_ms=self._clock.now_ms(),
            workflows=workflows,
            runs=runs,
            web_plugins=enabled if isinstance(enabled, Failed) else Loaded(self._enabled_mounts(enabled.value)),
            faults=self._manifest.faults,
        )

    def _enabled_mounts(self, enabled: frozenset[str]) -> list[WebMount]:
        return [mount for mount in self._manifest.web_mounts if {mount.plugin_id, mount.dir_name} & enabled]

    async def _run(self, run_id: str) -> RunView:
        coordination = self._parts.coordination
        # The timeline after the run: events that are newer than the status are seen, never the reverse.
        run = await coordination.get_run(run_id)
        _, timeline = await coordination.run_timeline(run_id)
        workflow = await self._workflow_of(run)
        return RunView(run=run, workflow=workflow, timeline=timeline, now_ms=self._clock.now_ms())

    async def _workflow_of(self, run: Run) -> Workflow | None:
        """The version that the run is of, if it is still the newest: the service answers with no other."""
        try:
            workflow = await self._parts.coordination.get_workflow(run.workflow_id)
        except RawrError as error:
            _log.warning("workflow %s of run %s: %s", run.workflow_id, run.run_id, error.message)
            return None
        return workflow if workflow.version == run.workflow_version else None

    async def _too_many(self, decision: Decision) -> Response:
        message = f"Too many requests without a session. Come again in {decision.retry_after_s} seconds."
        view = ProblemView(heading="Not now", message=message)
        return after(decision.retry_after_s, await self._page(view, status=429))

    async def _not_found(self) -> Response:
        message = "This HQ has no such page, or no such run."
        return await self._page(ProblemView(heading="Not found", message=message), status=404)

    async def _page(self, view: View, *, status: int = 200) -> Response:
        # In a thread: the first page loads the templates, and a long timeline takes its time.
        html = await asyncio.to_thread(lambda: self._loaded_pages().html(view))
        return Response(status=status, content_type=_HTML, body=html.encode("utf-8", "replace"))

    async def _asset(self, request: Request) -> Response:
        name = request.path.removeprefix(f"{PREFIX}/assets/")
        request.notes.operation = "asset"
        asset: Asset | None = await asyncio.to_thread(lambda: self._loaded_pages().asset(name))
        if asset is None:
            return await self._not_found()
        # Pages link to a version; whoever asks for none, or for an older one, must ask again.
        immutable = request.query == f"v={asset.version}"
        cache = b"public, max-age=31536000, immutable" if immutable else b"no-cache"
        return Response(
            status=200, content_type=asset.content_type, body=asset.body, headers=((b"cache-control", cache),)
        )

    def _loaded_pages(self) -> Pages:
        from rawr.console.pages import Pages  # brings the template engine

        if self._pages is None:
            self._pages = Pages()
        return self._pages


def covers(path: str) -> bool:
    return path in ("/", PREFIX) or path.startswith(HOME)


def next_path(query: str) -> str:
    """Where `next` leads: to a page of the console that there is, else to the overview. It cannot leave the console."""
    names = dict(pair.partition("=")[::2] for pair in query.split("&"))
    wanted = names.get("next", HOME)
    return wanted if _is_page(wanted) else HOME


def _is_page(path: str) -> bool:
    return path == HOME or _RUN.match(path) is not None


def _code_refused() -> ErrorBody:
    message = "This link was used already, or is older than five minutes. Get a new one from the terminal:"
    return ErrorBody(code="UNAUTHORIZED", status=401, message=message)


def _code_in(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_LoginBody).code
    except msgspec.DecodeError as error:
        raise BadInputError('the body must be {"code": "..."}') from error


async def _part(work: Awaitable[T]) -> Part[T]:
    """What one part of a page shows, or why it cannot."""
    try:
        return Loaded(await work)
    except Exception as error:  # noqa: BLE001 - the other parts are still worth showing
        return Failed(error_body(error).message)


def _wrong_method(allowed: bytes) -> Response:
    error = ErrorBody(code="METHOD_NOT_SUPPORTED", status=405, message="this method is not supported here")
    return json_response(error, status=405, headers=((b"allow", allowed),))


def _refused(error: ErrorBody) -> Response:
    return json_response(error, status=error.status)


def _see_other(location: str, *headers: tuple[bytes, bytes]) -> Response:
    return Response(
        status=303,
        content_type=b"text/plain;charset=utf-8",
        body=b"",
        headers=((b"location", location.encode()), *headers),
    )
