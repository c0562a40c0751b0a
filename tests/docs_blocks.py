"""The commands in the documentation, and what their marks say about running them.

A line in front of a block of bash or Python says whether a test runs it:

    <!-- run -->                                        all of it
    <!-- run 1, 3 -->                                   these commands of it, counted from 1
    <!-- run 1 (--count 100 as --count 2) -->           with something smaller in place of what readers want
    <!-- not run: needs the released weights -->        and why
    <!-- run 1; not run: the others need the data -->
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "configs" / "splits" / "README.md", *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(r"^(?P<mark>[^\n]*)\n```(?P<language>bash|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(
    r"<!-- (?:run(?P<numbers>(?: [\d, ]*\d)?)(?P<smaller>(?: \([^()]+ as [^()]*\))*))?(?:; )?(?P<why>not run: .+)? -->"
)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A block of a page.

    Attributes:
        line: of the page, from 1.
        mark: the line in front of it.
        commands: of bash, continued lines joined; of Python, the whole text.
    """

    page: Path
    line: int
    language: str
    mark: str
    commands: tuple[str, ...]

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_marked(self) -> bool:
        return _MARK.fullmatch(self.mark) is not None and self.mark != "<!--  -->"

    def chosen(self) -> Iterator[str]:
        """The commands that are to be run, with what is smaller in them."""
        found = _MARK.fullmatch(self.mark)
        if found is None or not self.mark.startswith("<!-- run"):
            return
        numbers = [int(number) for number in re.findall(r"\d+", found["numbers"] or "")]
        changes = re.findall(r"\(([^()]+) as ([^()]*)\)", found["smaller"] or "")
        for number, command in enumerate(self.commands, start=1):
            if not numbers or number in numbers:
                for before, after in changes:
                    command = command.replace(before, after)
                yield command


def blocks_of(page: Path) -> list[Block]:
    """All blocks of bash and Python of a page."""
    text = "\n" + page.read_text(encoding="utf-8")
    return [
        Block(
            page=page,
            line=text[: found.start("text")].count("\n") - 1,
            language=found["language"],
            mark=found["mark"].strip(),
            commands=(found["text"],) if found["language"] == "python" else tuple(_commands(found["text"])),
        )
        for found in _BLOCK.finditer(text)
    ]


def _commands(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def words_of(command: str) -> list[str]:
    """A command's words, without its comment."""
    return shlex.split(command, comments=True)
