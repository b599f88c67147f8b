"""The console from outside: who gets in, what the pages show, and what no page lets through."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rawr.coordination.model import Desk, Handoff, MemoryScope, RuntimePolicy, Workflow
from rawr.errors import RawrError, StorageError
from rawr.execution.ports import DeskContext
from rawr.execution.program import coordination_runner
from rawr.host.runtime import Host, open_host
from rawr.host.settings import HostSettings, Limits
from rawr.hq import Manifest, PluginFault
from rawr.ids import DeskId, HandoffId, InstanceId, WorkflowId
from rawr.security.credentials import SecretsFolder
from rawr.security.sessions import CODE_LIVES_MS, SESSION_IDLE_MS, SESSION_LIVES_MS, LoginCodes
from rawr.testing.clock import FakeClock

if TYPE_CHECKING:
    from tests.host.conftest import Answer, Ask, AskAsync, Hosted

ORIGIN = "http://127.0.0.1:3000"
JSON = {"content-type": "application/json"}
HOSTILE = ("<img src=x onerror=alert(1)>", "\u202egnp.exe \u05d0\u05d1", "x" * 500, "'\"</script>{{ 7 * 7 }}")
"""Names that want to be more than names."""


class Read(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, tag: str, attribute: str) -> list[str | None]:
        return [attributes.get(attribute) for name, attributes in self.tags if name == tag]


class Browser:
    """Somebody at the app of one instance, with the cookie that it was given."""

    def __init__(self, hosted: Hosted, ask: Ask) -> None:
        self.hosted = hosted
        self._ask = ask
        self.cookie: dict[str, str] = {}

    def get(self, path: str, **headers: str) -> Answer:
        return self._ask(self.hosted.app, "GET", path, headers={**self.cookie, **headers})

    def post(self, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        return self._ask(self.hosted.app, "POST", path, headers={**self.cookie, **(headers or {})}, body=body)

    def redeem(self, code: str, headers: Mapping[str, str] = JSON) -> Answer:
        return self.post("/console/login", json.dumps({"code": code}).encode(), headers)

    def sign_in(self) -> Answer:
        answer = self.redeem(self.hosted.login_codes.mint())
        assert answer.status == 200
        self.cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
        return answer

    def is_signed_in(self) -> bool:
        return self.get("/console/").status == 200


@pytest.fixture
def browser(hosted: Hosted, ask: Ask) -> Browser:
    return Browser(hosted, ask)


@pytest.fixture
def signed_in(browser: Browser) -> Browser:
    browser.sign_in()
    return browser


def chain(workflow_id: str, *handlers: str, name: str = "a workflow", desk_name: str = "a desk") -> Workflow:
    desks = tuple(_desk(f"desk-{number}", handler, desk_name) for number, handler in enumerate(handlers))
    handoffs = tuple(
        Handoff(handoff_id=HandoffId(f"to-{later.desk_id}"), from_desk_id=earlier.desk_id, to_desk_id=later.desk_id)
        for earlier, later in itertools.pairwise(desks)
    )
    return Workflow(
        workflow_id=WorkflowId(workflow_id),
        version=1,
        name=name,
        entry_desk_id=desks[0].desk_id,
        desks=desks,
        handoffs=handoffs,
    )


def _desk(desk_id: str, handler: str, name: str) -> Desk:
    return Desk(
        desk_id=DeskId(desk_id),
        kind="desk:analysis",
        name=name,
        responsibility="is tested",
        domain="test",
        input_schema={},
        output_schema={},
        memory_scope=MemoryScope(persist=False),
        runtime_policy=RuntimePolicy(retries=0),
        handler=handler,
    )


# Signing in and out


@pytest.mark.parametrize("path", ["/", "/console"])
def test_the_root_leads_to_the_console(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert (answer.status, answer.headers["location"]) == (303, "/console/")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/console/", "/console/login?next=/console/"),
        ("/console/runs/run-1", "/console/login?next=/console/runs/run-1"),
        ("/console/nothing", "/console/login"),
        ("/console/runs/..", "/console/login"),
        ("/console/runs/%0d%0aset-cookie:x", "/console/login"),
    ],
)
def test_without_a_session_every_page_leads_to_the_login(browser: Browser, path: str, location: str) -> None:
    answer = browser.get(path)
    assert (answer.status, answer.headers["location"], answer.body) == (303, location, b"")


def test_a_code_opens_one_session(browser: Browser) -> None:
    code = browser.hosted.login_codes.mint()
    assert browser.redeem(code).json == {"ok": True}
    answer = browser.redeem(code)
    assert (answer.status, "set-cookie" in answer.headers) == (401, False)
    assert {"defined": False, "code": "UNAUTHORIZED", "status": 401}.items() <= answer.json.items()


def test_an_expired_code_and_a_wrong_one_get_the_same_answer(browser: Browser, clock: FakeClock) -> None:
    code = browser.hosted.login_codes.mint()
    clock.advance(CODE_LIVES_MS)
    expired, wrong = browser.redeem(code), browser.redeem("a" * 43)
    assert (expired.status, expired.body) == (wrong.status, wrong.body)


def test_the_cookie_is_named_by_the_port_and_kept_from_scripts_and_other_sites(browser: Browser) -> None:
    name, _, rest = browser.sign_in().headers["set-cookie"].partition("=")
    assert name == "rawr_session_3000"
    assert rest.partition("; ")[2] == "Path=/; HttpOnly; SameSite=Strict"


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://127.0.0.1:3000"},
        {"origin": "http://127.0.0.1:5173"},
        {"origin": "http://127.0.0.1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": ORIGIN, "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/console/login", "/console/logout"])
def test_another_site_can_neither_sign_in_nor_out(signed_in: Browser, path: str, headers: dict[str, str]) -> None:
    code = signed_in.hosted.login_codes.mint()
    answer = signed_in.post(path, json.dumps({"code": code}).encode(), {**JSON, **headers})
    assert (answer.status, answer.json["code"]) == (403, "FORBIDDEN")
    assert signed_in.is_signed_in()
    assert signed_in.redeem(code).status == 200  # it was not used up


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_our_own_page_can_sign_in(browser: Browser, site: str) -> None:
    headers = {**JSON, "origin": ORIGIN, "sec-fetch-site": site}
    assert browser.redeem(browser.hosted.login_codes.mint(), headers).status == 200


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain;application/json"],
)
def test_what_a_form_can_send_does_not_sign_in(browser: Browser, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = browser.redeem(browser.hosted.login_codes.mint(), headers)
    assert (answer.status, answer.json["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[]", 400), (b'{"code":1}', 400), (b"{}", 400), (b'{"code":"' + b"a" * 5000 + b'"}', 413)],
)
def test_a_malformed_body_is_refused(browser: Browser, body: bytes, status: int) -> None:
    assert browser.post("/console/login", body, JSON).status == status


def test_codes_that_cannot_be_read_let_nobody_in_and_do_not_say_where_they_are(browser: Browser) -> None:
    code = browser.hosted.login_codes.mint()
    (browser.hosted.folder / "secrets" / "login-codes.json").write_text("{")
    answer = browser.redeem(code)
    assert (answer.status, answer.json["code"]) == (503, "CREDENTIALS_UNAVAILABLE")
    assert str(browser.hosted.folder) not in answer.text


def test_signing_out_ends_the_session_itself(signed_in: Browser) -> None:
    answer = signed_in.post("/console/logout", headers={"origin": ORIGIN})
    assert (answer.status, answer.headers["location"]) == (303, "/console/login")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert not signed_in.is_signed_in()  # with the old cookie


def test_signing_in_again_ends_the_session_before(signed_in: Browser) -> None:
    old = dict(signed_in.cookie)
    signed_in.sign_in()
    assert signed_in.is_signed_in()
    signed_in.cookie = old
    assert not signed_in.is_signed_in()


def test_a_session_ends_after_twelve_hours(signed_in: Browser, clock: FakeClock) -> None:
    for _ in range(11):
        clock.advance(SESSION_LIVES_MS // 12)
        assert signed_in.is_signed_in()
    clock.advance(SESSION_LIVES_MS // 12)
    assert not signed_in.is_signed_in()


def test_a_session_that_nobody_uses_ends_after_two_hours(signed_in: Browser, clock: FakeClock) -> None:
    clock.advance(SESSION_IDLE_MS)
    assert not signed_in.is_signed_in()


def test_a_cookie_that_another_local_server_added_does_not_sign_anybody_out(signed_in: Browser) -> None:
    own = signed_in.cookie["cookie"]
    signed_in.cookie = {"cookie": f"rawr_session_3000=planted; theme=dark; {own}"}
    assert signed_in.is_signed_in()


@pytest.mark.parametrize("cookie", ["rawr_session_3000=", "rawr_session_3000", "rawr_session_3000=x; ;=", "=;\xff"])
def test_a_cookie_that_is_no_session_opens_nothing(browser: Browser, cookie: str) -> None:
    assert browser.get("/console/", cookie=cookie).status == 303


def test_a_session_opens_rpc_for_our_own_pages_and_never_the_api(signed_in: Browser) -> None:
    def rpc(**headers: str) -> int:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return signed_in.post("/rpc/coordination/listWorkflows", b'{"json":{}}', {**JSON, **given}).status

    assert rpc(origin=ORIGIN) == 200
    assert rpc(sec_fetch_site="same-origin") == 200
    assert rpc() == 403
    assert rpc(sec_fetch_site="none") == 403
    assert rpc(origin=ORIGIN, sec_fetch_site="same-site") == 403
    assert signed_in.get("/api/orpc/coordination/workflows").status == 401


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data; boundary=x", None])
def test_with_a_session_rpc_takes_nothing_that_a_form_could_send(signed_in: Browser, content_type: str | None) -> None:
    headers = {"origin": ORIGIN, **({} if content_type is None else {"content-type": content_type})}
    answer = signed_in.post("/rpc/coordination/listWorkflows", b'{"json":{}}', headers)
    assert (answer.status, answer.json["json"]["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


def test_a_bearer_credential_of_any_kind_keeps_the_cookie_from_counting(signed_in: Browser) -> None:
    headers = {**JSON, "origin": ORIGIN, "authorization": "Bearer wrong"}
    assert signed_in.post("/rpc/coordination/listWorkflows", b'{"json":{}}', headers).status == 403


def test_under_tls_the_cookie_never_leaves_it(browser: Browser, ask: Ask) -> None:
    body = json.dumps({"code": browser.hosted.login_codes.mint()}).encode()
    headers = {**JSON, "origin": "https://127.0.0.1:3000"}
    answer = ask(browser.hosted.app, "POST", "/console/login", headers=headers, body=body, scheme="https")
    cookie, _, how = answer.headers["set-cookie"].partition("; ")
    assert how == "Path=/; HttpOnly; SameSite=Strict; Secure"
    secret = cookie.removeprefix("__Host-rawr_session_3000=")

    def page(cookie: str, scheme: str) -> int:
        return ask(browser.hosted.app, "GET", "/console/", headers={"cookie": cookie}, scheme=scheme).status

    assert page(f"__Host-rawr_session_3000={secret}", "https") == 200
    assert page(f"rawr_session_3000={secret}", "https") == 303  # anybody on a page in the clear could have planted it
    assert page(f"__Host-rawr_session_3000={secret}", "http") == 303


@pytest.mark.parametrize(
    "wanted",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example/console/",
        "/console/../rpc",
        "/console//evil",
        "/console/login",
        "javascript:alert(1)",
        "%2f%2fevil.example",
        "/console/runs/%2e%2e",
        '"><script>',
        "",
    ],
)
def test_next_leads_nowhere_but_to_pages_of_the_console(browser: Browser, wanted: str) -> None:
    page = Read(browser.get(f"/console/login?next={wanted}").text)
    assert page.values("p", "data-next")[0] == "/console/"


def test_next_keeps_the_run_that_was_asked_for(browser: Browser) -> None:
    page = Read(browser.get("/console/login?next=/console/runs/run-1").text)
    assert page.values("p", "data-next")[0] == "/console/runs/run-1"


# Every answer


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 303),
        ("GET", "/console/", 200),
        ("HEAD", "/console/", 200),
        ("GET", "/console/login", 200),
        ("GET", "/console/nothing", 404),
        ("GET", "/console/runs/unknown", 404),
        ("GET", "/console/assets/login.js", 200),
        ("GET", "/console/assets/nothing", 404),
        ("POST", "/console/login", 415),
        ("POST", "/console/", 405),
        ("DELETE", "/console/runs/run-1", 405),
    ],
)
def test_every_answer_has_the_security_headers(
    signed_in: Browser, ask: Ask, method: str, path: str, status: int
) -> None:
    answer = ask(signed_in.hosted.app, method, path, headers=signed_in.cookie)
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";"))
    assert answer.status == status
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "connect-src", "form-action")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "frame-ancestors", "trusted-types")} == {"'none'"}
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "same-origin"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == ("no-cache" if path.endswith(".js") else "no-store")


def test_a_foreign_host_gets_nothing_of_the_console(browser: Browser, ask: Ask) -> None:
    assert ask(browser.hosted.app, "GET", "/console/login", host="evil.example:3000").status == 421


@pytest.mark.parametrize("path", ["/console/", "/console/login", "/console/nothing"])
def test_pages_bring_no_inline_code_and_nothing_from_elsewhere(signed_in: Browser, path: str) -> None:
    page = Read(signed_in.get(path).text)
    links = [value for tag, attribute in LINKS for value in page.values(tag, attribute)]
    assert all(link is not None and link.startswith("/console/") for link in links)
    assert "style" not in {tag for tag, _ in page.tags}
    assert not {name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"}


LINKS = (("a", "href"), ("link", "href"), ("script", "src"), ("form", "action"))


# Assets


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("console.css", "text/css; charset=utf-8"),
        ("login.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    ],
)
def test_assets_need_no_session(browser: Browser, name: str, content_type: str) -> None:
    answer = browser.get(f"/console/assets/{name}")
    assert (answer.status, answer.content_type, answer.body != b"") == (200, content_type, True)


def test_the_assets_that_pages_link_to_may_be_kept_for_ever(browser: Browser) -> None:
    page = Read(browser.get("/console/login").text)
    linked = [*page.values("link", "href"), *page.values("script", "src")]
    assert len(linked) == 3
    for link in linked:
        assert browser.get(str(link)).headers["cache-control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("name", ["", "pages.py", "../pages.py", "..%2fpages.py", "console.css/", "/etc/passwd"])
def test_nothing_but_the_known_assets_is_served(browser: Browser, name: str) -> None:
    assert browser.get(f"/console/assets/{name}").status == 404


# Pages


def test_an_empty_hq_says_what_to_do_next(signed_in: Browser) -> None:
    text = Read(signed_in.get("/console/").text).text
    assert str(signed_in.hosted.folder) in text
    assert "inst-test" in text
    assert {"rawr workflow coord create", "rawr plugins web list"} <= {line.strip() for line in text.splitlines()}


def test_the_overview_shows_workflows_runs_and_enabled_plugins(signed_in: Browser) -> None:
    async def fill(hosted: Hosted) -> None:
        await hosted.coordination.save_workflow(chain("reviewing", "h", "h", name="Quarterly review"))
        for number in range(25):
            await hosted.coordination.queue_run("reviewing", f"run-{number}")

    asyncio.run(fill(signed_in.hosted))
    signed_in.hosted.state.enable("mfe-demo")
    page = Read(signed_in.get("/console/").text)
    assert "Quarterly review" in page.text
    assert "/rawr/plugins/web/mfe-demo" in page.text
    assert "@rawr/plugin-gone" not in page.text
    runs = [link for link in page.values("a", "href") if link and link.startswith("/console/runs/")]
    assert (len(runs), runs[0]) == (20, "/console/runs/run-24")


def test_a_part_that_cannot_be_read_leaves_the_others(signed_in: Browser) -> None:
    signed_in.hosted.state.error = StorageError("the state lies on a disk that is gone")
    asyncio.run(signed_in.hosted.coordination.save_workflow(chain("reviewing", "h")))
    answer = signed_in.get("/console/")
    assert answer.status == 200
    assert "the state lies on a disk that is gone" in answer.text
    assert "reviewing" in answer.text


@pytest.mark.parametrize(
    "path", ["/console/runs/unknown", "/console/runs/", "/console/runs/a/b", "/console/runs/%3Cimg%3E", "/console/x"]
)
def test_what_is_not_there_is_a_page_of_its_own(signed_in: Browser, path: str) -> None:
    answer = signed_in.get(path)
    assert (answer.status, answer.content_type) == (404, "text/html; charset=utf-8")
    assert "Not found" in Read(answer.text).text


def test_a_queued_run_shows_the_desks_that_wait(signed_in: Browser, clock: FakeClock) -> None:
    async def queue(hosted: Hosted) -> None:
        await hosted.coordination.save_workflow(chain("reviewing", "h", "h", desk_name="Reads"))
        await hosted.coordination.queue_run("reviewing", "run-1", {"depth": 3})

    asyncio.run(queue(signed_in.hosted))
    clock.advance(2410)
    text = Read(signed_in.get("/console/runs/run-1").text).text
    assert (text.count("Reads"), text.count("waiting")) == (2, 2)
    assert "2.41 s" in text
    assert '"depth": 3' in text


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_nothing_but_text(signed_in: Browser, name: str) -> None:
    async def queue(hosted: Hosted) -> None:
        await hosted.coordination.save_workflow(chain("hostile", "h", name=name, desk_name=name))
        await hosted.coordination.queue_run("hostile", "run-1", {name: name})

    plain = ["/console/", "/console/runs/run-1"]
    asyncio.run(queue(signed_in.hosted))
    for page in (Read(signed_in.get(path).text) for path in plain):
        assert name in page.text
        assert not {"img", "script"} & {tag for tag, _ in page.tags}


# With a real engine


def fails(given: Any, ctx: DeskContext) -> Any:
    raise RawrError(HOSTILE[0])


def doubles(given: Any, ctx: DeskContext) -> Any:
    return {"number": given["number"] * 2, HOSTILE[0]: HOSTILE[3]}


def real_manifest() -> Manifest:
    return Manifest(
        procedures=(),
        capabilities=(),
        functions=(coordination_runner(),),
        desk_handlers={"test.doubles": doubles, "test.fails": fails},
        workflows=(
            chain("doubling", "test.doubles", desk_name="Doubles"),
            chain("failing", "test.doubles", "test.fails", "test.doubles"),
        ),
        web_mounts=(),
        faults=(PluginFault(path="plugins/workflows/broken", code="PLUGIN_BROKEN", message=HOSTILE[0]),),
    )


async def ended(host: Host, workflow_id: str) -> None:
    run = (await host.coordination.queue_run(workflow_id, workflow_id, {"number": 4})).run
    while isinstance(run.finished_at, str) is False:
        await asyncio.sleep(0.01)
        run = await host.coordination.get_run(run.run_id)


async def cookie_of(host: Host, root: Path, ask: AskAsync) -> dict[str, str]:
    code = await asyncio.to_thread(minted, root)
    answer = await ask(host.app, "POST", "/console/login", headers=JSON, body=json.dumps({"code": code}).encode())
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


def minted(root: Path) -> str:
    """A code as the command line makes it."""
    from rawr.clock import SystemClock

    return LoginCodes(SecretsFolder(root / ".rawr" / "secrets").login_codes_path(), SystemClock()).mint()


SETTINGS = HostSettings(limits=Limits(drain_s=2))


def test_the_pages_of_a_real_run_show_what_happened(tmp_path: Path, ask_async: AskAsync) -> None:
    async def pages() -> list[Read]:
        async with open_host(tmp_path, InstanceId("inst"), real_manifest(), SETTINGS) as host:
            cookie = await cookie_of(host, tmp_path, ask_async)
            await ended(host, "doubling")
            await ended(host, "failing")
            paths = ("/console/", "/console/runs/doubling", "/console/runs/failing")
            return [Read((await ask_async(host.app, "GET", path, headers=cookie)).text) for path in paths]

    overview, completed, failed = asyncio.run(asyncio.wait_for(pages(), 60))
    assert "plugins/workflows/broken" in overview.text
    assert tuple(overview.values("a", "href")[1:3]) == ("/console/runs/failing", "/console/runs/doubling")
    assert "Doubles" in completed.text
    assert '"number": 8' in completed.text
    assert "run.completed" in completed.text
    assert [css for css in completed.values("rect", "class") if css != "track"] == ["bar completed"]
    assert [css for css in failed.values("rect", "class") if css != "track"] == ["bar completed", "bar failed"]
    assert "not reached" in failed.text
    assert f"desk desk-1 failed: {HOSTILE[0]}" in failed.text
    for page in (overview, completed, failed):
        assert HOSTILE[0] in page.text
        assert not {"img", "script"} & {tag for tag, _ in page.tags}


def test_two_hosts_share_neither_codes_nor_sessions(tmp_path: Path, ask_async: AskAsync) -> None:
    async def statuses() -> list[int]:
        first, second = tmp_path / "first", tmp_path / "second"
        async with (
            open_host(first, InstanceId("first"), real_manifest(), SETTINGS) as one,
            open_host(second, InstanceId("second"), real_manifest(), SETTINGS) as other,
        ):
            cookie = await cookie_of(one, first, ask_async)
            body = json.dumps({"code": await asyncio.to_thread(minted, first)}).encode()
            return [
                (await ask_async(one.app, "GET", "/console/", headers=cookie)).status,
                (await ask_async(other.app, "GET", "/console/", headers=cookie)).status,
                (await ask_async(other.app, "POST", "/console/login", headers=JSON, body=body)).status,
            ]

    assert asyncio.run(asyncio.wait_for(statuses(), 60)) == [200, 303, 401]


def test_closing_the_host_ends_its_sessions(tmp_path: Path, ask_async: AskAsync) -> None:
    async def status() -> int:
        async with open_host(tmp_path, InstanceId("inst"), real_manifest(), SETTINGS, port=3000) as host:
            cookie = await cookie_of(host, tmp_path, ask_async)
        async with open_host(tmp_path, InstanceId("inst"), real_manifest(), SETTINGS, port=3000) as again:
            return (await ask_async(again.app, "GET", "/console/", headers=cookie)).status

    assert asyncio.run(asyncio.wait_for(status(), 60)) == 303
