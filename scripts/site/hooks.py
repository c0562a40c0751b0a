"""What MkDocs calls while it builds the site: numbers and figures go in, and the index of the search comes out.

A page whose front matter says `macros: true` is a Jinja template; it may use what `_macros` names. Its numbers come
from benchmarks/results, so that they are those of the last measurement.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import unescape
from pathlib import Path
from typing import Any

import charts
import gallery_page
import results
import tables
import training_cost
from architecture import architecture
from cli_reference import command_line
from hlora_figure import hlora
from jinja2 import Environment, StrictUndefined
from maths import with_mathml
from mkdocs.structure.files import File, Files
from source_code import code

ROOT = Path(__file__).parents[2]
# Pages that stand elsewhere in the repository: where, and where on the site.
ELSEWHERE = {"CHANGELOG.md": "changes.md", "configs/splits/README.md": "sources/splits.md"}
MOST_TEXT = 1500  # characters of a section that the search knows


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that stand elsewhere."""
    for source, target in ELSEWHERE.items():
        files.append(File.generated(config, target, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fills a template in, and leads links out of docs/ to their pages."""
    up = "../" * page.file.src_uri.count("/")
    for source, target in ELSEWHERE.items():
        markdown = markdown.replace(f"({up}../{source})", f"({up}{target})")
    if not page.meta.get("macros"):
        return markdown
    environment = Environment(undefined=StrictUndefined, autoescape=False)
    return environment.from_string(markdown).render(_macros(f"{up}assets/gallery"))


def _macros(gallery: str) -> Mapping[str, Any]:
    """What a page may use.

    Args:
        gallery: where the page finds the gallery's images.
    """
    return {
        "nano": results.nano,
        "count": lambda figure: f"{results.nano_count(figure):,}",
        "percent": lambda figure, digits=1: results.percent(results.nano(figure), digits),
        "row": results.row,
        "speed": results.speed,
        "megabytes": lambda: f"{results.megabytes(ROOT / 'healthgpt' / 'models' / 'nano'):.0f} MB",
        "architecture": lambda: architecture(gallery),
        "hlora": hlora,
        "first_look": lambda: gallery_page.first_look(gallery),
        "drawings": lambda: gallery_page.drawings(gallery),
        "answers": lambda: gallery_page.answers(gallery),
        "charts": charts,
        "tables": tables,
        "code": code,
        "link": _link,
        "command_line": command_line,
        "training_cost": training_cost,
    }


def _link(page: str, words: str) -> str:
    """A link to a page that may not be written yet, until then its words."""
    return f"[{words}]({page})" if (ROOT / "docs" / page.removeprefix("../")).exists() else words


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """Equations become MathML; tables may be wider than a phone."""
    html = with_mathml(html)
    html = re.sub(r"<table(?! class=\"chart)", '<div class="scroll" data-label="Table"><table', html)
    return re.sub(r"(</table>)(?<!chart)", _closing(html), html)


def _closing(html: str) -> Any:
    """Closes what was opened around tables, but not around charts."""
    kinds = iter(re.findall(r"<table( class=\"chart)?", html))
    return lambda found: found[1] if next(kinds) else f"{found[1]}</div>"


def on_post_build(config: Any) -> None:
    """The search's index as a script, which a page can read from a folder as well as from a server."""
    path = Path(config.site_dir) / "search" / "search_index.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["docs"]
    pages = {entry["location"]: entry["title"] for entry in entries if "#" not in entry["location"]}
    with_sections = {entry["location"].partition("#")[0] for entry in entries if "#" in entry["location"]}
    index = [
        {
            "url": entry["location"],
            "title": unescape(entry["title"]),
            "page": unescape(pages[entry["location"].partition("#")[0]]),
            "text": re.sub(r"\s+", " ", unescape(entry["text"]))[:MOST_TEXT],
        }
        for entry in entries
        if entry["location"] not in with_sections  # whose text is that of their sections
    ]
    script = f"window.searchIndex = {json.dumps(index, ensure_ascii=False)};\n"
    path.with_name("index.js").write_text(script, encoding="utf-8")
    path.unlink()
