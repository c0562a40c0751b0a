"""The built website in Debian's Chromium, on a desk and on a phone: nothing serious for axe, nothing in the console,
nothing that moves while it loads, nothing from elsewhere, and a first page that is small."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docs_blocks import ROOT

pytest.importorskip("mkdocs")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
VIEWS = {"desk": {"width": 1366, "height": 850}, "phone": {"width": 390, "height": 844}}
# One page of each kind.
PAGES = (
    "index.html", "start.html", "results.html", "concepts/hlora.html", "reference/pipeline.html", "reference/cli.html",
    "nano.html", "sources/index.html", "faq.html", "training_cost.html",
)  # fmt: skip
MOST_BYTES = 500_000
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")]

SHIFT = """
window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((entry) => entry.value)))
  .observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that scripts/docs.sh built, else one made here."""
    if built := os.environ.get("HEALTHGPT_SITE"):
        return (ROOT / built).resolve()
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        check=True,
        timeout=300,
    )
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Visit:
    """A page that was opened, with all that happened while it was.

    Attributes:
        requests: addresses. errors: of the console and of scripts. size: bytes of all bodies.
    """

    def __init__(self, browser: Any, view: str, **options: Any):
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._responses: list[Any] = []
        self.context = browser.new_context(viewport=VIEWS[view], **options)
        self.page = self.context.new_page()
        self.page.add_init_script(SHIFT)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("response", lambda response: self._responses.append(response))
        self.page.on(
            "console", lambda said: self.errors.append(said.text) if said.type in ("error", "warning") else None
        )
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _listen(self, said: Any) -> None:
        if said.type in ("error", "warning"):
            self.errors.append(said.text)

    def open(self, url: str) -> Visit:
        self.page.goto(url, wait_until="networkidle")
        return self

    def size(self) -> int:
        return sum(len(response.body()) for response in self._responses)

    def scroll_through(self) -> None:
        """Down to the end, so that lazy images come."""
        self.page.evaluate(
            "async () => { for (let y = 0; y < document.body.scrollHeight; y += 600) {"
            " scrollTo({top: y, behavior: 'instant'}); await new Promise((done) => setTimeout(done, 30)); } }"
        )
        self.page.wait_for_load_state("networkidle")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *args: Any) -> None:
        self.context.close()


def serious(page: Any) -> list[str]:
    """What axe finds serious or critical."""
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['help']} ({'; '.join(node['html'][:150] for node in one['nodes'][:3])})"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(browser: Any, address: str, name: str, view: str) -> None:
    with Visit(browser, view).open(f"{address}/{name}") as visit:
        page = visit.page
        visit.scroll_through()
        assert visit.errors == []
        assert [url for url in visit.requests if not url.startswith(address)] == []
        assert sum(page.evaluate("window.shifts")) < 0.001
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, "the page can be scrolled sideways"
        assert serious(page) == []


@pytest.mark.parametrize("name", ["index.html", "concepts/hlora.html", "start.html"])
def test_the_dark_is_sound(browser: Any, address: str, name: str) -> None:
    with Visit(browser, "desk", color_scheme="dark").open(f"{address}/{name}") as visit:
        visit.scroll_through()
        assert serious(visit.page) == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_first_page_is_small(browser: Any, address: str, view: str) -> None:
    with Visit(browser, view).open(f"{address}/index.html") as visit:
        visit.scroll_through()
        assert visit.size() <= MOST_BYTES


def test_themes_can_be_switched_and_stay(browser: Any, address: str) -> None:
    with Visit(browser, "desk", color_scheme="light").open(f"{address}/start.html") as visit:
        paper = "getComputedStyle(document.body).backgroundColor"
        light = visit.page.evaluate(paper)
        visit.page.get_by_role("button", name="Switch between light and dark").click()
        dark = visit.page.evaluate(paper)
        assert light != dark
        visit.open(f"{address}/index.html")
        assert visit.page.evaluate(paper) == dark


@pytest.mark.parametrize("from_folder", [False, True])
def test_search_by_keyboard_without_a_server_too(browser: Any, address: str, site: Path, from_folder: bool) -> None:
    root = site.as_uri() if from_folder else address
    with Visit(browser, "desk").open(f"{root}/start.html") as visit:
        page = visit.page
        page.keyboard.press("/")
        page.keyboard.type("merge plugin")
        page.wait_for_selector("#search li a")
        assert "What cannot be merged" in page.inner_text("#search ol")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        page.wait_for_url(lambda url: "start.html" not in url)
        assert visit.errors == []


def test_tabs_and_slider_by_keyboard(browser: Any, address: str) -> None:
    with Visit(browser, "desk").open(f"{address}/index.html") as visit:
        page = visit.page
        page.get_by_role("tab", name="CT to MRI", exact=True).focus()
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tabpanel", name="MRI to CT").is_visible()
        slider = page.get_by_role("slider", name="From input over drawn to truth")
        slider.focus()
        page.keyboard.press("End")
        assert slider.get_attribute("aria-valuetext") == "truth"
        clip = "getComputedStyle(document.querySelector('#panel-mri2ct .layer.truth')).clipPath"
        assert page.evaluate(clip) in ("inset(0px)", "inset(0px 0% 0px 0px)")


def test_the_menu_of_a_phone(browser: Any, address: str) -> None:
    with Visit(browser, "phone").open(f"{address}/index.html") as visit:
        page = visit.page
        page.get_by_role("button", name="Open the menu").click()
        page.get_by_role("dialog", name="Menu").get_by_role("link", name="The real weights").click()
        page.wait_for_url("**/weights.html")


def test_without_scripts_everything_is_there(browser: Any, address: str) -> None:
    with Visit(browser, "desk", java_script_enabled=False) as visit:
        visit.page.goto(f"{address}/index.html")
        for kind in ("ct2mri", "report-to-cxr"):
            assert visit.page.locator(f"#panel-{kind}").is_visible()
