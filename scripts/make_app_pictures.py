"""Takes the pictures of docs/app.md and README: the web app with the embedded model, in Chromium.

    python scripts/make_app_pictures.py

Needs Debian's Chromium (apt-get install chromium) and what `scripts/setup.sh dev` installs.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from healthgpt.serving.api.settings import Place
from healthgpt.serving.app.server import running_app
from healthgpt.serving.app.settings import AppSettings
from healthgpt.serving.residents import Residents

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from browser import ARGUMENTS, CHROMIUM, PHONE  # noqa: E402

IMAGES = ROOT / "docs" / "images"
DESKTOP = {"width": 1280, "height": 1010}
COLORS = 128  # of a picture's palette: a third of the bytes, and no difference to be seen


def main() -> None:
    if CHROMIUM is None:
        sys.exit("no Chromium here: apt-get install chromium")
    residents = Residents(["nano"])
    residents.get("nano")
    with running_app(AppSettings(models=("nano",), place=Place(port=0)), residents) as app, sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        for name, scene, settings in (
            ("app", head_ct, {"viewport": DESKTOP}),
            ("app_drawing", conversion, {"viewport": DESKTOP, "color_scheme": "dark"}),
            ("app_phone", chest_x_ray, {"viewport": PHONE, "is_mobile": True, "has_touch": True}),
        ):
            _take(name, scene, chromium.new_page(**settings), app.address)
        chromium.close()


def head_ct(page: Any) -> None:
    """Questions about a volume."""
    _example(page, 3)
    for words in ("Which organ is shown?", "What abnormality is seen in this image?"):
        _say(page, words)


def conversion(page: Any) -> None:
    """An MRI of a CT, with the handle between them."""
    _example(page, 1)
    _say(page, "Turn this CT into an MRI.")


def chest_x_ray(page: Any) -> None:
    """A question on a phone."""
    _example(page, 0)
    _say(page, "What abnormality is seen in this image?")


def _take(name: str, scene: Callable[[Any], None], page: Any, address: str) -> None:
    page.goto(address)
    page.wait_for_selector(".hg-none")
    scene(page)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    page.close()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(COLORS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")


def _example(page: Any, number: int) -> None:
    page.click(f"[data-example='{number}']")
    page.wait_for_selector(".hg-film img")


def _say(page: Any, words: str) -> None:
    before = page.locator("#log .hg-turn").count()
    page.fill("#instruction textarea", words)
    page.click("#send")
    page.wait_for_function(f"document.querySelectorAll('#log .hg-turn').length === {before + 1}")
    page.wait_for_selector("#send", state="visible")


if __name__ == "__main__":
    main()
