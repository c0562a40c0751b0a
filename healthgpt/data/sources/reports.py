"""Radiology reports: the sections of a free text, one form for all of them, and how one is asked for.

A heading stands at the start of a line: `FINDINGS:`, `IMPRESSION:` and their variants in any case, others in capitals;
the two in capitals also stand within a line. Findings are also found under a heading that names the views (`PORTABLE
CHEST RADIOGRAPH:`), and the impression under `CONCLUSION`. Without any of these, the impression is what follows the
paragraph of the last heading, or the last paragraph of a text without headings. `___` in place of what identifies a
patient is kept.
"""

from __future__ import annotations

import re
from collections import defaultdict

from healthgpt.data.records import IMAGE_MARK

WITHOUT_REPORT = "without findings and impression"  # why a record is left out
REPORT_QUESTIONS = (
    "Write the report of this chest X-ray, with its findings and the impression.",
    "Please generate the report of this chest X-ray, both findings and impression.",
    "Describe the findings of this chest X-ray and give your impression.",
    "What would a radiologist report of this chest X-ray?",
)
_TITLE = re.compile(r"^[ \t]*FINAL REPORT[ \t]*$", re.MULTILINE)  # what stands before it is preliminary
_HEADING = re.compile(
    r"""^[ \t]*(?:
      (?P<known>(?i:findings?(?:[ ]*(?:and|&|/)[ ]*impressions?)?|impressions?|conclusions?))[ \t]*(?::|$)
    | (?P<other>(?=[^:\n]*[A-Z]{3})[A-Z][A-Z0-9_ ()/,.&-]*[A-Z0-9_)])[ \t]*:(?=\s|$)
    )
    | (?<!\S)(?P<inline>FINDINGS?|IMPRESSIONS?):""",
    re.MULTILINE | re.VERBOSE,
)
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")
_IMPRESSION = re.compile(r"\b(?:IMPR\w*|CONCLUSIONS?)\b")
_FINDINGS = re.compile(r"\bFINDINGS?\b")
_VIEWS = re.compile(r"\b(?:CHEST|PORTABLE|LATERAL|VIEWS?|RADIOGRAPHS?)\b")
_NOT_VIEWS = re.compile(
    r"\b(?:EXAM\w*|STUDY|TYPE|TECHNIQUE|PROCEDURE|REASON|INDICATIONS?|HISTORY|INFORMATION|COMPARISONS?)\b"
)


def split_report(text: str) -> tuple[str, str]:
    """Findings and impression of a report, whitespace normalised; empty where there is none.

    >>> split_report("FINAL REPORT\\n INDICATION: ___ with cough.\\n FINDINGS: Clear\\n lungs.\\n IMPRESSION: Normal.")
    ('Clear lungs.', 'Normal.')
    """
    text = _TITLE.split(text.replace("\r\n", "\n"))[-1]
    headings = list(_HEADING.finditer(text))
    sections: dict[str, list[str]] = defaultdict(list)
    ends = [*(following.start() for following in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=False):  # one end, and nothing to be ended, without headings
        sections[_section(heading[heading.lastgroup or 0])].append(normalised(text[heading.end() : end]))
    findings = _joined(sections["findings"]) or _joined(sections["views"])
    impression = _joined(sections["impression"])
    if not findings and not impression:
        last = text[headings[-1].end() :] if headings else text
        paragraphs = [normalised(paragraph) for paragraph in _PARAGRAPHS.split(last) if paragraph.strip()]
        impression = " ".join(paragraphs[1:] if headings else paragraphs[-1:])
    return findings, impression


def report_text(findings: str, impression: str) -> str:
    """A report in one form; a section that it lacks is not mentioned.

    >>> report_text("Clear lungs.", "Normal.")
    'Findings: Clear lungs. Impression: Normal.'
    """
    sections = (("Findings", findings), ("Impression", impression))
    return " ".join(f"{name}: {content}" for name, content in sections if content)


def report_question(place: int, num_images: int = 1) -> str:
    """A question that asks for a report; wordings take turns."""
    return f"{IMAGE_MARK}\n" * num_images + REPORT_QUESTIONS[place % len(REPORT_QUESTIONS)]


def normalised(text: str) -> str:
    """Text with single spaces."""
    return " ".join(text.split())


def _joined(contents: list[str]) -> str:
    return " ".join(content for content in contents if content)


def _section(heading: str) -> str:
    name = normalised(heading).upper()
    if _IMPRESSION.search(name):
        return "impression"  # a section of findings and impression too
    if _FINDINGS.search(name):
        return "findings"
    return "views" if _VIEWS.search(name) and not _NOT_VIEWS.search(name) else "other"
