"""Draws docs/images/nano.png: what HealthGPT-Nano answers and draws, on phantoms of the test split.

    .venv/bin/python scripts/make_nano_figure.py [--model nano] [--seed 7] [--output docs/images/nano.png]

One row per kind of drawing (input, drawn, truth), one column per modality for answers. Whatever comes first is shown.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from healthgpt import HealthGPT
from healthgpt.data.phantoms.source import write_phantoms
from healthgpt.data.phantoms.subjects import MODALITIES
from healthgpt.data.records import IMAGE_MARK, RecordFile
from healthgpt.tasks import Task, TaskType

TITLES = {
    TaskType.CT_TO_MRI: "CT to MRI",
    TaskType.MRI_TO_CT: "MRI to CT",
    TaskType.SUPER_RESOLUTION: "super-resolution",
    TaskType.RECONSTRUCTION: "reconstruction",
    TaskType.REPORT_TO_CXR: "report to X-ray",
}
EXAMPLES = 3  # of each kind of drawing
QUESTIONS = ("finding", "side", "count", "report")
PATIENTS = 140
GREEN, RED = "#1a7f37", "#b3261e"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="nano")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--output", type=Path, default=Path("docs/images/nano.png"))
    flags = parser.parse_args()
    model = HealthGPT.from_pretrained(flags.model)
    figure = Figure(figsize=(13, 14.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.0, 0.72))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        list(write_phantoms(folder, split="test", seed=flags.seed, count=PATIENTS))
        show_drawings(model, folder, top)
        show_answers(model, folder, bottom)
    flags.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(flags.output, dpi=110)
    print(flags.output)


def show_drawings(model: HealthGPT, folder: Path, figure: Any) -> None:
    """A row per kind of drawing: three times input, drawn and truth."""
    axes = figure.subplots(len(TITLES), 3 * EXAMPLES)
    for row, (kind, title) in zip(axes, TITLES.items(), strict=True):
        path = folder / Task.GENERATION / f"{kind}.jsonl"
        records = [r for r in RecordFile(path) if kind is not TaskType.REPORT_TO_CXR or " " in question_of(r)]
        for i in range(EXAMPLES):
            record = records[i * len(records) // EXAMPLES]
            given, drawn, truth = row[3 * i : 3 * i + 3]
            image = path.parent / record["image"] if "image" in record else None
            show(drawn, model.draw(question_of(record), image))
            show(truth, Image.open(path.parent / record["target_image"]))
            if image:
                show(given, Image.open(image))
            else:
                show_text(given, question_of(record))
        row[0].set_ylabel(title, fontsize=11)
    for i, ax in enumerate(axes[0]):
        ax.set_title(("input", "drawn", "truth")[i % 3], fontsize=10)


def show_answers(model: HealthGPT, folder: Path, figure: Any) -> None:
    """A column per modality: an image, then questions and answers, wrong ones in red with the truth."""
    for ax, modality in zip(figure.subplots(1, len(MODALITIES)), MODALITIES, strict=True):
        asked = []
        for kind in QUESTIONS:
            path = folder / Task.COMPREHENSION / f"{kind}.jsonl"
            found = [r for r in RecordFile(path) if r["metadata"]["modality"] == modality]
            patient = asked[0]["metadata"]["patient"] if asked else None
            same = [r for r in found if r["metadata"]["patient"] == patient]
            if not asked:
                same = [r for r in found if r["conversations"][1]["value"] != "No abnormality"][2:3]
            asked += same[:1]
        image = folder / Task.COMPREHENSION / asked[0]["image"]
        show(ax, Image.open(image))
        ax.set_anchor("N")  # the room below is for questions and answers
        ax.set_title(modality, fontsize=11)
        y = -0.06
        for record in asked:
            answer, truth = model.answer(question_of(record), image), record["conversations"][1]["value"]
            for text, colour, weight in (
                (question_of(record), "black", "normal"),
                (answer if answer == truth else f"{answer} ({truth})", GREEN if answer == truth else RED, "bold"),
            ):
                lines = wrapped(text, 24)
                ax.text(0, y, lines, transform=ax.transAxes, fontsize=8, va="top", color=colour, weight=weight)
                y -= 0.085 * (lines.count("\n") + 1) + 0.02


def question_of(record: dict[str, Any]) -> str:
    return record["conversations"][0]["value"].removeprefix(IMAGE_MARK).strip()


def wrapped(text: str, width: int) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width))


def show(ax: Any, image: Image.Image) -> None:
    ax.imshow(np.asarray(image.convert("RGB")), interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])


def show_text(ax: Any, text: str) -> None:
    ax.text(0.02, 0.98, wrapped(text, 19), transform=ax.transAxes, fontsize=7.5, va="top")
    ax.set_xticks([])
    ax.set_yticks([])


if __name__ == "__main__":
    main()
