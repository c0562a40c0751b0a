"""Checks the words of the pages: against an English dictionary, and against words that are often mistyped.

    .venv/bin/python scripts/site/spelling.py

The dictionary is American; scripts/site/words.txt has what it lacks: British spellings, names, and the words of the
trade, in small letters. Code, links, equations and what is in capitals are left out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from spylls.hunspell import Dictionary

ROOT = Path(__file__).parents[2]
WORDS = Path(__file__).with_name("words.txt")
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])

# What is not prose, in the order in which it is taken out.
_LEFT_OUT = [
    re.compile(pattern, re.DOTALL | re.MULTILINE)
    for pattern in (
        r"\A---\n.*?\n---\n",  # front matter
        r"^ *```.*?^ *```",
        r"<!--.*?-->",
        r"\{\{.*?\}\}",
        r"\$\$.*?\$\$",
        r"`[^`\n]*(?:\n[^`\n]*)?`",
        r"\$[^$\n]+\$",
        r"<[^<>]+>",
        r"\]\([^)]*\)",
        r"\{[^}\n]*\}",
        r"https?://\S+",
        r"^:::.*$",
        r"\S+@\S+|\S*[/_\\]\S*",  # paths and names in code
    )
]
_WORD = re.compile(r"[^\W\d_](?:[^\W\d_]|['’](?=[^\W\d_]))*")
_SAME = re.compile(r"[A-Z0-9]{2,}s?|.*[a-z][A-Z].*|[^\x00-\x7f]+")  # abbreviations, names of code, other scripts


def prose(text: str) -> str:
    """A page without what is not prose; its lines stay where they are."""
    for pattern in _LEFT_OUT:
        text = pattern.sub(lambda found: " " + "\n" * found[0].count("\n"), text)
    return text


def unknown(text: str, known: Dictionary, own: set[str]) -> Iterator[tuple[int, str]]:
    """Words of a page that no list has, with their lines."""
    for number, line in enumerate(prose(text).splitlines(), start=1):
        for word in _WORD.findall(line):
            plain = word.replace("’", "'").removesuffix("'s")
            if _SAME.fullmatch(plain) or plain.lower() in own or len(plain) == 1:
                continue
            if not known.lookup(plain):
                yield number, plain


def main() -> int:
    known = Dictionary.from_files("en_US")
    own = set(WORDS.read_text(encoding="utf-8").split())
    seen: dict[str, bool] = {}
    count = 0
    for page in PAGES:
        for line, word in unknown(page.read_text(encoding="utf-8"), _Remembered(known, seen), own):
            print(f"{page.relative_to(ROOT)}:{line}: {word}")
            count += 1
    checked = ["README.md", "CHANGELOG.md", *(str(page.relative_to(ROOT)) for page in PAGES[2:])]
    typos = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "--ignore-words", str(WORDS), *checked], cwd=ROOT, check=False
    )
    print(f"spelling: {len(PAGES)} pages, {count} unknown words (names and the trade's go into scripts/site/words.txt)")
    return int(count > 0 or typos.returncode != 0)


class _Remembered:
    """A dictionary that looks each word up once."""

    def __init__(self, known: Dictionary, seen: dict[str, bool]):
        self._known, self._seen = known, seen

    def lookup(self, word: str) -> bool:
        if word not in self._seen:
            self._seen[word] = bool(self._known.lookup(word))
        return self._seen[word]


if __name__ == "__main__":
    sys.exit(main())
