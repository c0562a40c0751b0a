"""Checks the built site: every link and anchor leads somewhere, every image is there and says what it shows, and
nothing is fetched from elsewhere.

    .venv/bin/python scripts/site/links.py [site]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
# Attributes that make a browser fetch something; links that a reader follows may lead away.
FETCHED = {"src", "srcset", "poster", "data"}


class Page(HTMLParser):
    """What a page refers to and what can be referred to in it.

    Attributes:
        links: (attribute, target) of everything. anchors: ids. faults: what is wrong by itself.
    """

    def __init__(self, text: str):
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.anchors: set[str] = set()
        self.faults: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            if found["id"] in self.anchors:
                self.faults.append(f"id {found['id']} is there twice")
            self.anchors.add(found["id"])
        if tag == "img" and "alt" not in found:
            self.faults.append(f"image {found.get('src')} has no alt")
        for name in ("href", "src", "srcset", "poster"):
            if name in found:
                fetched = name in FETCHED or tag in ("link", "image")
                self.links.append(("fetched" if fetched else "followed", found[name]))


@cache
def page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def faults(site: Path) -> Iterator[str]:
    """Everything that is wrong with a built site, a line each."""
    for path in sorted(site.rglob("*.html")):
        here = path.relative_to(site)
        for fault in page(path).faults:
            yield f"{here}: {fault}"
        for kind, link in page(path).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if kind == "fetched" and parts.scheme != "data":
                    yield f"{here}: fetches {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if not target.is_file():
                yield f"{here}: {link} leads nowhere"
            elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in page(target).anchors:
                yield f"{here}: {link} has no such anchor"
    for path in sorted(site.rglob("*.css")):
        for target in re.findall(r"url\([\"']?([^)\"']+)", path.read_text(encoding="utf-8")):
            if not target.startswith("data:") and not (path.parent / target).resolve().is_file():
                yield f"{path.relative_to(site)}: {target} is not there"


def main() -> int:
    site = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "site"
    found = list(faults(site))
    print(*found, sep="\n", end="\n" if found else "")
    print(f"links: {len(list(site.rglob('*.html')))} pages, {len(found)} faults")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
