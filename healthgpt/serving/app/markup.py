"""The pieces of HTML that the page is filled with. Whatever a user or a model wrote is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

from healthgpt.images import Seen, View, read_image
from healthgpt.serving.app.examples import Example
from healthgpt.serving.app.pictures import KINDS, as_address
from healthgpt.serving.app.sessions import Session, Turn
from healthgpt.tasks import Task

if TYPE_CHECKING:
    from PIL import Image

DISCLAIMER = "Research software. Not a medical device; not for diagnosis or treatment."
TASK_NAMES = {Task.COMPREHENSION: "Analyze", Task.GENERATION: "Generate"}
_FILE_NAMES = {".png": "PNG", ".dcm": "DICOM", ".nii.gz": "NIfTI"}
_LOGO = (
    '<svg class="hg-logo" viewBox="0 0 32 32" aria-hidden="true" focusable="false">'
    '<rect x="1.5" y="1.5" width="29" height="29" rx="8"/>'
    '<path d="M5 17h5l2.4-7 4.2 13 3.2-9 1.6 3H27"/></svg>'
)


def text(words: str) -> str:
    """Words of a user or a model: escaped, their lines kept."""
    return html.escape(words).replace("\n", "<br>")


def header(models: Sequence[str]) -> str:
    """The top of the page."""
    served = f"<span> · serving {text(', '.join(models))}</span>"
    return (
        f'<header class="hg-header">{_LOGO}<div class="hg-name"><h1>HealthGPT</h1>'
        f"<p>Understands medical images, and makes them{served}</p></div>"
        '<button type="button" class="hg-quiet" data-hg="theme" aria-label="Switch between light and dark">'
        '<span class="hg-moon" aria-hidden="true">◐</span><span class="hg-wide">&nbsp; Light / dark</span></button>'
        "</header>"
        f'<p class="hg-warning" role="note"><strong>Research use only.</strong> {DISCLAIMER}</p>'
    )


def notice(words: str = "") -> str:
    """One line about what went wrong; nothing where nothing did."""
    return f'<p class="hg-notice" role="alert">{text(words)}</p>' if words else ""


def said(words: str = "") -> str:
    """What a screen reader is told when something is finished."""
    return f'<p class="hg-unseen" role="status">{text(words)}</p>'


def no_film() -> str:
    """The viewer without an image."""
    return (
        '<figure class="hg-film hg-empty hg-none"><div class="hg-frame"><p><strong>Drop an image here, or choose a file'
        "</strong><br>PNG, JPEG, DICOM files of a series, NIfTI, MetaImage, NRRD, or a ZIP of them.<br>"
        "Questions and reports work without an image, too.</p></div></figure>"
    )


def film(name: str, seen: Seen, picture: Image.Image, of_model: bool) -> str:
    """The viewer: a picture, and around it what it is.

    Args:
        of_model: whether it is what the model sees, or the file's own pixels.
    """
    what = "model input" if of_model else "source pixels"
    place = f"slice {seen.slices[0] + 1} / {seen.num_slices}" if seen.num_slices > 1 else ""
    position = seen.positions[0]
    facts = [seen.plane, place, f"{position:+.1f} mm" if place and position is not None else ""]
    where = " · ".join(fact for fact in facts if fact)
    spoken = f"{'What the model sees of' if of_model else 'The pixels of'} {name}: {caption(seen)}"
    return (
        f'<figure class="hg-film"><div class="hg-edge"><span class="hg-file">{text(name)}</span>'
        f"<span>{picture.width} × {picture.height} {what}</span></div>"
        f'<div class="hg-frame"><img src="{as_address(picture)}" alt="{html.escape(spoken)}"></div>'
        f'<figcaption class="hg-edge"><span>{text(_modality(seen))} {text(seen.window)}</span>'
        f"<span>{text(where)}</span></figcaption></figure>"
    )


def film_error(name: str, error: str) -> str:
    """The viewer where the chosen window or slice shows nothing."""
    return (
        f'<figure class="hg-film hg-empty"><div class="hg-edge"><span class="hg-file">{text(name)}</span></div>'
        f'<div class="hg-frame"><p role="alert">{text(error)}</p></div></figure>'
    )


def caption(seen: Seen) -> str:
    """What is seen, in words."""
    window = "" if seen.window == "as stored" else f"window {seen.window}"
    parts = [_modality(seen), window, str(seen.plane or "")]
    if seen.num_slices > 1:
        parts.append(f"slice {seen.slices[0] + 1} of {seen.num_slices}")
    return ", ".join(part for part in parts if part)


def _modality(seen: Seen) -> str:
    return seen.scan.modality or ""


def conversation(session: Session) -> str:
    """All turns that are done."""
    turns = [turn for turn in session.turns if turn.done]
    items = "".join(f"<li>{one_turn(turn, session.token)}</li>" for turn in turns)
    return f'<ol class="hg-turns" aria-label="Conversation">{items}</ol>' if items else ""


def empty_conversation() -> str:
    return (
        '<div class="hg-start"><p>Ask about the image, or say what is to be drawn.</p>'
        '<ul class="hg-chips" aria-label="Suggestions">'
        + "".join(
            f'<li><button type="button" class="hg-chip" data-hg="suggest">{text(words)}</button></li>'
            for words in (
                "Describe this image.",
                "What abnormality is seen in this image?",
                "Turn this CT into an MRI.",
                "Improve the resolution of this image.",
                "Draw the chest X-ray of this report: The heart is enlarged.",
            )
        )
        + "</ul></div>"
    )


def one_turn(turn: Turn, token: str) -> str:
    """A question with its answer, or an instruction with its picture."""
    thumb = (
        f'<img class="hg-thumb" src="{as_address(turn.shown)}" alt="The image that was sent">'
        if turn.shown is not None
        else ""
    )
    because = f" — chosen because {text(turn.reason)}" if turn.reason else ""
    if turn.error:
        body = f'<p class="hg-notice">{text(turn.error)}</p>'
    else:
        body = _answer(turn) if turn.task is Task.COMPREHENSION else drawing(turn, token)
    return (
        f'<article class="hg-turn"><div class="hg-asked">{thumb}<div>'
        f'<p class="hg-instruction">{text(turn.instruction)}</p>'
        f'<p class="hg-task"><span class="hg-badge hg-{turn.task}">{TASK_NAMES[turn.task]}</span>{because}</p>'
        f"</div></div>{body}{_footer(turn)}</article>"
    )


def _answer(turn: Turn) -> str:
    words = text(turn.answer) if turn.answer else ("<em>no words</em>" if turn.done else "")
    cursor = "" if turn.done else '<span class="hg-cursor" aria-hidden="true"></span>'
    copy = (
        f'<button type="button" class="hg-quiet hg-copy" data-hg="copy" data-text="{html.escape(turn.answer)}">Copy'
        '<span class="hg-unseen"> the answer</span></button>'
        if turn.done and turn.answer
        else ""
    )
    return f'<div class="hg-answer"><p>{words}{cursor}</p>{copy}</div>'


def drawing(turn: Turn, token: str) -> str:
    """A picture, whole or as far as it is drawn."""
    if turn.picture is None:
        return "" if turn.done else '<div class="hg-canvas hg-waiting"></div>'
    after = as_address(turn.picture)
    before = as_address(turn.shown) if turn.shown is not None else ""
    if not turn.done or turn.share < 1:
        under = f'<img class="hg-under" src="{before}" alt="">' if before else ""
        percent = round(100 * turn.share)
        words = f"Stopped at {percent} %" if turn.done else f"Drawing, {percent} %"
        return (
            f'<figure class="hg-drawn"><div class="hg-canvas">{under}<img class="hg-partial" src="{after}" '
            f'alt="The picture as far as it is drawn"></div><figcaption>{words}'
            f'<progress max="100" value="{percent}" aria-label="Drawn">{percent} %</progress></figcaption></figure>'
        )
    if before:
        view = beside(before, after, ("before", "after"), ("the image that was sent", "the drawn picture"))
    else:
        view = f'<div class="hg-canvas"><img src="{after}" alt="The drawn picture"></div>'
    return (
        f'<figure class="hg-drawn">{view}<figcaption><span class="hg-synthetic">Synthetic: drawn by a model'
        f"</span>{_downloads(turn, token, after)}</figcaption></figure>"
    )


def beside(first: str, second: str, labels: tuple[str, str], what: tuple[str, str]) -> str:
    """Two pictures on each other, and a handle that shows more of the one or the other, by pointer or arrow keys."""
    return (
        '<div class="hg-canvas hg-compare" style="--at:50%">'
        f'<img src="{first}" alt="{labels[0].capitalize()}: {what[0]}">'
        f'<img class="hg-after" src="{second}" alt="{labels[1].capitalize()}: {what[1]}">'
        f'<span class="hg-label hg-left" aria-hidden="true">{labels[0]}</span>'
        f'<span class="hg-label hg-right" aria-hidden="true">{labels[1]}</span>'
        '<span class="hg-line" aria-hidden="true"></span><input type="range" min="0" max="100" value="50" '
        f'data-hg="compare" aria-label="How much of {what[0]} is shown, in percent"></div>'
    )


def _downloads(turn: Turn, token: str, address: str) -> str:
    links = "".join(
        f'<a class="hg-quiet" href="drawn/{token}/{turn.number}{kind}" download="healthgpt-{turn.number}{kind}">'
        f'<span class="hg-unseen">Download as </span>{_FILE_NAMES[kind]}</a>'
        for kind in KINDS
    )
    return (
        '<span class="hg-actions">'
        f'<button type="button" class="hg-quiet" data-hg="copy-picture" data-picture="{address}">Copy'
        f'<span class="hg-unseen"> the picture</span></button>{links}'
        f'<button type="button" class="hg-quiet" data-hg="use" data-picture="{address}">Use as image</button></span>'
    )


def _footer(turn: Turn) -> str:
    facts = [turn.model, turn.file, caption(turn.source) if turn.source else "", turn.chosen.words()]
    if turn.done:
        facts.append(f"{turn.seconds:.2f} s" if turn.seconds < 1 else f"{turn.seconds:.1f} s")
    if turn.stopped and turn.done:
        facts.append("stopped")
    return f'<p class="hg-facts">{" · ".join(text(fact) for fact in facts if fact)}</p>'


def source_buttons() -> str:
    """Other ways to an image than choosing a file; head.html hands it to the upload."""
    return (
        '<div class="hg-sources"><button type="button" class="hg-quiet" data-hg="paste">'
        'Paste<span class="hg-wide">&nbsp;image</span></button>'
        '<button type="button" class="hg-quiet" data-hg="camera">Camera</button></div>'
    )


def gallery(examples: Sequence[Example]) -> str:
    """A card for each example."""
    cards = "".join(
        f'<li><button type="button" class="hg-card" data-example="{number}">{_card_picture(example)}'
        f"<span>{text(example.label)}</span></button></li>"
        for number, example in enumerate(examples)
    )
    return f'<ul class="hg-gallery" aria-label="Examples to try">{cards}</ul>'


def _card_picture(example: Example) -> str:
    if example.image is None:
        return '<span class="hg-no-picture" aria-hidden="true">Aa</span>'
    picture = read_image(example.image, View.of(window=example.window, slice="middle"))
    return f'<img src="{as_address(picture)}" alt="">'


def verdict(first: Turn, second: Turn) -> str:
    """Whether two settings came to the same."""
    if first.error or second.error or first.stopped or second.stopped:
        return ""
    if first.picture is not None and second.picture is not None:
        same = first.picture.tobytes() == second.picture.tobytes()
        words = "The pictures are the same." if same else "The pictures differ."
        addresses = (as_address(first.picture), as_address(second.picture))
        view = "" if same else beside(*addresses, ("A", "B"), ("the picture of A", "the picture of B"))
    else:
        same, view = first.answer == second.answer, ""
        words = "The answers are the same." if same else "The answers differ."
    return f'<p class="hg-verdict {"hg-same" if same else "hg-different"}" role="status">{words}</p>{view}'
