"""Draws docs/images/phantoms.png: a row of phantoms per subject and modality, each with what is found in it.

.venv/bin/python scripts/make_phantom_sheet.py
"""

import textwrap
from itertools import count, islice
from pathlib import Path

from matplotlib.figure import Figure

from healthgpt.data.phantoms.phantom import Phantom
from healthgpt.data.phantoms.source import draw_patient
from healthgpt.data.phantoms.subjects import SUBJECTS

PATH = Path(__file__).parents[1] / "docs" / "images" / "phantoms.png"
SEED, COLUMNS = 3, 11


def main() -> None:
    rows = []
    for i in range(len(SUBJECTS)):
        patients = [draw_patient("test", SEED, n) for n in islice(count(i, len(SUBJECTS)), COLUMNS)]
        rows += [(modality, patients) for modality in patients[0].images]
    figure = Figure(figsize=(13, 1.5 * len(rows)), layout="constrained")
    for axes, (modality, patients) in zip(figure.subplots(len(rows), COLUMNS), rows, strict=True):
        axes[0].set_ylabel(modality, fontsize=9)
        for ax, phantom in zip(axes, patients, strict=True):
            ax.imshow(phantom.images[modality], interpolation="nearest")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.set_title(title(phantom), fontsize=6.5)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PATH, dpi=100)
    print(PATH)


def title(phantom: Phantom) -> str:
    finding = phantom.finding
    if finding is None:
        return f"{phantom.organ}: normal"
    number = f"{finding.count} x" if finding.count > 1 else None
    text = " ".join(word for word in (number, finding.size, finding.side, finding.name) if word)
    return textwrap.fill(text, 18)


if __name__ == "__main__":
    main()
