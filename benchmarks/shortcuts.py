"""What the engine's shortcuts save and change: python benchmarks/shortcuts.py [--count 60]

Two cores. Times of single answers and drawings in turns with the exact engine, of the shipped model and of one with
random weights whose layers are too large for the engine's loops (67 MB each); results of the shipped model on phantoms
of the validation split, scored by `healthgpt evaluate`, each in a folder of its own, which goes on where it was
interrupted.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from report import publish

from healthgpt import HealthGPT
from healthgpt.cli import main as healthgpt
from healthgpt.files import read_json
from healthgpt.random_model import RandomShape, write_random_model
from healthgpt.shortcuts import Shortcuts

CORES = 2
LARGE = RandomShape(width=1024, layers=8, heads=16, kv_heads=16, mlp=4096)
EXAMPLES = Path(__file__).parents[1] / "healthgpt" / "examples"
WAYS = {
    "none": (Shortcuts(), []),
    "int8_weights": (Shortcuts(int8_weights=True), ["--int8_weights"]),
    "fp8_cache": (Shortcuts(fp8_cache=True), ["--fp8_cache"]),
    "row_lead 7": (Shortcuts(row_lead=7), ["--row_lead", "7"]),
    "row_lead 4": (Shortcuts(row_lead=4), ["--row_lead", "4"]),
    "row_lead 2": (Shortcuts(row_lead=2), ["--row_lead", "2"]),
}
# What a row has of an evaluation's figures, as shares.
SCORES = {
    "questions_right": "all/right",
    "ct2mri_ssim": "kind=ct2mri/ssim",
    "lesions_kept": "kind=ct2mri/lesions_kept",
    "findings_drawn": "kind=report-to-cxr/findings",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=60, help="samples per kind of question and type of drawing")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--folder", type=Path, default=Path("output/shortcuts"))
    flags = parser.parse_args()
    torch.set_num_threads(CORES)
    phantoms = flags.folder / "phantoms"
    prepared = ["prepare", "phantoms", "--split", "validation", "--seed", "0", "--count", str(7 * flags.count)]
    run([*prepared, "--output", str(phantoms)])
    scores = {name: scored(name, words, phantoms, flags) for name, (_, words) in WAYS.items()}
    large = flags.folder / "large"
    if not large.exists():
        write_random_model(large, LARGE)
    small, larger = timed("nano", flags.rounds), timed(large, flags.rounds)
    rows = [
        {"shortcut": name}
        | small[name]
        | {f"large_{what}": value for what, value in larger[name].items()}
        | scores[name]
        for name in WAYS
    ]
    publish("shortcuts", rows, count=flags.count, rounds=flags.rounds, split="validation")


def scored(name: str, words: list[str], phantoms: Path, flags: argparse.Namespace) -> dict[str, float]:
    """Figures of an evaluation."""
    output = flags.folder / name.replace(" ", "_")
    asked = [
        "--benchmark",
        "phantoms",
        "--split",
        "validation",
        "--phantoms",
        str(phantoms),
        "--count",
        str(flags.count),
    ]
    run(["evaluate", *asked, "--batch_size", "32", "--device", "cpu", "--output", str(output), *words])
    figures = read_json(output / "phantoms" / "results.json")["figures"]
    return {title: figures[name]["value"] for title, name in SCORES.items()}


def run(words: list[str]) -> None:
    if healthgpt(words):
        raise SystemExit(f"failed: healthgpt {' '.join(words)}")


def timed(folder: Path | str, rounds: int) -> dict[str, dict[str, float]]:
    """By shortcut, medians of a token of an answer and of a drawing alone, beside those of the exact engine."""
    image = EXAMPLES / "brain_ct.png"
    models = {
        name: HealthGPT.from_pretrained(folder, device="cpu", shortcuts=shortcuts)
        for name, (shortcuts, _) in WAYS.items()
    }

    def answer(model: HealthGPT) -> int:
        details = model.answer("Describe this image.", image, max_new_tokens=32, return_details=True)
        return len(details.token_ids)

    def draw(model: HealthGPT) -> int:
        model.draw("Turn this CT into an MRI.", image)
        return 1

    works: dict[str, Callable[[HealthGPT], int]] = {"answer": answer, "drawing": draw}
    times = {(name, what): list[float]() for name in models for what in works}
    for _ in range(rounds + 1):
        for name, model in models.items():
            for what, work in works.items():
                start = time.perf_counter()
                made = work(model)
                times[name, what].append((time.perf_counter() - start) / made)
    medians = {key: statistics.median(found[1:]) for key, found in times.items()}
    return {
        name: {f"{what}_ms": 1000 * medians[name, what] for what in works}
        | {f"{what}_speed_up": medians["none", what] / medians[name, what] for what in works}
        for name in models
    }


if __name__ == "__main__":
    main()
