"""Debian's Chromium, driven by Playwright, for the tests of pages. Where it is not there they are skipped, in one line.

from browser import elsewhere, serious_violations    # beside the fixtures `browser` and `new_page`
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-first-run", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
]  # fmt: skip
DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
_SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for all tests of a file; as long as it is there, a loop of asyncio runs in this thread."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: bash scripts/setup.sh dev")
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Makes pages, each in a context of its own, as of another user; keywords go to Playwright's `new_context`."""
    contexts = []

    def make(**settings: Any) -> Any:
        context = browser.new_context(**{"viewport": DESKTOP, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.asked, page.mistakes = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.mistakes.append(str(error)))
        return page

    yield make
    for context in contexts:
        context.close()


def elsewhere(page: Any, origin: str) -> list[str]:
    """Addresses that a page of `new_page` asked for and that are not of its own origin."""
    own = (origin.rstrip("/"), "data:", "blob:", "about:")
    return [address for address in page.asked if not address.startswith(own)]


def serious_violations(page: Any) -> list[str]:
    """What axe-core finds wrong with a page's accessibility, each rule with the elements."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe here: bash scripts/setup.sh dev")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{violation['id']} ({violation['impact']}): {[node['html'][:160] for node in violation['nodes']]}"
        for violation in found
        if violation["impact"] in _SERIOUS
    ]
