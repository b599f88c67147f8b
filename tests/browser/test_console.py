"""The console in a real browser, in front of a real server: the link, the pages, and what the browser complains of."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from rawr.instance.init import init_instance

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE_S = 60

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


class Hq:
    """An instance of its own with a server that has run `hello`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        init_instance(root)
        self.url = self.rawr("up", "--port", "0")["url"]

    def rawr(self, *arguments: str) -> dict[str, str]:
        command = [sys.executable, "-m", "rawr", "-I", str(self.root), "--json", *arguments]
        done = subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=False)
        document = json.loads(done.stdout)
        assert document["ok"], done.stdout
        data = document["data"]
        assert isinstance(data, dict)
        return data

    def link(self) -> str:
        return self.rawr("open")["url"]


@pytest.fixture
def hq(tmp_path: Path) -> Iterator[Hq]:
    made = Hq(tmp_path / "hq")
    yield made
    made.rawr("down")


@pytest.fixture
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser
        browser.close()


def watched(page: Page, complaints: list[str]) -> Page:
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return page


def test_a_person_signs_in_by_the_link_reads_a_run_and_signs_out(hq: Hq, chromium: Browser) -> None:
    complaints: list[str] = []
    requested: list[str] = []
    hq.rawr("workflow", "coord", "run", "hello", "--run-id", "run-1")
    page = watched(chromium.new_page(viewport={"width": 390, "height": 800}), complaints)
    page.on("request", lambda request: requested.append(request.url))

    page.goto(f"{hq.url}/console/runs/run-1")
    assert page.url == f"{hq.url}/console/login?next=/console/runs/run-1"
    code = hq.link().partition("#")[2]
    # Pasted into the tab that shows the login: only the fragment changes, and nothing is loaded again.
    page.goto(f"{page.url}#{code}")
    page.wait_for_url(f"{hq.url}/console/runs/run-1")
    assert page.locator(".waterfall tbody tr").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= 390

    page.go_back()
    page.wait_for_url(f"{hq.url}/console/runs/run-1")  # the login page sends whoever is signed in on
    assert code not in page.url
    page.goto(f"{hq.url}/console/")
    page.click("text=run-1")
    page.wait_for_url(f"{hq.url}/console/runs/run-1")
    page.click("text=Sign out")
    page.wait_for_url(f"{hq.url}/console/login")

    assert complaints == []
    assert all(url.startswith(hq.url) for url in requested)
    assert not any(code in url.partition("#")[0] for url in requested)


def test_a_link_that_was_used_says_so(hq: Hq, chromium: Browser) -> None:
    link = hq.link()
    first, second = chromium.new_context().new_page(), chromium.new_context().new_page()
    first.goto(link)
    first.wait_for_url(f"{hq.url}/console/")
    second.goto(link)
    second.wait_for_selector("text=used already")
    assert second.url == f"{hq.url}/console/login"


def test_pages_can_be_read_without_javascript(hq: Hq, chromium: Browser) -> None:
    hq.rawr("workflow", "coord", "run", "hello", "--run-id", "run-1")
    with_script = chromium.new_context()
    page = with_script.new_page()
    page.goto(hq.link())
    page.wait_for_url(f"{hq.url}/console/")
    without = chromium.new_context(java_script_enabled=False, storage_state=with_script.storage_state()).new_page()
    without.goto(f"{hq.url}/console/runs/run-1")
    assert "Hello, world!" in without.inner_text("main")
    without.click("text=Sign out")
    assert without.url == f"{hq.url}/console/login"
    assert "needs JavaScript" in without.inner_text("main")
