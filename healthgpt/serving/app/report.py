"""A sheet of what was asked, answered and drawn, to be printed or kept as PDF."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from healthgpt.serving.app.markup import DISCLAIMER, TASK_NAMES, caption, text
from healthgpt.serving.app.pictures import as_address
from healthgpt.serving.app.sessions import Session, Turn
from healthgpt.tasks import Task


def sheet(session: Session) -> str:
    """The sheet of a session's finished turns, as HTML."""
    turns = [turn for turn in session.turns if turn.done and not turn.error]
    if not turns:
        return '<p class="hg-lead">Nothing to report yet: ask or draw something in the workspace first.</p>'
    models = ", ".join(dict.fromkeys(turn.model for turn in turns))
    files = ", ".join(dict.fromkeys(turn.file for turn in turns if turn.file)) or "none"
    facts = (
        ("Date", f"{datetime.now():%Y-%m-%d %H:%M}"),
        ("Model", models),
        ("Image", files),
    )
    rows = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return (
        '<div class="hg-print-bar">'
        '<button type="button" class="hg-button" data-hg="print">Print or save as PDF</button>'
        "<p>Remarks can be written into the sheet.</p></div>"
        f'<article class="hg-sheet" aria-label="Report"><header><h2>HealthGPT report</h2><dl>{rows}</dl></header>'
        f'<p class="hg-sheet-warning"><strong>Made by a model.</strong> {DISCLAIMER}</p>'
        f"<ol>{_entries(turns)}</ol>"
        '<section><h3 id="hg-remarks">Remarks</h3><div class="hg-remarks" contenteditable="true" role="textbox" '
        'aria-multiline="true" aria-labelledby="hg-remarks"></div></section>'
        f"<footer>{DISCLAIMER}</footer></article>"
    )


def _entries(turns: Sequence[Turn]) -> str:
    """All turns; an image stands where it is asked about first."""
    before = [None, *(turn.shown for turn in turns[:-1])]
    return "".join(_entry(turn, turn.shown != last) for turn, last in zip(turns, before, strict=True))


def _entry(turn: Turn, with_image: bool) -> str:
    pictures = []
    if with_image and turn.shown is not None:
        pictures.append((as_address(turn.shown), "What the model saw"))
    if turn.picture is not None:
        pictures.append((as_address(turn.picture), "Synthetic: drawn by the model"))
    figures = "".join(
        f'<figure><img src="{address}" alt="{words}"><figcaption>{words}</figcaption></figure>'
        for address, words in pictures
    )
    answer = f'<p class="hg-sheet-answer">{text(turn.answer)}</p>' if turn.task is Task.COMPREHENSION else ""
    facts = [TASK_NAMES[turn.task], caption(turn.source) if turn.source else "", turn.chosen.words()]
    facts.append("stopped early" if turn.stopped else "")
    return (
        f"<li><h3>{text(turn.instruction)}</h3>{answer}"
        f'<div class="hg-sheet-pictures">{figures}</div>'
        f'<p class="hg-facts">{" · ".join(text(fact) for fact in facts if fact)}</p></li>'
    )
