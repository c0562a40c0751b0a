"""Chooses the gallery of the project page: what HealthGPT-Nano drew and answered, on phantoms of the test split.

    .venv/bin/python scripts/site/gallery.py [--run FOLDER]

Whatever comes first in the evaluation behind benchmarks/results/nano.json is shown (seed 1), of patients in whom
something is wrong. FOLDER is such a run (`bash scripts/nano/evaluate.sh --seed 1`); without it a short one is made,
whose first samples are the same. Writes docs/assets/gallery: images as WebP, and gallery.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "assets" / "gallery"
SEED, COUNT = 1, 24
DRAWN = {
    "ct2mri": "CT to MRI",
    "mri2ct": "MRI to CT",
    "super-resolution": "Super-resolution",
    "reconstruction": "Reconstruction",
    "report-to-cxr": "Report to X-ray",
}
EXAMPLES = 4  # of each kind of drawing
ASKED = ("finding", "side", "count", "size", "report")
QUALITY = 90

Sample = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="an evaluation of nano on phantoms of seed 1")
    run = parser.parse_args().run
    with tempfile.TemporaryDirectory() as name:
        chosen = choose(run or evaluate(Path(name)), FOLDER)
    path = FOLDER / "gallery.json"
    path.write_text(json.dumps(chosen, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{path.relative_to(ROOT)}: {len(list(FOLDER.glob('*.webp')))} images, {size / 1000:.0f} kB in all")


def evaluate(folder: Path) -> Path:
    """A short evaluation of the shipped model; returns its folder."""
    command = ["-m", "healthgpt.cli", "evaluate", "--model", "nano", "--benchmark", "phantoms"]
    limits = ["--seed", str(SEED), "--count", str(COUNT), "--output", str(folder)]
    subprocess.run([sys.executable, *command, *limits], check=True, cwd=ROOT)
    return next(folder.rglob("samples.jsonl")).parent


def choose(run: Path, folder: Path) -> dict[str, Any]:
    """The gallery of a run; writes its images into a folder."""
    samples = read_lines(run / "samples.jsonl")
    given = {line["id"]: line.get("image") for line in read_lines(run / "questions.jsonl")}
    patients = {line["id"]: line for line in read_lines(next(run.rglob("patients.jsonl")))}
    facts = json.loads((run / "results.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.webp"):
        old.unlink()
    pictures = Pictures(run, folder)
    drawings = {
        kind: [drawing(sample, given, patients, pictures) for sample in examples(samples, kind, patients)]
        for kind in DRAWN
    }
    return {
        "model_sha256": facts["model_sha256"],
        "split": facts["split"],
        "drawings": drawings,
        "answers": [asked(found, given, pictures) for found in by_modality(samples, patients)],
    }


class Pictures:
    """Copies images of a run as WebP, each once."""

    def __init__(self, run: Path, folder: Path):
        self._run, self._folder = run, folder

    def copied(self, path: str) -> dict[str, Any]:
        """An image's name and size in the gallery."""
        target = self._folder / f"{Path(path).stem}.webp"
        with Image.open(self._run / path) as image:
            if not target.exists():
                image.convert("RGB").save(target, quality=QUALITY, method=6)
            return {"file": target.name, "width": image.width, "height": image.height}


def read_lines(path: Path) -> list[Sample]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def examples(samples: list[Sample], kind: str, patients: dict[str, Any]) -> Iterator[Sample]:
    """The first samples of a type, one of each patient in whom something is wrong."""
    firsts: dict[str, Sample] = {}
    for sample in samples:
        facts = sample["facts"]
        if facts["kind"] == kind and patients[facts["patient"]]["finding"] is not None:
            firsts.setdefault(facts["patient"], sample)
    yield from islice(firsts.values(), EXAMPLES)


def missed(sample: Sample) -> bool:
    """Whether a lesion, or a report's finding, was not drawn."""
    return 0.0 in (sample["scores"].get("lesions_kept"), sample["scores"].get("findings"))


def drawing(sample: Sample, given: dict[str, Any], patients: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """A drawing with its input, its truth and what it scored."""
    image = given[sample["id"]]
    return {
        "id": sample["id"],
        "question": sample["prompt"],
        "finding": patients[sample["facts"]["patient"]]["finding"],
        "organ": patients[sample["facts"]["patient"]]["organ"],
        "input": pictures.copied(image) if image else None,
        "drawn": pictures.copied(sample["answer"]),
        "truth": pictures.copied(sample["truth"]),
        "missed": missed(sample),
        "scores": sample["scores"],
    }


def by_modality(samples: list[Sample], patients: dict[str, Any]) -> Iterator[list[Sample]]:
    """Of each modality the first image of an ill patient, and a question of each kind about it."""
    seen: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        facts = sample["facts"]
        if facts["kind"] in ASKED and patients[facts["patient"]]["finding"] is not None:
            kinds = seen.setdefault(facts["modality"], {}).setdefault(facts["patient"], [])
            if facts["kind"] not in [other["facts"]["kind"] for other in kinds]:
                kinds.append(sample)
    for found in seen.values():
        first = max(found.values(), key=len)  # of equally many the first
        yield sorted(first, key=lambda sample: ASKED.index(sample["facts"]["kind"]))


def asked(samples: list[Sample], given: dict[str, Any], pictures: Pictures) -> dict[str, Any]:
    """An image, and what was asked and answered about it."""
    return {
        "modality": samples[0]["facts"]["modality"],
        "image": pictures.copied(given[samples[0]["id"]]),
        "turns": [
            {"question": s["prompt"], "answer": s["answer"], "truth": s["truth"], "right": s["scores"]["right"] == 1}
            for s in samples
        ],
    }


if __name__ == "__main__":
    main()
