"""The model card: what the shipped model is, how it was trained, what it attains, and the checksums of its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from healthgpt.files import read_json, write_atomically
from healthgpt.nano.goals import goals_table
from healthgpt.shipped import CARD_NAME, CHECKSUMS_NAME
from healthgpt.training.feedback import RUN_NAME, read_metrics

PARTS = {"vqgan": "VQGAN (f = 8)", "vit": "CLIP ViT", "base": "Phi-3-architecture LLM and tokenizer"}
RUNS = ("stage1_comprehension", "stage1_generation", "stage2_fusion", "stage3_comprehension", "stage3_generation")
_UNSHOWN = ("epoch", "step", "seconds")  # of what a part's log says of held-out data
_UNLISTED = ("exact", "contains", "first_word", "recall", "precision", "f1")  # `right` says it
_HEAD = """---
license: apache-2.0
tags: [healthgpt, phantoms, not-for-medical-use]
---
# HealthGPT-Nano

HealthGPT in miniature: one frozen language model with an H-LoRA plugin per task answers questions about images of seven
modalities and draws images in five ways. It was trained by this project's own three stages, on phantoms alone.

**It is no medical device and knows no patients.** All it has ever seen are synthetic pictures of 64 x 64 pixels, drawn
from random numbers by `healthgpt.data.phantoms`. What it says of a real image means nothing. It is for trying the
software, for tests and for teaching.

- Understands: CT and MRI (brain, pelvis), X-ray (chest), ultrasound (liver, gallbladder), OCT and fundus photography
  (retina), microscopy (colon, blood).
- Draws: CT to MRI, MRI to CT, 4 x super-resolution of MRI, reconstruction of CT, MRI and X-ray, report to chest X-ray.
- Rebuilt from nothing by `bash scripts/nano/build.sh`; scored by `bash scripts/nano/evaluate.sh`.
"""


def write_card(folder: Path, training: Path, results: Path) -> Path:
    """Writes the card of a shipped folder.

    Args:
        training: the output folder of `scripts/nano/build.sh`.
        results: the `results.json` of `healthgpt evaluate --benchmark phantoms`.
    """
    sections = [_HEAD, _training_table(training), results_table(read_json(results)), _checksums(folder)]
    write_atomically(folder / CARD_NAME, lambda path: path.write_text("\n".join(sections)))
    return folder / CARD_NAME


def _training_table(training: Path) -> str:
    lines = [
        "## Training",
        "",
        "| part | steps | batch | learning rate | minutes | held out |",
        "|---|---|---|---|---|---|",
    ]
    for name, title in PARTS.items():
        log = read_json(training / "parts" / f"{name}_training_log.json")
        settings, figures = log["settings"], log["held_out"][-1]
        shown = ", ".join(
            f"{key} {value:.3g}" for key, value in figures.items() if isinstance(value, float) and key not in _UNSHOWN
        )
        recipe = settings["steps"], settings["batch_size"], settings["learning_rate"]
        lines.append(_row(title, *recipe, round(log["seconds"] / 60), shown))
    for name in RUNS:
        run = read_json(training / name / RUN_NAME)
        config, seconds = run["config"], [line.get("train_runtime", 0.0) for line in read_metrics(training / name)]
        recipe = run["steps"], config["global_batch_size"], config["learning_rate"]
        loss = f"training loss {run['losses']['final_loss']:.3g}"
        lines.append(_row(name, *recipe, round(sum(seconds) / 60), loss))
    return "\n".join(lines) + "\n"


def _row(*cells: Any) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def results_table(results: dict[str, Any]) -> str:
    """The figures of an evaluation as a Markdown section."""
    lines = [
        "## Results", "",
        f"Phantoms of split {results['split']}, greedy. `_ceiling` is the VQGAN's own round trip of the truth, the"
        " best that a drawing can be; `_copied` and `_bicubic` are what doing nothing gives.", "",
        goals_table(results["figures"]), "All figures:", "", "| figure | value | n |", "|---|---|---|",
    ]  # fmt: skip
    for name, figure in results["figures"].items():
        if name.rpartition("/")[2] not in _UNLISTED:
            lines.append(_row(name, round(figure["value"], 4), figure["n"]))
    return "\n".join(lines) + "\n"


def _checksums(folder: Path) -> str:
    sums = (folder / CHECKSUMS_NAME).read_text()
    return f"## Files (SHA-256)\n\nA file that differs is refused by name.\n\n```\n{sums}```\n"
