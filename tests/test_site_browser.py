"""The built website in Debian's Chromium, on a desk and on a phone: nothing serious for axe, nothing in the console,
nothing that moves while it loads, nothing from elsewhere, and a first page that is small."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import DESKTOP, PHONE, elsewhere, serious_violations
from docs_blocks import ROOT

pytest.importorskip("mkdocs", reason="no mkdocs here: bash scripts/setup.sh docs")
VIEWS = {"desk": DESKTOP, "phone": PHONE}
# One page of each kind.
PAGES = (
    "index.html", "start.html", "results.html", "concepts/hlora.html", "reference/pipeline.html", "reference/cli.html",
    "nano.html", "sources/index.html", "faq.html", "training_cost.html",
)  # fmt: skip
MOST_BYTES = 500_000  # of the first page with everything that it fetches
pytestmark = pytest.mark.slow

SHIFT = """
window.shifts = [];
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().map((entry) => entry.value)))
  .observe({type: "layout-shift", buffered: true});
"""
# Down to the end, so that lazy images come.
SCROLL = """async () => {
  for (let y = 0; y < document.body.scrollHeight; y += 600) {
    scrollTo({top: y, behavior: "instant"});
    await new Promise((done) => setTimeout(done, 30));
  }
}"""


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


@pytest.fixture
def visit(new_page: Callable[..., Any]) -> Callable[..., Any]:
    """Opens pages and scrolls through them; `page.said` is what the console said, `page.got` what was fetched."""

    def go(url: str, view: str = "desk", **settings: Any) -> Any:
        page = new_page(viewport=VIEWS[view], **settings)
        page.said, page.got = [], []
        page.on("console", lambda message: page.said.append(message.text) if message.type != "log" else None)
        page.on("response", lambda response: page.got.append(response))
        page.add_init_script(SHIFT)
        page.goto(url, wait_until="networkidle")
        if settings.get("java_script_enabled", True):
            page.evaluate(SCROLL)
            page.wait_for_load_state("networkidle")
        return page

    return go


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_sound(visit: Callable[..., Any], address: str, name: str, view: str) -> None:
    page = visit(f"{address}/{name}", view)
    assert page.said == page.mistakes == []
    assert elsewhere(page, address) == []
    assert sum(page.evaluate("window.shifts")) < 0.001
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, "the page can be scrolled sideways"
    assert serious_violations(page) == []


@pytest.mark.parametrize("name", ["index.html", "concepts/hlora.html", "start.html"])
def test_the_dark_is_sound(visit: Callable[..., Any], address: str, name: str) -> None:
    assert serious_violations(visit(f"{address}/{name}", color_scheme="dark")) == []


@pytest.mark.parametrize("view", VIEWS)
def test_the_first_page_is_small(visit: Callable[..., Any], address: str, view: str) -> None:
    page = visit(f"{address}/index.html", view)
    assert sum(len(response.body()) for response in page.got) <= MOST_BYTES


def test_themes_can_be_switched_and_stay(visit: Callable[..., Any], address: str) -> None:
    page = visit(f"{address}/start.html", color_scheme="light")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.get_by_role("button", name="Switch between light and dark").click()
    dark = page.evaluate(paper)
    assert light != dark
    page.goto(f"{address}/index.html")
    assert page.evaluate(paper) == dark


@pytest.mark.parametrize("from_folder", [False, True])
def test_search_by_keyboard_without_a_server_too(
    visit: Callable[..., Any], address: str, site: Path, from_folder: bool
) -> None:
    page = visit(f"{site.as_uri() if from_folder else address}/start.html")
    page.keyboard.press("/")
    page.keyboard.type("merge plugin")
    page.wait_for_selector("#search li a")
    assert "What cannot be merged" in page.inner_text("#search ol")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: "start.html" not in url)
    # From a folder, Chromium does not read fonts, and pages take the system's.
    assert [text for text in page.said if not (from_folder and ("font" in text or "net::ERR_FAILED" in text))] == []
    assert page.mistakes == []


def test_tabs_and_slider_by_keyboard(visit: Callable[..., Any], address: str) -> None:
    page = visit(f"{address}/index.html")
    page.get_by_role("tab", name="CT to MRI", exact=True).focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tabpanel", name="MRI to CT").is_visible()
    slider = page.get_by_role("slider", name="From input over drawn to truth")
    slider.focus()
    page.keyboard.press("End")
    assert slider.get_attribute("aria-valuetext") == "truth"
    clip = "getComputedStyle(document.querySelector('#panel-mri2ct .layer.truth')).clipPath"
    assert page.evaluate(clip) in ("inset(0px)", "inset(0px 0% 0px 0px)")


def test_the_menu_of_a_phone(visit: Callable[..., Any], address: str) -> None:
    page = visit(f"{address}/index.html", "phone")
    page.get_by_role("button", name="Open the menu").click()
    page.get_by_role("dialog", name="Menu").get_by_role("link", name="The real weights").click()
    page.wait_for_url("**/weights.html")


def test_without_scripts_everything_is_there(visit: Callable[..., Any], address: str) -> None:
    page = visit(f"{address}/index.html", java_script_enabled=False)
    for kind in ("ct2mri", "report-to-cxr"):
        assert page.locator(f"#panel-{kind}").is_visible()
