"""The gallery's HTML: one look at what the model does, drawings under a slider, and answers by modality."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from typing import Any

import results
from gallery import DRAWN, FOLDER

Picture = dict[str, Any]
LAYERS = ("input", "drawn", "truth")
# What a scored drawing is said to have kept; the first that it has is shown.
VERDICTS = {"lesions_kept": ("lesion kept", "lesion lost"), "findings": ("finding drawn", "finding missed")}


@cache
def gallery() -> dict[str, Any]:
    return json.loads((FOLDER / "gallery.json").read_text(encoding="utf-8"))


def image(picture: Picture, assets: str, alt: str, *, lazy: bool = True, classes: str = "") -> str:
    """An image at a fixed shape, so that nothing moves when it comes."""
    loading = ' loading="lazy"' if lazy else ""
    size = f'width="{picture["width"]}" height="{picture["height"]}"'
    kind = f' class="{classes}"' if classes else ""
    return f'<img src="{assets}/{picture["file"]}" {size} alt="{escape(alt)}"{kind}{loading} decoding="async">'


def first_drawing() -> dict[str, Any]:
    """What stands first: from CT to MRI."""
    return dict(gallery()["drawings"]["ct2mri"][0])


def turn_about(picture: Picture) -> dict[str, Any]:
    """The first question about an image, and its answer."""
    asked = next(entry for entry in gallery()["answers"] if entry["image"]["file"] == picture["file"])
    return dict(asked["turns"][0])


def first_look(assets: str) -> str:
    """One image, a question to answer and an instruction to draw, with what the model gave."""
    drawing = first_drawing()
    turn = turn_about(drawing["input"])
    given = image(drawing["input"], assets, "A CT of the brain with a bright spot on the right", lazy=False)
    drawn = image(drawing["drawn"], assets, "The same brain as an MRI: the spot is dark now", lazy=False)
    said = escape(turn["answer"].capitalize())
    return f"""
<figure class="look">
  <div class="look-given">{given}<span>one image</span></div>
  <div class="look-way read"><span class="tag">understand</span>
    <p class="look-ask">{escape(turn["question"])}</p><p class="look-said">{said}</p></div>
  <div class="look-way draw"><span class="tag">draw</span>
    <p class="look-ask">{escape(drawing["question"])}</p>{drawn}</div>
  <figcaption>Answered and drawn by HealthGPT-Nano, which comes with the package. The patient is synthetic.</figcaption>
</figure>"""


def drawings(assets: str) -> str:
    """A panel per kind of drawing: four patients, and a slider from what was given over what was drawn to the truth."""
    tabs, panels = [], []
    for i, (kind, title) in enumerate(DRAWN.items()):
        chosen = ("true", "0") if i == 0 else ("false", "-1")
        tabs.append(
            f'<button type="button" role="tab" id="tab-{kind}" aria-controls="panel-{kind}" '
            f'aria-selected="{chosen[0]}" tabindex="{chosen[1]}">{title}</button>'
        )
        samples = "".join(sample(entry, assets) for entry in gallery()["drawings"][kind])
        given = "report" if kind == "report-to-cxr" else "input"
        panels.append(
            f'<div role="tabpanel" id="panel-{kind}" aria-labelledby="tab-{kind}" tabindex="0"{" hidden" if i else ""}>'
            f'<div class="slide"><label for="slide-{kind}">{given}</label>'
            f'<input type="range" id="slide-{kind}" min="0" max="100" value="50" aria-valuetext="drawn" '
            f'aria-label="From {given} over drawn to truth">'
            f'<output for="slide-{kind}">drawn</output><span aria-hidden="true">truth</span></div>'
            f'<div class="samples">{samples}</div></div>'
        )
    tablist = f'<div role="tablist" aria-label="Kinds of drawing">{"".join(tabs)}</div>'
    return f'<div class="tabs gallery">{tablist}{"".join(panels)}</div>'


def sample(entry: dict[str, Any], assets: str) -> str:
    """One drawing: its three layers, what was asked, and how near it came."""
    finding = entry["finding"]["name"]
    shown = []
    for layer in LAYERS:
        if entry[layer] is None:
            shown.append(f'<p class="layer input report">{escape(entry["question"])}</p>')
        else:
            alt = f"{layer}: {entry['organ']}, {finding}"
            shown.append(image(entry[layer], assets, alt, classes=f"layer {layer}"))
    asked = f"<q>{escape(entry['question'])}</q>" if entry["input"] else escape(finding.capitalize())
    return (
        f'<figure class="sample"><div class="layers">{"".join(shown)}</div>'
        f"<figcaption>{asked}<small>{_scored(entry['scores'], finding)}</small></figcaption></figure>"
    )


def _scored(scores: dict[str, float], finding: str) -> str:
    """What is measured of a drawing."""
    said = []
    for name, (kept, lost) in VERDICTS.items():
        if name in scores:
            good = scores[name] == 1
            said.append(f'<span class="{"good" if good else "bad"}">{escape(finding)}: {kept if good else lost}</span>')
    if "ssim" in scores:
        said.append(f"SSIM {scores['ssim']:.3f} of {scores['ssim_ceiling']:.3f}")
    return "<br>".join(said)


def answers(assets: str) -> str:
    """A card per modality; what is wrong says so, with the truth."""
    cards = []
    for entry in gallery()["answers"]:
        turns = []
        for turn in entry["turns"]:
            said, kind = escape(turn["answer"]), "good" if turn["right"] else "bad"
            if not turn["right"]:
                said += f' <span class="bad">✗ truth: {escape(turn["truth"])}</span>'
            turns.append(f'<dt>{escape(turn["question"])}</dt><dd class="{kind}">{said}</dd>')
        name = entry["modality"]
        picture = image(entry["image"], assets, f"Phantom: {name}")
        talk = f"<h3>{name[0].upper()}{name[1:]}</h3><dl>{''.join(turns)}</dl>"
        cards.append(f'<li class="card">{picture}{talk}</li>')
    right, asked = results.nano("all/right"), results.nano_count("all/right")
    said = f"of all {asked:,} questions of its evaluation are right"
    total = f"<strong>{results.percent(right)}</strong><span>{said}</span>"
    return f'<ul class="answers">{"".join(cards)}<li class="card sum">{total}</li></ul>'
