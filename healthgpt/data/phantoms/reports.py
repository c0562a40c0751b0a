"""Reports: what a radiologist would write of a phantom, in one fixed wording or in varied ones."""

from __future__ import annotations

import numpy as np

from healthgpt.data.phantoms.phantom import Finding, Phantom

_PLURALS = {"gallstone": "gallstones", "hyperechoic mass": "hyperechoic masses", "drusen": "drusen"}
_NUMBERS = {1: "one", 2: "two", 3: "three"}
# Radiologists' words for the two sizes.
_SIZES = {"small": ("small", "mild", "slight"), "large": ("large", "marked", "extensive")}
_CHEST_FINDINGS = ("pleural effusion", "pneumothorax", "consolidation", "nodule")


def plural(name: str) -> str:
    """The name of several findings of a kind."""
    return _PLURALS.get(name, name + "s")


def report(phantom: Phantom, modality: str) -> str:
    """The report of one image, worded in one way only, so that it can be compared exactly.

    >>> report(phantom, "CT")
    'Axial CT of the brain. Large hemorrhage on the left side.'
    """
    plane = f"{phantom.plane} " if phantom.plane else ""
    opening = f"{plane}{modality} of the {phantom.organ}."
    opening = opening[0].upper() + opening[1:]
    return f"{opening} {_describe(phantom)}"


def _describe(phantom: Phantom) -> str:
    finding = phantom.finding
    if finding is None:
        return "No abnormality is seen."
    if finding.name == "cardiomegaly":
        return "The heart is enlarged."
    name = finding.name if finding.count == 1 else f"{_NUMBERS[finding.count]} {plural(finding.name)}"
    words = [finding.size, name] if finding.size and finding.count == 1 else [name]
    if finding.size and finding.count > 1:
        words = [_NUMBERS[finding.count], finding.size, plural(finding.name)]
    text = " ".join(word for word in words if word)
    text = text[0].upper() + text[1:]
    where = {None: "", "both": " on both sides"}.get(finding.side, f" on the {finding.side} side")
    return f"{text}{where}."


def chest_report(finding: Finding | None, rng: np.random.Generator) -> str:
    """A report of a chest X-ray in one of many wordings; what it denies is truly absent."""
    if finding is None:
        choices = (
            "The heart is normal in size and the lungs are clear.",
            "No acute cardiopulmonary abnormality.",
            "Normal chest.",
            "Clear lungs. Normal heart size. No pleural effusion or pneumothorax.",
            "No abnormality is seen.",
        )
        return choices[rng.integers(len(choices))]
    sentences = [_positive(finding, rng)]
    if rng.random() < 0.4:
        absent = [name for name in _CHEST_FINDINGS if name != finding.name]
        sentences.append(f"No {absent[rng.integers(len(absent))]}.")
    if finding.name != "cardiomegaly" and rng.random() < 0.3:
        sentences.append("The heart is normal in size.")
    if rng.random() < 0.3:
        sentences.reverse()
    return " ".join(sentences)


def _positive(finding: Finding, rng: np.random.Generator) -> str:
    if finding.name == "cardiomegaly":
        choices: tuple[str, ...] = ("Cardiomegaly.", "The heart is enlarged.", "The cardiac silhouette is enlarged.")
        return choices[rng.integers(len(choices))]
    sizes = _SIZES[finding.size or "small"]
    size = sizes[rng.integers(len(sizes))]
    if finding.side == "both":
        many = plural(finding.name)
        choices = (
            f"{size} {many} on both sides.",
            f"{size} bilateral {many}.",
            f"there are {size} {many} in both lungs.",
        )
    else:
        choices = (
            f"{size} {finding.side} {finding.name}.",
            f"{size} {finding.name} on the {finding.side} side.",
            f"there is a {size} {finding.name} on the {finding.side}.",
            f"the X-ray shows a {size} {finding.side} {finding.name}.",
        )
    text = choices[rng.integers(len(choices))]
    return text[0].upper() + text[1:]
